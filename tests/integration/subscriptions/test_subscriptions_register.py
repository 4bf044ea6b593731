"""Legal bases, the register extract, and what ends when its time is over."""

import csv
import io
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest
from httpx2 import AsyncClient
from sqlalchemy import text
from tests.integration.subscriptions.conftest import Register, emitted

from shared.clock import FixedClock
from shared.contracts.news import Audience
from shared.database import Database
from shared.service import Service
from subscriptions.consent import BASIS_OF, NEWEST, TEXTS
from subscriptions.retention import RetentionWorker

API = "/api/subscriptions/v1"
OWN = {"sec-fetch-site": "same-origin", "origin": "null"}
ONLY_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def retention(service: Service) -> RetentionWorker:
    return next(worker for worker in service.workers if isinstance(worker, RetentionWorker))


async def signed_up(reader: AsyncClient, database: Database, address: str) -> None:
    await reader.post("/prenumerera", data={"email": address, "locale": "en"}, headers=OWN)
    mail = (await emitted(database, "mail.requested"))[-1]
    await reader.post(str(mail.data["request"]["action_url"]), headers={**OWN, "accept-language": "en"})


async def entries(office: AsyncClient) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    cursor: dict[str, str] = {}
    while True:
        page = (await office.get(f"{API}/register", params={"limit": 1, **cursor})).json()
        found.update({entry["address"]: entry for entry in page["data"]})
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


async def test_the_register_says_on_what_each_subscription_rests(
    register: Register, reader: AsyncClient, office: AsyncClient, database: Database, clock: FixedClock
) -> None:
    paper = await register.organisation("newsroom", "=HYPERLINK(1)")
    await register.person("desk@tidning.example", {"audience": "newsroom", "organisation_id": paper}, name="@desk")
    council = "E-post;Namn;Fullmäktige;Kommun;Mandat från;Mandat till\n"
    council += "bo@nybro.example;Bo;Kommunfullmäktige i Nybro;Nybro;2022-10-15;2099-10-14\n"
    file = {"file": ("p.csv", council.encode(), "text/csv")}
    assert (await office.post(f"{API}/imports", files=file, data={"audience": "politician"})).status_code == 200
    clock.advance(timedelta(days=1))
    await signed_up(reader, database, "anna@kalmar.example")
    found = await entries(office)
    held = {address: entry["subscriptions"][0] for address, entry in found.items()}
    grounds = {address: (one["basis"], one["basis_source"], one["basis_since"]) for address, one in held.items()}
    assert grounds == {
        "desk@tidning.example": ("press_register", "office", "2026-05-12T10:00:00Z"),
        "bo@nybro.example": ("public_task", "import", "2026-05-12T10:00:00Z"),
        "anna@kalmar.example": ("consent", "sign_up", "2026-05-13T10:00:00Z"),
    }
    assert held["anna@kalmar.example"]["text_shown"] == f"{NEWEST}/en"
    assert held["anna@kalmar.example"]["text"].startswith("I want news by e-mail.")
    answer = await office.get(f"{API}/register.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    lines = list(csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff"))))
    assert {(line["address"], line["basis"]) for line in lines} == {
        (address, basis) for address, (basis, _, _) in grounds.items()
    }
    assert {line["place"] for line in lines} >= {"'=HYPERLINK(1)"}
    assert {line["name"] for line in lines} >= {"'@desk"}
    history = (await office.get(f"{API}/subscribers/{found['anna@kalmar.example']['id']}/history")).json()["data"]
    assert [(row["act"], row["source"], row["text_shown"]) for row in history] == [
        ("joined", "sign_up", f"{NEWEST}/en")
    ]


