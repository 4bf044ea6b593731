"""Every change is confirmed by mail and can be undone: by people, twice, late, and after a scanner pressed everything."""

import re
from datetime import timedelta
from typing import Any
from urllib.parse import urljoin
from uuid import UUID

import html5lib
import pytest
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from tests.integration.subscriptions.conftest import Register, emitted
from tests.integration.subscriptions.scanner import press_everything

from shared.clock import FixedClock
from shared.contracts.news import Audience
from shared.database import Database
from shared.service import Service
from subscriptions.limits import Counted, Limit
from subscriptions.settings import SubscriptionsSettings

OWN = {"sec-fetch-site": "same-origin", "origin": "null"}
ONE_CLICK = {"List-Unsubscribe": "One-Click"}
SAVED = {"action": "save", "audiences": ["politician"], "frequency": "immediate", "locale": "sv"}
ORIGIN = "https://nyheter.example"


@pytest.fixture
async def politician(register: Register) -> str:
    council = await register.organisation("council", "Kommunfullmäktige")
    role = {"audience": "politician", "organisation_id": council, "municipalities": ["0880"]}
    return await register.person("anna.andersson@kalmar.example", role, name="Anna Andersson", topics=["results"])


@pytest.fixture
def page(service: Service, politician: str) -> str:
    url: str = service.app.state.links.preferences(UUID(politician), 1)
    return url


@pytest.fixture
def out(service: Service, politician: str) -> str:
    url: str = service.app.state.links.unsubscribe(UUID(politician), 1, Audience.POLITICIAN)
    return url


async def stands(office: AsyncClient, subscriber_id: str) -> dict[str, Any]:
    shown = dict((await office.get(f"/api/subscriptions/v1/subscribers/{subscriber_id}")).json())
    return {
        name: shown[name] for name in ("state", "topics", "municipalities", "left_audiences", "locale", "paused_until")
    }


async def receipts(database: Database) -> list[dict[str, Any]]:
    return [dict(mail.data["request"]) for mail in await emitted(database, "mail.requested")]


def tree_of(html: str) -> Any:
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(html)
    assert len(tree.findall(".//h1")) == 1
    assert "andersson" not in html.lower()
    return tree


async def test_several_changes_in_a_minute_are_each_confirmed_and_each_undone(
    page: str, politician: str, reader: AsyncClient, office: AsyncClient, database: Database
) -> None:
    before = await stands(office, politician)
    everything = {**SAVED, "topics": ["results"]}
    for changed in (
        {**everything, "topics": ["young_adults"]},
        {**everything, "topics": ["young_adults"], "municipalities": ["0880"]},
        {**everything, "topics": ["young_adults"], "municipalities": ["0880"], "locale": "en"},
        {**everything, "topics": ["young_adults"], "municipalities": ["0880"], "locale": "en"},  # nothing new
    ):
        assert (await reader.post(page, data=changed, headers=OWN)).status_code == 303
    mails = await receipts(database)
    assert [mail["action_label"] for mail in mails] == ["Ångra ändringen", "Ångra ändringen", "Undo the change"]
    assert "Ämnen: Unga vuxna" in mails[0]["paragraphs"][0]
    assert "Kommuner: Kalmar" in mails[1]["paragraphs"][0]
    for mail in (mails[1], mails[0], mails[2]):
        link = mail["action_url"]
        looked = tree_of((await reader.get(link)).text)
        assert looked.find(".//form") is not None
        for _ in range(2):  # a double click
            undone = await reader.post(link, headers=OWN)
            assert undone.status_code == 200
            assert tree_of(undone.text).find(".//form") is None
    assert await stands(office, politician) == before
    assert len(await receipts(database)) == 6


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_undoing_can_be_undone(
    page: str, politician: str, reader: AsyncClient, office: AsyncClient, database: Database
) -> None:
    form = {**SAVED, "topics": ["results"], "frequency": "weekly", "frequency-results": "daily"}
    await reader.post(page, data=form, headers=OWN)
    assert (
        "En gång i veckan, samlat i ett mejl. Resultat och statistik: En gång om dagen"
        in ((await receipts(database))[0]["paragraphs"][0])
    )
    for turn in range(3):
        link = (await receipts(database))[turn]["action_url"]
        await reader.post(link, headers=OWN)
        chosen = {
            row.get("name"): row.find(".//option[@selected]").get("value")
            for row in tree_of((await reader.get(page + "?lang=sv")).text).iter("select")
        }
        assert chosen["frequency-results"] == ("" if turn % 2 == 0 else "daily")
    assert [mail["subject"] for mail in await receipts(database)][1:] == ["Din prenumeration är ändrad tillbaka"] * 3


