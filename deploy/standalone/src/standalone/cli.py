"""`budkavle`: the command line. Commands parse, call and print; what they do stands in the modules beside.

Exit status: 0 done, 1 refused or failed (one line on stderr says why), 2 wrong usage, 78 wrong settings.

The three services take a second to import. The commands that run or migrate them do it themselves; whoever brings a
file in or looks for dead letters, often and beside a Budkavle that runs, does not wait for them.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar
from uuid import UUID

import typer
import uvloop
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from sqlalchemy.exc import DBAPIError

from shared import logging
from shared.clock import SystemClock
from shared.contracts.news import Audience
from shared.keys import Scope
from shared.messaging.dead_letters import AlreadyReplayed, UnknownDeadLetter
from shared.settings import load
from standalone import dead_letters, importing, keys, republishing, restoring
from standalone import settings as standalone_settings
from standalone.data_directory import DEMO, DataDirectory, DirectoryInUse
from standalone.databases import database_url
from standalone.demo.failure import Failed
from standalone.failures import NotStarted, PortInUse
from standalone.settings import SERVICES, StandaloneSettings

if TYPE_CHECKING:
    from standalone.up import Standalone

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
keys_app = typer.Typer(no_args_is_help=True, help="API keys.")
dead_app = typer.Typer(no_args_is_help=True, help="Messages that could not be handled: look, mend, replay.")
app.add_typer(keys_app, name="keys")
app.add_typer(dead_app, name="dead")

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, highlight=False)
T = TypeVar("T")


class Which(StrEnum):
    """A service, or all three."""

    CONTENT = "content"
    SUBSCRIPTIONS = "subscriptions"
    DISTRIBUTOR = "distributor"
    ALL = "all"


Service = Annotated[Which, typer.Option("--service", help="One service, or all three.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.callback(invoke_without_command=True)
def main(*, show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Publish once, reach everyone who should know."""
    if show_version:
        typer.echo(f"budkavle {version('budkavle-standalone')}")
        raise typer.Exit


@app.command("up")
def up_() -> None:
    """Run all of Budkavle in this process, with its data in one directory.

    Settings come from the environment, and none is needed: BUDKAVLE_DATA_DIR (./budkavle-data), BUDKAVLE_PORT (8080),
    BUDKAVLE_HOST (127.0.0.1), BUDKAVLE_PUBLIC_URL, BUDKAVLE_SMTP_URL (without it mail is caught and shown at /mailbox),
    BUDKAVLE_SENDER, BUDKAVLE_ORGANISATION. `budkavle settings` lists them all.
    """
    from standalone import up  # noqa: PLC0415 - see above

    settings = load(StandaloneSettings)
    logging.configure(service="standalone", log_format=settings.log_format, level=settings.log_level)
    with _one_line(), up.prepared(settings) as whole:
        uvloop.run(up.serve(whole, lambda _: _announce(whole)))


@app.command("settings")
def settings_() -> None:
    """List every setting with its default: what `budkavle up` reads from the environment."""
    for setting in standalone_settings.listed():
        typer.echo(f"{setting.name}={setting.default}\n    {setting.meaning}")


@app.command()
def demo(
    *,
    once: Annotated[
        bool, typer.Option(envvar="BUDKAVLE_DEMO_ONCE", help="End when everything is accounted for.")
    ] = False,
) -> None:
    """Run with sample data: publish a press release and a news item, and show who got what."""
    from standalone.demo import run as demonstration  # noqa: PLC0415 - see above

    with _one_line():
        demonstration.run(once=once)


@app.command("migrate")
def migrate_(service: Service = Which.ALL) -> None:
    """Bring the databases to the newest version."""
    from standalone.parts import PARTS, migrate  # noqa: PLC0415 - see above

    settings = load(StandaloneSettings)
    DataDirectory(settings.data_dir).create()
    with _one_line():
        for part in PARTS:
            if service in (Which.ALL, part.name):
                migrate(part, settings)
                typer.echo(f"{part.name}: newest version")


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; repeat for several.")],
    service: Service = Which.ALL,
    *,
    as_json: AsJson = False,
) -> None:
    """Make a key for a service's API. It is shown once."""
    with _one_line():
        made = asyncio.run(keys.create(_urls(service), name=name, scopes=scope, clock=SystemClock()))
    if as_json:
        typer.echo(json.dumps(made))
        return
    for each, key in made.items():
        typer.echo(f"{each}  {key}")


@keys_app.command("list")
def list_keys(service: Service = Which.ALL, *, as_json: AsJson = False) -> None:
    """The keys that there are, without their secrets."""
    with _one_line():
        found = asyncio.run(keys.listing(_urls(service), clock=SystemClock()))
    if as_json:
        typer.echo(json.dumps(found, default=str))
        return
    for key in found:
        ended = f"  revoked {key['revoked_at']:%Y-%m-%d}" if key["revoked_at"] else ""
        typer.echo(f"{key['service']}  {key['id']}  {key['scopes']}  {key['name']}{ended}")
    if not found:
        typer.echo("No keys.")


