"""A mail scanner meets every mail that the system sends: it looks, then it presses everything. Nobody is gone for good.

Every kind of mail is there (`mail_kinds` finds them in the sources), and all that come of what it presses, until no more
come.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import html5lib
import pytest
from httpx2 import AsyncClient
from playwright.async_api import Page
from tests.deployments import Standalone
from tests.desk import SUBSCRIPTIONS, Desk, Json
from tests.eventually import eventually
from tests.inboxes import Inboxes, Mail
from tests.integration.subscriptions.scanner import OWN, press_everything
from tests.journeys import mail_kinds
from tests.journeys.every_mail import DAILY, ENDPOINT, GONE, MISSPELT, MOVED, MOVER, STRANGER, YES, EveryMail
from tests.servers.receiver import HttpReceiver

PATHS = ("/prenum", "/avreg", "/intranat", "/utskick")
LOOKS = (("HEAD", {}), ("GET", {}), ("GET", {"purpose": "prefetch", "sec-purpose": "prefetch;prerender"}))
MOST_MAILS = 250
STANDS = "SELECT id, version, unsubscribed_at, suppressed_at FROM subscribers ORDER BY id"
HISTORY = "SELECT id, subscriber_id, act, source, undoes_id, before, after FROM history ORDER BY id"
RECEIPTS = ("Välkommen som prenumerant", "Din prenumeration har ändrats", "Din prenumeration är ändrad tillbaka")
LESS = ("Du får inga mejl", "Du får inte", "Vi har slutat")
BY_LINKS = ("sign_up", "page", "unsubscribe_link", "undo")


@pytest.fixture
def inboxes(tmp_path: Path) -> Iterator[Inboxes]:
    """Whoever is gone has no mailbox when the second item comes; a contact's address never was one."""
    inboxes = Inboxes(tmp_path, "--refuses", GONE, "2", "--refuses", MISSPELT, "1")
    inboxes.start()
    yield inboxes
    inboxes.stop()


@pytest.fixture
def deployment(inboxes: Inboxes) -> Iterator[Standalone]:
    made = Standalone(settings={"CHANGES_PER_PERSON": "4", "RETRY_SCALE": "0.0002"})
    made.mail_link.target = inboxes.port
    try:
        made.open()
        yield made
    finally:
        made.close()


@dataclass
class Scanner:
    """Has read so many mails; a link is looked at once, and pressed once."""

    deployment: Standalone
    reader: AsyncClient
    looked_at: set[str] = field(default_factory=set)
    pressed: set[str] = field(default_factory=set)

    def links(self, mail: Mail) -> set[str]:
        """Every link of ours, in the text, the HTML and the header."""
        texts = [text for _, text in mail.parts] + [mail.header("List-Unsubscribe")]
        found = re.findall(r"https?://[^\s\"'<>]+", "\n".join(texts).replace("&amp;", "&"))
        return {link for link in found if link.startswith(self.deployment.url)}

    async def look(self, mail: Mail) -> None:
        for link in self.links(mail) - self.looked_at:
            for method, headers in LOOKS:
                answer = await self.reader.request(method, link, headers=headers, follow_redirects=True)
                assert answer.status_code < 500, f"{method} {link}: {answer.status_code}"
            self.looked_at.add(link)

    async def press(self, mail: Mail) -> None:
        for link in sorted(self.links(mail)):
            await press_everything(self.reader, link, self.pressed, origin=self.deployment.url, paths=PATHS)
        header = mail.header("List-Unsubscribe").strip("<>")
        if mail.header("List-Unsubscribe-Post") and header not in self.pressed | {""}:
            self.pressed.add(header)
            await self.reader.post(header, data={"List-Unsubscribe": "One-Click"})


@dataclass(frozen=True)
class Change:
    """A row of the history."""

    id: str
    subscriber: str
    act: str
    source: str
    undoes: str | None
    before: dict[str, Any]
    after: dict[str, Any]


def history(deployment: Standalone) -> list[Change]:
    rows = deployment.ask("subscriptions", HISTORY)
    return [Change(*row[:5], json.loads(row[5]), json.loads(row[6])) for row in rows]


async def test_a_scanner_presses_everything_in_every_mail(
    deployment: Standalone, inboxes: Inboxes, http_receiver: HttpReceiver, browser_page: Page
) -> None:
    async with deployment.client() as api, AsyncClient(timeout=30) as reader:
        desk, scanner = Desk(api), Scanner(deployment, reader)
        world = EveryMail(deployment, desk, inboxes, reader, http_receiver)
        await world.send()
        stood, told = deployment.ask("subscriptions", STANDS), history(deployment)
        for mail in inboxes.mails:
            await scanner.look(mail)
        assert deployment.ask("subscriptions", STANDS) == stood, "who only looks changes nothing"
        assert history(deployment) == told

        await press_all_that_comes(scanner, inboxes)
        await press_in_browser(browser_page, next(mail for mail in inboxes.mails if mail.to == DAILY))
        await press_all_that_comes(scanner, inboxes)
        no_kind_is_missing(deployment, inboxes)
        people = {str(person["address"]): person for person in await desk.all_pages(f"{SUBSCRIPTIONS}/subscribers")}
        assert people.keys() >= (world.ids.keys() - {MOVER}) | {STRANGER, YES}
        assert people.keys() & {MOVER, MOVED}
        for address, person in people.items():
            await has_a_way_back(desk, reader, inboxes, address, str(person["id"]))
        await was_never_wanted(desk, reader, inboxes, str(people[STRANGER]["id"]))
        everything_is_told(deployment, inboxes, told, {UUID(str(row["id"])).hex: to for to, row in people.items()})
        (endpoint,) = (await desk.call("GET", "/api/distributor/v1/endpoints"))["data"]
        assert endpoint["organisation"] == "Kalmar kommun"


