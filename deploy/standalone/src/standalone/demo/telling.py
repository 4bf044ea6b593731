"""What the demo prints: its progress, who got what, and where to look. Bars on a terminal, plain lines elsewhere."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from itertools import groupby
from urllib.parse import urlsplit

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from standalone.demo.accounting import Check, Reach, Watch
from standalone.demo.site import Site
from standalone.demo.state import PublishedItem

PLAIN_WIDTH = 110
PREFERENCES = re.compile(r"https?://\S+/prenumeration/[\w.=-]+")
ALWAYS, ELSE = ("planned", "sent", "failed"), ("waiting", "deferred", "uncertain", "cancelled")
"""Columns that always stand, and those that stand only where they hold a number."""


def console() -> Console:
    """Where to print: as wide as the terminal, or wide enough for the tables."""
    screen = Console(highlight=False)
    return screen if screen.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


@contextmanager
def watching(out: Console) -> Iterator[Watch]:
    """Shows how far each item has come."""
    if not out.is_terminal:
        yield _plain_watch(out)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True) as progress:
        tasks = {}

        def watch(item: PublishedItem, reach: Reach) -> None:
            if item.id not in tasks:
                tasks[item.id] = progress.add_task(item.title, total=None)
            progress.update(tasks[item.id], total=reach.planned or None, completed=reach.done)

        yield watch


def _plain_watch(out: Console) -> Watch:
    last: dict[str, tuple[int, int]] = {}

    def watch(item: PublishedItem, reach: Reach) -> None:
        now = (reach.done, reach.planned)
        if reach.planned and last.get(item.id) != now:
            out.print(f"  {reach.done} of {reach.planned} accounted for: {item.title}")
            last[item.id] = now

    return watch


def who_got_what(item: PublishedItem, reach: Reach) -> Table:
    """One item's receivers by audience and channel."""
    table = Table(title=item.title, title_justify="left", box=box.SIMPLE_HEAD, show_footer=True)
    table.add_column("audience", "all", no_wrap=True)
    table.add_column("channel")
    columns = [*ALWAYS, *(name for name in ELSE if reach.answer["total"][name])]
    for name in columns:
        table.add_column(name, str(reach.answer["total"][name]), justify="right", no_wrap=True)
    table.add_column("left out", str(reach.answer["excluded"]))
    for row in reach.rows:
        reasons = ", ".join(f"{each['count']} {_reason(each['reason'])}" for each in row["exclusions"])
        audience = (row["audience"] or "intranets").replace("_", " ")
        table.add_row(audience, row["channel"], *(str(row[name]) for name in columns), reasons or "-")
    return table


def _reason(reason: str) -> str:
    return "by digest" if reason == "frequency" else reason.replace("_", " ")


def verdict(checks: Sequence[Check]) -> Table:
    """Every number of the ledger beside the receivers' own."""
    table = Table("does it add up?", "", "", "", box=box.SIMPLE_HEAD, show_header=True)
    for about, mine in groupby(checks, key=lambda check: check.about):
        table.add_row(about)
        for check in mine:
            table.add_row(f"  {check.what}", str(check.said), str(check.found), "yes" if check.holds else "NO")
    return table


async def preference_link(site: Site, item: PublishedItem) -> str:
    """The link to the preference page out of a caught mail, as its reader would find it."""
    for mail in (await site.get("/mailbox.json", q=item.title))["data"]:
        source: EmailMessage = message_from_bytes(
            await site.fetch(f"/mailbox/{mail['id']}/source.eml"), policy=policy.default
        )
        body = source.get_body(("plain",))
        if body is not None and (found := PREFERENCES.search(body.get_content())):
            return found[0]
    return ""


def where_to_look(origin: str, items: Sequence[PublishedItem], preferences: str, admin_key: str) -> str:
    """The addresses to open, one a line and never broken, to be copied."""
    lines = [("The site", origin), *(("An item", moved(item.url, origin)) for item in items)]
    lines += [("Every mail", f"{origin}/mailbox"), ("The intranets", f"{origin}/demo/intranet")]
    if preferences:
        lines.append(("A reader's choices", moved(preferences, origin)))
    lines += [("The office", f"{origin}/kansli  (sign in with the API key)"), ("API key", admin_key)]
    told = [f"{what:<20}{where}" for what, where in lines]
    if before := sorted({_origin(item.url) for item in items} - {origin}):
        told.append(f"\nMails from before lead to {' and '.join(before)}, their address then.")
    return "\n".join(told)


def moved(url: str, origin: str) -> str:
    """The same page where the demo answers now: an earlier start may have had another port."""
    return origin + url.removeprefix(_origin(url))


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