@keys_app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The part between `bk_` and the next `_`; see `keys list`.")],
    service: Service = Which.ALL,
) -> None:
    """End a key at once."""
    with _one_line():
        ended = asyncio.run(keys.revoke(_urls(service), key_id, clock=SystemClock()))
    if not ended:
        _fail(f"no living key has the id {key_id}")
    typer.echo(f"{key_id} is revoked ({', '.join(ended)})")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="A CSV file.")],
    audience: Annotated[Audience, typer.Option(help="Whom the file lists.")],
    *,
    roll: Annotated[
        bool, typer.Option("--roll", help="The file is the whole roll of its councils: who is not in it leaves.")
    ] = False,
    dry_run: Annotated[bool, typer.Option(help="Look for faults, show a roll's differences, change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Apply a roll's differences without asking.")] = False,
    url: Annotated[str, typer.Option(help="Where Budkavle answers; BUDKAVLE_PUBLIC_URL when not given.")] = "",
    key: Annotated[str, typer.Option(help="An API key; the administrator's when not given.")] = "",
    as_json: AsJson = False,
) -> None:
    """Import people from a CSV file: all of it, or nothing and a table of the faulty lines.

    The first line names the columns, in English or Swedish. Every file needs email; name and locale (sv, en) may stand
    beside it. Then, by audience:

    newsroom: organisation (needed), municipality.

    politician: organisation (needed: the council or board), municipality, mandate_from, mandate_until.

    collaboration_group: group (needed), municipality.

    agency_official: organisation (needed: the agency), municipality.

    public: municipality.

    Municipalities by name or code, several with a slash between; dates as 2026-10-15. Comma, semicolon or tab; UTF-8
    or Windows-1252. More in docs/import.md.
    """
    settings = load(StandaloneSettings)
    site, its_key = url or settings.origin(), key or _admin_key(settings)
    if roll and audience is not Audience.POLITICIAN:
        _fail("--roll goes with --audience politician")
    with _one_line():
        if roll:
            result = importing.upload_roll(site, its_key, file, shown=None)
        else:
            with _progress() as tell:
                result = importing.upload(site, its_key, file, audience=audience, dry_run=dry_run, tell=tell)
    _print_import(result, as_json=as_json)
    if roll and result.accepted and not dry_run:
        _apply_roll(site, its_key, file, result.etag, is_sure=yes)
    raise typer.Exit(0 if result.accepted else 1)


def _apply_roll(url: str, key: str, file: Path, etag: str, *, is_sure: bool) -> None:
    """Apply what was just shown, and nothing else."""
    if not is_sure:
        typer.confirm("Apply this?", abort=True)
    with _one_line():
        typer.echo(importing.upload_roll(url, key, file, shown=etag).summary)


@dead_app.command("list")
def list_dead(service: Service = Which.ALL, *, as_json: AsJson = False) -> None:
    """The dead letters that wait for somebody, newest first."""
    with _one_line():
        letters = asyncio.run(dead_letters.listing(_urls(service), SystemClock()))
    if as_json:
        typer.echo(json.dumps([asdict(letter) for letter in letters], default=str))
        return
    for letter in letters:
        moment = f"{letter.dead_at:%Y-%m-%d %H:%M:%S}Z"
        typer.echo(f"{letter.id}  {moment}  {letter.queue}  {letter.reason}  {letter.event_type or '-'}")
    if not letters:
        typer.echo(f"No dead letters in {_looked_in(service)}.")


@dead_app.command("show")
def show_dead(
    letter: UUID,
    *,
    personal: Annotated[bool, typer.Option(help="Show addresses and personal links too.")] = False,
) -> None:
    """One dead letter with its body, as JSON."""
    with _one_line():
        shown = asyncio.run(dead_letters.show(_urls(Which.ALL), letter, SystemClock(), personal=personal))
    typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))


@dead_app.command("replay")
def replay_dead(
    letter: UUID,
    body: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Send this instead.")] = None,
) -> None:
    """Send a dead letter back to its queue; once."""
    mended = body.read_bytes() if body else None
    with _one_line():
        queue = asyncio.run(dead_letters.replay(_urls(Which.ALL), letter, SystemClock(), body=mended))
    typer.echo(f"{letter} goes back to {queue}")


@app.command("republish")
def republish_(
    since: Annotated[str, typer.Option(help="An instant, such as 2026-11-23T08:30; Swedish time without an offset.")],
    service: Service = Which.ALL,
) -> None:
    """Publish again what was published since an instant, when the broker has lost its data.

    Nobody gets anything twice: every event keeps its id, and what was handled is known. The last day's events are kept.
    """
    clock = SystemClock()
    with _one_line():
        counts = asyncio.run(republishing.republish(_urls(service), republishing.instant(since, clock), clock))
    for name, count in counts.items():
        typer.echo(f"{name}: {count} {'event goes' if count == 1 else 'events go'} out again")