def no_kind_is_missing(deployment: Standalone, inboxes: Inboxes) -> None:
    """A kind of mail that is new has to be sent in `every_mail`, so that the scanner meets it."""
    assert mail_kinds.subjects(ENDPOINT) - {mail.header("Subject") for mail in inboxes.mails} == set()
    sent = deployment.ask("distributor", "SELECT DISTINCT form FROM deliveries WHERE channel = 'mail'")
    assert {form for (form,) in sent} == mail_kinds.FORMS


async def press_all_that_comes(scanner: Scanner, inboxes: Inboxes) -> None:
    """Until none comes any more, which must be soon."""
    read = 0

    async def nothing_comes() -> bool:
        nonlocal read
        while read < len(mails := inboxes.mails):
            assert len(mails) < MOST_MAILS, "it never ends"
            await scanner.press(mails[read])
            read += 1
        assert not scanner.deployment.unfinished()
        return inboxes.count == read

    await eventually(nothing_comes, within=60, every=0.1)


async def press_in_browser(page: Page, mail: Mail) -> None:
    """Each button behind the mail's links, in a browser, as a scanner that detonates links does."""
    for link in sorted(set(re.findall(r"https?://\S+/(?:prenumeration|avregistrera)/\S+", mail.part("plain")))):
        number = 0
        while await page.goto(link) and number < await page.locator("main button").count():
            await page.locator("main button").nth(number).click()
            assert await page.locator("h1").count() == 1
            number += 1


async def has_a_way_back(desk: Desk, reader: AsyncClient, inboxes: Inboxes, address: str, subscriber: str) -> None:
    """They are still here, and undoing brings them back at once, however much the scanner has changed this hour."""
    path = f"{SUBSCRIPTIONS}/subscribers/{subscriber}"
    for link in await ways_back(reader, inboxes, address):
        if await gives_back(reader, link):
            await undo(reader, link)
    assert gets_all(await desk.call("GET", path)), f"{address} was ended, and no mail brings them back"


async def was_never_wanted(desk: Desk, reader: AsyncClient, inboxes: Inboxes, subscriber: str) -> None:
    """Whom the scanner signed up ends it with one of the mails that told of it."""
    path = f"{SUBSCRIPTIONS}/subscribers/{subscriber}"
    changes = (await desk.call("GET", f"{path}/history"))["data"]
    assert (changes[-1]["act"], changes[-1]["source"]) == ("joined", "sign_up"), "the scanner's doing is shown"
    for link in await ways_back(reader, inboxes, STRANGER):
        if gets_all(await desk.call("GET", path)):
            await undo(reader, link)
    assert not gets_all(await desk.call("GET", path))


async def gives_back(reader: AsyncClient, link: str) -> bool:
    """Whether the page behind the link says that mail will come again."""
    answer = await reader.get(link)
    lists = html5lib.parse(answer.text, namespaceHTMLElements=False).findall(".//main/ul")
    words = ["".join(shown.itertext()) for shown in lists]
    return len(words) == 2 and not any(no in words[1] for no in LESS)


async def undo(reader: AsyncClient, link: str) -> None:
    """As a person: the word is written where the page asks for it."""
    answer = await reader.post(link, data={"action": "undo"}, headers=OWN)
    if answer.status_code == 429:
        answer = await reader.post(link, data={"action": "undo", "ord": "ångra"}, headers=OWN)
    assert answer.status_code in (200, 404), "only links that a change of address ended lead nowhere"


def everything_is_told(
    deployment: Standalone, inboxes: Inboxes, before: list[Change], addresses: dict[str, str]
) -> None:
    """The history only grew. Each change by a link is in it and was mailed, and so is its undoing, as what it undid."""
    now = history(deployment)
    by_id = {change.id: change for change in now}
    assert now[: len(before)] == before
    undone = [change for change in now if change.act == "undone"]
    assert len({change.undoes for change in undone}) == len(undone) > 0
    for change in undone:
        assert change.undoes is not None
        assert change.subscriber == by_id[change.undoes].subscriber
        before_it = restored(by_id[change.undoes].before)
        assert [value for name, value in change.after.items() if value != before_it[name]] == []
    for subscriber, address in addresses.items():
        by_link = [row for row in now if row.subscriber == subscriber and row.source in BY_LINKS and row.act != "moved"]
        told = [mail for mail in inboxes.mails if mail.to == address and mail.header("Subject") in RECEIPTS]
        assert len(told) == len([row for row in by_link if row.after]), address


def restored(before: dict[str, Any]) -> dict[str, Any]:
    """As undoing puts it: who was not there yet has left, and a mail server's stop becomes the reader's own."""
    gone = {name: "left" for name, value in before.items() if name.startswith("audience:") and value is None}
    return {"unsubscribed": before.get("suppressed"), **before, **gone}


def gets_all(subscriber: Json) -> bool:
    return subscriber["state"] == "active" and not subscriber["left_audiences"]


async def ways_back(reader: AsyncClient, inboxes: Inboxes, address: str) -> list[str]:
    """The links to undo with, the newest first: those in the person's mails, and those on the page that they lead to."""
    found = []
    for mail in reversed([mail for mail in inboxes.mails if mail.to == address]):
        text = mail.part("plain")
        found += re.findall(r"https?://\S+/prenumeration/angra/[\w.~-]+", text)
        for page in re.findall(r"(https?://[^/]+)(/prenumeration/[\w.~-]+)(?!\S)", text):
            shown = await reader.get("".join(page), follow_redirects=True)
            found += [page[0] + path for path in re.findall(r'href="(/prenumeration/angra/[^"]+)"', shown.text)]
    return list(dict.fromkeys(found))