async def test_one_click_is_confirmed_once_and_can_be_undone(
    out: str, politician: str, reader: AsyncClient, office: AsyncClient, database: Database
) -> None:
    before = await stands(office, politician)
    for _ in range(2):
        assert (await reader.post(out, data=ONE_CLICK)).status_code == 200
    (mail,) = await receipts(database)
    assert "Du får inte: Nyheter till dig som är ledamot i kommunfullmäktige i Kalmar" in mail["paragraphs"][0]
    await reader.post(mail["action_url"], headers=OWN)
    assert await stands(office, politician) == before


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_leaving_all_is_undone_from_the_page_and_from_the_mail(
    page: str, politician: str, reader: AsyncClient, office: AsyncClient, database: Database
) -> None:
    before = await stands(office, politician)
    await reader.post(page, data={"action": "leave_all"}, headers=OWN)
    assert (await stands(office, politician))["state"] == "unsubscribed"
    shown = tree_of((await reader.get(page)).text)
    (undo,) = [a.get("href") for a in shown.findall(".//main//a") if "/angra/" in a.get("href")]
    assert urljoin(ORIGIN, undo) == (await receipts(database))[0]["action_url"]
    await reader.post(undo, headers=OWN)
    assert await stands(office, politician) == before


def the_summary_leads_somewhere(html: str) -> None:
    tree = html5lib.parse(html, namespaceHTMLElements=False)
    links = tree.findall(".//*[@class='error-summary']//a")
    assert links
    assert all(tree.find(f".//*[@id='{a.get('href').removeprefix('#')}']") is not None for a in links)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_b20_a_scanner_that_presses_everything_in_every_mail_ends_and_leaves_a_way_back(
    page: str, out: str, politician: str, reader: AsyncClient, office: AsyncClient, database: Database
) -> None:
    before = await stands(office, politician)
    await reader.post(page, data={**SAVED, "topics": ["young_adults"]}, headers=OWN)
    followed: set[str] = set()
    scanned = 0
    await press_everything(reader, out, followed)
    while scanned < len(await emitted(database, "mail.requested")):
        mail = (await emitted(database, "mail.requested"))[scanned]
        scanned += 1
        for url in re.findall(r"https://[^\s\"']+", str(mail.data)):
            await press_everything(reader, url, followed)
    assert scanned <= 45
    assert (await reader.post(out, data=ONE_CLICK)).status_code == 200  # leaving is never refused
    refused = await reader.post(page, data={**SAVED, "topics": ["results"]}, headers=OWN)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) <= 3_600
    assert "fler än 20 gånger" in refused.text
    the_summary_leads_somewhere(refused.text)
    answer = await office.get(f"/api/subscriptions/v1/subscribers/{politician}")
    assert answer.status_code == 200  # nothing is erased
    assert "Senaste ändringar" in (await reader.get(page)).text
    assert before != await stands(office, politician)
    undo = [mail["action_url"] for mail in await receipts(database)]
    asks = await reader.post(undo[-1], data={"action": "undo"}, headers=OWN)
    assert asks.status_code == 429
    assert int(asks.headers["retry-after"]) <= 3_600
    assert "Skriv ordet ångra" in asks.text
    the_summary_leads_somewhere(asks.text)
    assert (await reader.post(undo[-1], data={"action": "undo", "ord": "a@b.example"}, headers=OWN)).status_code == 429
    for link in reversed(undo):  # nobody has to wait until the hour is over
        if await stands(office, politician) != before:
            assert (await reader.post(link, data={"action": "undo", "ord": " Ångra"}, headers=OWN)).status_code == 200
    assert await stands(office, politician) == before


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_who_writes_the_word_is_bounded_by_their_own_network(
    out: str, politician: str, reader: AsyncClient, service: Service
) -> None:
    """A stranger who has the link can end and undo without end; the owner's own way back is not theirs to use up."""

    async def end_and_undo(somebody: AsyncClient, language: str = "") -> int:
        await somebody.post(out, data={"action": "leave"}, headers=OWN)
        word = {"": "ångra", "?lang=en": "Undo"}[language]
        return (await somebody.post(out + language, data={"action": "come_back", "ord": word}, headers=OWN)).status_code

    assert [await end_and_undo(reader) for _ in range(21)] == [200] * 20 + [429]
    refused = await reader.post(out, data={"action": "come_back", "ord": "ångra"}, headers=OWN)
    assert "Fler än 20 ändringar har ångrats från ditt nätverk" in refused.text
    the_summary_leads_somewhere(refused.text)
    elsewhere = ASGITransport(service.app, client=("2001:db8:1:2::3", 4000))
    async with AsyncClient(transport=elsewhere, base_url=ORIGIN) as owner:
        assert await end_and_undo(owner, "?lang=en") == 200


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_pages_own_ways_back_wait_for_nobody_and_a_refusal_unticks_nothing(
    page: str, politician: str, reader: AsyncClient, office: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await stands(office, politician)
    monkeypatch.setattr(SubscriptionsSettings, "person_limit", Limit(Counted.PERSON, 0))
    refused = await reader.post(page, data={"action": "fresh_link"}, headers=OWN)
    assert refused.status_code == 429
    ticked = [box.get("value") for box in tree_of(refused.text).iter("input") if box.get("checked") is not None]
    assert {"politician", "results"} <= set(ticked), "what nobody changed stands as it was"
    await reader.post(page, data={"action": "leave_all"}, headers=OWN)
    asks = await reader.post(page, data={"action": "begin_again"}, headers=OWN)
    assert asks.status_code == 429
    the_summary_leads_somewhere(asks.text)
    assert (await reader.post(page, data={"action": "begin_again", "ord": "ångra"}, headers=OWN)).status_code == 303
    assert await stands(office, politician) == before


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_hour_later_the_owner_sets_right_what_a_scanner_did(
    page: str,
    out: str,
    politician: str,
    reader: AsyncClient,
    office: AsyncClient,
    database: Database,
    clock: FixedClock,
) -> None:
    before = await stands(office, politician)
    await press_everything(reader, out, set())
    await press_everything(reader, page, set())
    clock.advance(timedelta(hours=1))
    await reader.post(page, data={"action": "begin_again"}, headers=OWN)
    await reader.post(page, data={**SAVED, "topics": ["results"]}, headers=OWN)
    assert await stands(office, politician) == before


async def test_the_history_is_append_only_and_outlives_the_person_without_naming_them(
    page: str, politician: str, reader: AsyncClient, office: AsyncClient, database: Database
) -> None:
    await reader.post(page, data={**SAVED, "topics": ["results"], "paused_until": "2026-06-01"}, headers=OWN)
    emptying = [] if database.is_sqlite else ["TRUNCATE history"]
    for sql in ("UPDATE history SET source = 'office'", "DELETE FROM history", *emptying):
        with pytest.raises(DBAPIError, match="append-only"):
            async with database.transaction() as session:
                await session.execute(text(sql))
    assert (await office.delete(f"/api/subscriptions/v1/subscribers/{politician}")).status_code == 204
    async with database.transaction() as session:
        rows = (await session.execute(text("SELECT * FROM history ORDER BY id"))).all()
        assert [(row.act, row.source) for row in rows] == [
            ("joined", "office"),
            ("changed", "page"),
            ("erased", "office"),
        ]
        assert "anna" not in str(rows).lower()
        with pytest.raises(DBAPIError, match="append-only"):
            await session.execute(text("UPDATE history SET source = 'office'"))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_b19_links_that_are_not_ours_open_one_and_the_same_page(
    page: str, politician: str, reader: AsyncClient, office: AsyncClient, database: Database, service: Service
) -> None:
    await reader.post(page, data={**SAVED, "topics": ["young_adults"]}, headers=OWN)
    link = (await receipts(database))[0]["action_url"]
    path, _, token = link.rpartition("/")
    kid, payload, mac = token.split(".")
    forged = [
        token[:-1],
        f"{kid}.{payload}.{mac[:-1]}{'A' if mac[-1] != 'A' else 'B'}",
        f"{kid}.{payload}=.{mac}",
        page.rpartition("/")[2],
        service.app.state.links.undo(UUID(politician), 1).rpartition("/")[
            2
        ],  # signed by us, but there is no such change
        "a" * 10_000,
        "%00",
    ]
    answers = [await reader.request(method, f"{path}/{one}") for one in forged for method in ("GET", "POST")]
    assert {answer.status_code for answer in answers} == {404}
    assert all("Länken gäller inte längre" in answer.text for answer in answers)
    confirm = [await reader.post(f"{ORIGIN}/prenumerera/bekrafta/{one}", headers=OWN) for one in [*forged, token]]
    assert {answer.status_code for answer in confirm} == {404}
    assert (await office.delete(f"/api/subscriptions/v1/subscribers/{politician}")).status_code == 204
    assert (await reader.post(link, headers=OWN)).status_code == 404