@app.command("restored")
def restored_(
    *,
    send: Annotated[bool, typer.Option(help="Send it all: nobody has got it yet.")] = False,
) -> None:
    """Let mails go out again after the distributor's database was put back from a backup.

    Whoever was erased since is erased again first. What was planned before and had not gone in the backup is held: it
    may have gone since. See docs/runbook.md.
    """
    urls, path = _urls(Which.ALL), _erased_file()
    with _one_line():
        people = asyncio.run(restoring.erase_again(urls, path, SystemClock()))
        typer.echo(f"Back from the backup though erased since, and erased again: {people}.")
        if not path.exists():
            typer.echo(f"There is no list of the erased at {path}: look for your own notes of who was.")
        gap, held = asyncio.run(restoring.go_on(urls["distributor"], SystemClock(), send=send))
    moment = "%Y-%m-%d %H:%M:%SZ"
    typer.echo(f"The ledger does not know what happened from {gap.since:{moment}} to {gap.until:{moment}}.")
    typer.echo("Everything goes out." if send else f"{held} mails are held as uncertain; what is new goes out.")


async def _announce(whole: "Standalone") -> None:
    """To whoever reads it: a full disk behind stdout, or nobody there, ends nothing."""
    origin, out = whole.settings.origin(), logging.UnblockedStream(sys.stdout)
    out.write(f"Budkavle answers at {origin}\n")
    out.write(f"Everything is kept in {whole.directory.path}\n")
    if whole.admin_key_is_new:
        out.write(f"The administrator's API key, kept in {whole.directory.admin_key_file}: {whole.admin_key}\n")
    if whole.catches_mail:
        out.write(f"Mail is caught, not sent: {origin}/mailbox (BUDKAVLE_SMTP_URL names a mail server)\n")


def _urls(service: Which) -> dict[str, str]:
    """The databases of what is asked for; a directory without them is a wrong one, and nothing is made in it."""
    settings = load(StandaloneSettings)
    names = _named(service)
    directory = DataDirectory(settings.data_dir)
    if any(not settings.named_database(name) and not directory.database_file(name).exists() for name in names):
        demo = directory.path / DEMO
        beside = f" ({demo} is the demo's)" if demo.exists() else ""
        _fail(
            f"there is no Budkavle in {directory.path}; name its directory in BUDKAVLE_DATA_DIR{beside}, "
            "or begin one with `budkavle up` or `budkavle migrate`"
        )
    return {name: database_url(name, settings) for name in names}


def _erased_file() -> Path:
    settings = load(StandaloneSettings)
    return settings.erased_file or DataDirectory(settings.data_dir).erased_file


def _looked_in(service: Which) -> str:
    """Where the databases of what is asked for are; no URL, which may hold a password."""
    settings = load(StandaloneSettings)
    named = all(settings.named_database(name) for name in _named(service))
    return "the databases that the environment names" if named else str(DataDirectory(settings.data_dir).path)


def _named(service: Which) -> list[str]:
    return [name for name in SERVICES if service in (Which.ALL, name)]


def _admin_key(settings: StandaloneSettings) -> str:
    if settings.admin_key is not None:
        return settings.admin_key.get_secret_value()
    key = DataDirectory(settings.data_dir).kept_admin_key()
    directory = settings.data_dir.absolute()
    return key or _fail(
        f"no API key in {directory}: give one with --key, or name the data directory in BUDKAVLE_DATA_DIR"
    )


@contextmanager
def _progress() -> Iterator[importing.Told]:
    """Shows how far a large import is, beside what the command answers."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=err, disable=not err.is_terminal
    ) as shown:
        task = shown.add_task("", total=None, visible=False)

        def tell(answer: dict[str, Any]) -> None:
            writes = answer["rows_done"] > 0
            shown.update(
                task,
                description="importing" if writes else "checking",
                completed=answer["rows_done"] if writes else answer["rows"],
                total=answer["rows"] if writes else None,
                visible=True,
            )

        yield tell


def _print_import(result: importing.Result, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result.answer, ensure_ascii=False))
        return
    if result.faults:
        table = Table("line", "column", "fault", title=result.summary, title_justify="left")
        for fault in result.faults:
            table.add_row(str(fault.line), fault.column, fault.message)
        out.print(table)
        return
    if result.answer.get("rolls"):
        table = Table("council", "", "who", "what")
        for row in importing.differences(result.answer):
            table.add_row(*(escape(cell) for cell in row))
        out.print(table)
    typer.echo(result.summary)


@contextmanager
def _one_line() -> Iterator[None]:
    """Every failure that can be foreseen ends in one line and status 1; Ctrl-C ends in silence."""
    try:
        yield
    except DBAPIError as error:
        _fail(f"a database cannot be used ({str(error.orig).strip().splitlines()[0]}); `budkavle migrate` sets one up")
    except UnknownDeadLetter as error:
        _fail(f"there is no dead letter {error}")
    except AlreadyReplayed as error:
        _fail(f"{error} has been replayed before")
    except FORESEEN as error:
        _fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit from None


FORESEEN = (
    DirectoryInUse,
    PortInUse,
    NotStarted,
    dead_letters.UnfitBody,
    republishing.UnfitInstant,
    restoring.NothingToSay,
    importing.Refused,
    Failed,
    OSError,
)


def _fail(message: str) -> NoReturn:
    typer.echo(f"budkavle: {message}", err=True)
    raise typer.Exit(1)
