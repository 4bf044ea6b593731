"""The data-protection officer's room: the register, its grounds, what was weeded, and one person's extract."""

import csv
import io
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from httpx2 import AsyncClient
from tests.integration.subscriptions.conftest import Register
from tests.integration.subscriptions.office import Clerk

from shared.clock import FixedClock
from shared.database import Database
from shared.service import Service
from subscriptions import weeding_log
from subscriptions.retention import RetentionWorker
from subscriptions.rolls.weeding import RollWeeder
from subscriptions.weeding import Weeder

OWN = {"sec-fetch-site": "same-origin", "origin": "null"}
PAGE = "/kansli/dataskydd"


@pytest.fixture
async def clerk(service: Service) -> AsyncIterator[Clerk]:
    clerk = Clerk(service)
    assert (await clerk.sign_in()).status_code == 303
    yield clerk
    await clerk.browser.aclose()


async def test_the_register_is_downloaded_from_the_page(clerk: Clerk, register: Register, reader: AsyncClient) -> None:
    await register.person("=anna@kalmar.example", {"audience": "public"}, name="Anna")
    page = await clerk.look(PAGE)
    for told in (
        "Samtycke Allmänheten 365 dagar", "Pressregister", "90 dagar efter mandatets sista dag",
        "Jag vill få nyheter med mejl.", "Inget har gallrats än.",
    ):  # fmt: skip
        assert told in page.text
    answer = await clerk.browser.get(page.link("Hämta registret (CSV)"))
    assert answer.headers["content-disposition"] == 'attachment; filename="registerutdrag.csv"'
    [line] = csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff")))
    assert (line["address"], line["basis"], line["basis_source"]) == ("'=anna@kalmar.example", "consent", "office")
    stranger = await reader.get(f"{PAGE}/registerutdrag.csv", follow_redirects=False)
    assert (stranger.status_code, stranger.headers["location"].partition("?")[0]) == (303, "/kansli/logga-in")


async def test_a_persons_extract_is_given_to_who_asks_for_it_by_letter(clerk: Clerk, register: Register) -> None:
    anna = await register.person("anna@kalmar.example", {"audience": "public"}, name="Anna")
    page = await clerk.look(f"/kansli/personer/{anna}")
    document = (await clerk.browser.get(page.link("Hämta allt som finns om personen (JSON)"))).json()
    assert (document["address"], document["roles"][0]["legal_basis"]) == ("anna@kalmar.example", "consent")
    mails = await clerk.browser.get(page.link("Mejl som har skickats till personen"))
    assert mails.status_code == 303
    assert f"{mails.headers['location']}/export.json" == document["mails"]
    gone = f"/kansli/personer/{anna.replace(anna[-4:], 'ffff')}/utdrag.json"
    assert (await clerk.browser.get(gone)).status_code == 404


async def test_what_is_weeded_is_counted_day_by_day_and_stays(
    service: Service, clerk: Clerk, register: Register, reader: AsyncClient, clock: FixedClock, database: Database
) -> None:
    council = await register.organisation("council", "Kommunfullmäktige")
    seat = {"audience": "politician", "organisation_id": council, "mandate_until": "2026-05-31"}
    await register.person("bo@kalmar.example", seat)
    for name in ("anna", "cia"):
        person = await register.person(f"{name}@kalmar.example", {"audience": "public"})
        await register.change(person, unsubscribed=True)
    await reader.post("/prenumerera", data={"email": "ny@kalmar.example"}, headers=OWN)
    workers = [one for one in service.workers if isinstance(one, RetentionWorker | RollWeeder | Weeder)]

    async def weed() -> dict[str, tuple[int, int]]:
        for worker in workers:
            await worker.weed()
        async with database.reading() as session:
            rows = await weeding_log.newest(session, limit=20)
        return {row.what: (row.ended, row.erased) for row in rows}

    assert await weed() == {}
    clock.advance(timedelta(days=400))
    expected = {"sign_ups": (1, 0), "consent": (2, 2), "mandates": (1, 1)}
    assert await weed() == expected
    assert await weed() == expected, "what is gone is not counted again"
    clock.advance(timedelta(days=731))
    assert await weed() == {**expected, "history": (3, 0)}
    assert (await clerk.sign_in()).status_code == 303  # years have passed
    page = await clerk.look(PAGE)
    for told in ("16 juni 2027 Prenumerationer med samtycke 2 2", "Historik för raderade personer 3 0"):
        assert told in page.text
    assert "kalmar.example" not in page.text