async def test_each_subscription_has_its_own_beginning_and_what_is_taken_back_keeps_its_text(
    service: Service,
    register: Register,
    reader: AsyncClient,
    office: AsyncClient,
    database: Database,
    clock: FixedClock,
) -> None:
    """Two groups are two subscriptions; a departure that is undone rests on the text that was shown before it."""
    kalmar = await register.group("Samverkan Kalmar", "0880")
    anna = await register.person("anna@kalmar.example", {"audience": "collaboration_group", "group_id": kalmar})
    clock.advance(timedelta(days=1))
    file = {"file": ("g.csv", b"e-post;grupp\nanna@kalmar.example;Samverkan Nybro\n", "text/csv")}
    answer = await office.post(f"{API}/imports", files=file, data={"audience": "collaboration_group"})
    assert answer.status_code == 200, answer.text
    page = service.app.state.links.preferences(UUID(anna), 1)
    joined = {"action": "save", "audiences": ["collaboration_group", "public"], "locale": "sv"}
    assert (await reader.post(page, data=joined, headers=OWN)).status_code == 303
    clock.advance(timedelta(days=1))
    out = service.app.state.links.unsubscribe(UUID(anna), 1, Audience.PUBLIC)
    await reader.post(out, data={"List-Unsubscribe": "One-Click"})
    undo = str((await emitted(database, "mail.requested"))[-1].data["request"]["action_url"])
    assert (await reader.post(undo, headers=OWN)).status_code == 200
    held = (await entries(office))["anna@kalmar.example"]["subscriptions"]
    grounds = {one["place"]: (one["basis_source"], one["basis_since"], one["text_shown"]) for one in held}
    assert grounds == {
        "Samverkan Kalmar": ("office", "2026-05-12T10:00:00Z", ""),
        "Samverkan Nybro": ("import", "2026-05-13T10:00:00Z", ""),
        "": ("undo", "2026-05-14T10:00:00Z", f"{NEWEST}/sv"),
    }


@ONLY_SQLITE
async def test_only_an_admin_reads_the_register(reader: AsyncClient, register: Register) -> None:
    person = await register.person("anna@kalmar.example", {"audience": "public"})
    for path in ("register", "register.csv", f"subscribers/{person}/history"):
        assert (await reader.get(f"{API}/{path}")).status_code == 401


async def test_a_subscription_ends_when_its_time_is_over(
    service: Service,
    register: Register,
    reader: AsyncClient,
    office: AsyncClient,
    database: Database,
    clock: FixedClock,
    retention: RetentionWorker,
) -> None:
    council = await register.organisation("council", "Kommunfullmäktige")
    seat = {"audience": "politician", "organisation_id": council}
    public = {"audience": "public"}
    gone = await register.person("gone@kalmar.example", public)
    both = await register.person("both@kalmar.example", seat, public)
    stays = await register.person("stays@kalmar.example", public)
    leaver = await register.person("leaver@kalmar.example", seat)
    await register.change(gone, unsubscribed=True)
    for person, audience in ((both, Audience.PUBLIC), (leaver, Audience.POLITICIAN)):
        out = service.app.state.links.unsubscribe(UUID(person), 1, audience)
        await reader.post(out, data={"List-Unsubscribe": "One-Click"})
    clock.advance(timedelta(days=364))
    await retention.weed()
    assert len(await entries(office)) == 4
    clock.advance(timedelta(days=1, seconds=1))
    for _ in range(2):
        await retention.weed()
    found = await entries(office)
    assert {entry["id"]: [held["audience"] for held in entry["subscriptions"]] for entry in found.values()} == {
        both: ["politician"],
        stays: ["public"],
        leaver: ["politician"],  # remembered as having left, or the next import would bring them back
    }
    assert [event.data["recipient_id"] for event in await emitted(database, "recipient.erased")] == [gone]
    clock.advance(timedelta(days=730))
    await retention.weed()
    async with database.reading() as session:
        rows = (await session.execute(text("SELECT subscriber_id, act, source FROM history"))).all()
    ids = {str(UUID(str(row.subscriber_id))) for row in rows}
    assert gone not in ids
    assert ids == {both, stays, leaver}


def test_every_audience_has_a_basis_and_no_published_text_is_altered() -> None:
    assert set(BASIS_OF) == set(Audience)
    prints = {
        version: sha256(repr(sorted(texts.items())).encode()).hexdigest()[:16] for version, texts in TEXTS.items()
    }
    assert prints == {"2026-11": "9e133d53c93de2e5", "2026-11-29": "f9dfeea27ace6e2b"}
