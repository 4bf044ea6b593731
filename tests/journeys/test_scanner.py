"""A mail scanner meets every mail that the system sends: it looks, then it presses everything. Nobody is gone for good.

Press releases, news, corrections, withdrawals, digests, confirmations, the group's and the intranet's mails, and all that
come of what it presses, until no more come.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import pytest
from httpx2 import AsyncClient
from playwright.async_api import Page
from tests.deployments import Standalone
from tests.desk import SUBSCRIPTIONS, Desk, Json
from tests.eventually import eventually
from tests.inboxes import Inboxes, Mail
from tests.integration.subscriptions.scanner import OWN, press_everything
from tests.servers.receiver import HttpReceiver

PRESS, PUBLIC, DAILY, CONTACT, STRANGER, INTRANET = (
    f"{name}@folk.example" for name in ("red", "genast", "daglig", "kontakt", "ny", "webb")
)
SUBSCRIBERS = (PRESS, PUBLIC, DAILY, CONTACT)
PATHS = ("/prenum", "/avreg", "/intranat")
LOOKS = (("HEAD", {}), ("GET", {}), ("GET", {"purpose": "prefetch", "sec-purpose": "prefetch;prerender"}))
MOST_MAILS = 90
STANDS = "SELECT id, version, unsubscribed_at, suppressed_at FROM subscribers ORDER BY id"


@pytest.fixture
def deployment(inboxes: Inboxes) -> Iterator[Standalone]:
    made = Standalone(settings={"CHANGES_PER_PERSON": "4"})
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


async def test_a_scanner_presses_everything_in_every_mail(
    deployment: Standalone, inboxes: Inboxes, http_receiver: HttpReceiver, browser_page: Page
) -> None:
    http_receiver.by_default(410)
    async with deployment.client() as api, AsyncClient(timeout=30) as reader:
        desk, scanner = Desk(api), Scanner(deployment, reader)
        ids = await send_every_kind(desk, inboxes, reader, http_receiver.url("/hook"), deployment)
        stood = deployment.ask("subscriptions", STANDS)
        for mail in inboxes.mails:
            await scanner.look(mail)
        assert deployment.ask("subscriptions", STANDS) == stood, "who only looks changes nothing"

        await press_all_that_comes(scanner, inboxes)
        await press_in_browser(browser_page, next(mail for mail in inboxes.mails if mail.to == DAILY))
        await press_all_that_comes(scanner, inboxes)
        let_an_hour_pass(deployment)
        for address, subscriber in ids.items():
            await has_a_way_back(desk, reader, inboxes, address, subscriber)
        (endpoint,) = (await desk.call("GET", "/api/distributor/v1/endpoints"))["data"]
        assert endpoint["organisation"] == "Kalmar kommun"


async def send_every_kind(
    desk: Desk, inboxes: Inboxes, reader: AsyncClient, hook: str, deployment: Standalone
) -> dict[str, str]:
    """One mail or more of every kind; gives the subscribers' ids."""
    paper, group = await desk.add_place("newsroom", "Barometern"), await desk.add_place("group", "Samverkan", ["0880"])
    roles = {
        PRESS: {"audience": "newsroom", "organisation_id": paper},
        CONTACT: {"audience": "collaboration_group", "group_id": group},
    }
    ids = {}
    for address in SUBSCRIBERS:
        often = {"everything": "daily"} if address == DAILY else {}
        person = {"address": address, "roles": [roles.get(address, {"audience": "public"})], "frequencies": often}
        ids[address] = str((await desk.add_subscriber(person))["id"])
    await desk.call("PUT", f"{SUBSCRIPTIONS}/groups/{group}/contact", json={"subscriber_id": ids[CONTACT]})
    await desk.add_endpoint({"name": "Insidan", "contact_email": INTRANET, "url": hook})
    signed_up = {"email": STRANGER, "frequency": "weekly"}
    assert (await reader.post(f"{deployment.url}/prenumerera", data=signed_up, headers=OWN)).status_code == 200
    told = {"kind": "news", "lead": "Ingress.", "body": "Text.", "audiences": ["newsroom", "public", "agency_official"]}
    kept, gone = [await desk.publish_new({**told, "title": title}) for title in ("Öppet hus", "Nya siffror")]
    await desk.reached(kept)
    await desk.reached(gone)
    await desk.correct(kept, {"lead": "Rätt tid är 14."}, "Tiden var fel.")
    await desk.withdraw(gone, "Siffrorna var fel.")
    await desk.call("POST", f"{SUBSCRIPTIONS}/digest-runs", json={"weekly": False})

    def everything_is_there() -> bool:
        forms = {(mail.to, mail.item, mail.revision) for mail in inboxes.mails}
        expected = {(to, item, revision) for to in (PRESS, PUBLIC) for item in (kept, gone) for revision in (1, 2)}
        assert expected <= forms
        assert {STRANGER, INTRANET, CONTACT, DAILY} <= {mail.to for mail in inboxes.mails}
        return True

    await eventually(everything_is_there, within=30, every=0.1)
    return ids


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

    await eventually(nothing_comes, within=40, every=0.1)


async def press_in_browser(page: Page, mail: Mail) -> None:
    """Each button behind the mail's links, in a browser, as a scanner that detonates links does."""
    for link in sorted(set(re.findall(r"https?://\S+/(?:prenumeration|avregistrera)/\S+", mail.part("plain")))):
        number = 0
        while await page.goto(link) and number < await page.locator("main button").count():
            await page.locator("main button").nth(number).click()
            assert await page.locator("h1").count() == 1
            number += 1


async def has_a_way_back(desk: Desk, reader: AsyncClient, inboxes: Inboxes, address: str, subscriber: str) -> None:
    """They are still here. What changed is in their history and was mailed to them, and undoing brings them back."""
    path = f"{SUBSCRIPTIONS}/subscribers/{subscriber}"
    history = (await desk.call("GET", f"{path}/history"))["data"]
    undo = [link for mail in inboxes.mails if mail.to == address for link in links_to_undo(mail)]
    changes = [change for change in history if change["act"] != "joined"]
    assert not changes or undo, f"{address} was changed, and no mail told of it"
    for link in reversed(undo):
        if gets_all(await desk.call("GET", path)):
            return
        await reader.post(link, data={"action": "undo"}, headers=OWN)
    assert gets_all(await desk.call("GET", path)), f"{address} was ended, and no mail brings them back"


def gets_all(subscriber: Json) -> bool:
    return subscriber["state"] == "active" and not subscriber["left_audiences"]


def let_an_hour_pass(deployment: Standalone) -> None:
    """What was changed too often may be changed again."""
    with closing(sqlite3.connect(deployment.database("subscriptions"), timeout=10)) as connection, connection:
        connection.execute("DELETE FROM tallies")


def links_to_undo(mail: Mail) -> list[str]:
    return re.findall(r"https?://\S+/prenumeration/angra/[\w.~-]+", mail.part("plain"))
