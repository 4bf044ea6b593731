"""Suppressions: each with its reason and a way back, honoured when people are matched, shown in the history."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from httpx2 import AsyncClient
from sqlalchemy import select
from tests.integration.subscriptions.conftest import Register, emitted, make_item, run_dry
from tests.integration.subscriptions.test_subscriptions_stops import bring

from shared.clock import FixedClock
from shared.contracts.delivery import BounceKind, DeliveryBounced, DeliveryComplained
from shared.contracts.mail import MailRequested
from shared.database import Database
from shared.ids import new_id
from shared.service import Service
from subscriptions import fanout
from subscriptions.fanout import FanoutWorker
from subscriptions.models import HistoryRow


class Witness:
    """One reader, seen from the office, from their own page and from a fan-out."""

    def __init__(self, key: str, service: Service, office: AsyncClient, reader: AsyncClient) -> None:
        self.key, self._service, self._office, self._reader = key, service, office, reader
        self._path = f"/api/subscriptions/v1/subscribers/{key}"
        self.page = service.app.state.links.preferences(UUID(key), 1)

    async def bounce(self, kind: BounceKind, *, of: datetime | None = None, **told: Any) -> None:
        values = {"delivery_id": new_id(), "recipient_id": UUID(self.key), "kind": kind, "status": "5.1.1"}
        await bring(self._service, DeliveryBounced(**values | told), of=of)

    async def complain(self, *, of: datetime | None = None) -> None:
        await bring(self._service, DeliveryComplained(delivery_id=new_id(), recipient_id=UUID(self.key)), of=of)

    async def state(self) -> str:
        return str((await self._office.get(self._path)).json()["state"])

    async def suppressions(self) -> list[tuple[str, str, str]]:
        """Reason, note and by whose hand it was lifted, the newest first."""
        answer = await self._office.get(f"{self._path}/suppressions")
        assert answer.status_code == 200
        return [(row["reason"], row["note"], row["lifted_by"]) for row in answer.json()["data"]]

    async def says(self, action: str) -> None:
        assert (await self._reader.post(self.page, data={"action": action})).status_code == 303

    async def sees(self) -> str:
        return (await self._reader.get(self.page)).text

    async def gets(self, worker: FanoutWorker, database: Database, clock: FixedClock) -> bool:
        """Whether a fan-out takes the reader along."""
        item = make_item("public")
        async with database.transaction() as session:
            await fanout.record(session, item, clock.now())
        await run_dry(worker, database)
        batches = [MailRequested.model_validate(each.data) for each in await emitted(database, "mail.requested")]
        mine = [batch for batch in batches if batch.subject_id == item.item_id]
        return any(str(one.recipient_id) == self.key for batch in mine for one in batch.recipients)


@pytest.fixture
async def witness(register: Register, service: Service, office: AsyncClient, reader: AsyncClient) -> Witness:
    key = await register.person("reader@kalmar.example", {"audience": "public"})
    return Witness(key, service, office, reader)


async def test_a_hard_bounce_stops_and_the_reader_starts_again(
    witness: Witness, worker: FanoutWorker, database: Database, clock: FixedClock
) -> None:
    for _ in range(2):
        await witness.bounce(BounceKind.HARD)
    assert await witness.state() == "suppressed"
    assert await witness.suppressions() == [("hard_bounce", "5.1.1", "")]
    assert not await witness.gets(worker, database, clock)
    assert "Min adress fungerar" in await witness.sees()
    await witness.says("mailbox_works")
    assert await witness.state() == "active"
    assert await witness.suppressions() == [("hard_bounce", "5.1.1", "page")]
    assert await witness.gets(worker, database, clock)
    assert "Vi skickar mejl till din adress igen." in await witness.sees()
    await witness.bounce(BounceKind.HARD)
    assert [row[0] for row in await witness.suppressions()] == ["hard_bounce"] * 2


async def test_what_was_lifted_is_not_brought_back_by_an_event_that_comes_again(
    witness: Witness, clock: FixedClock
) -> None:
    before = clock.now()
    await witness.bounce(BounceKind.HARD)
    clock.advance(timedelta(hours=1))
    await witness.says("mailbox_works")
    await witness.bounce(BounceKind.HARD, of=before)
    assert await witness.state() == "active"
    of_the_complaint = clock.now()
    await witness.complain()
    clock.advance(timedelta(hours=1))
    await witness.says("begin_again")
    await witness.complain(of=of_the_complaint)
    assert await witness.state() == "active"
    await witness.bounce(BounceKind.HARD)
    assert await witness.state() == "suppressed"


async def test_soft_bounces_on_five_days_within_two_months_are_one_too_many(
    witness: Witness, clock: FixedClock
) -> None:
    again = new_id()
    for _ in range(8):  # a server that is away for an afternoon
        await witness.bounce(BounceKind.SOFT, status="4.2.2")
    for _ in range(3):
        clock.advance(timedelta(days=7))
        for _ in range(2):
            await witness.bounce(BounceKind.SOFT, status="4.2.2", delivery_id=again)
        again = new_id()
    assert await witness.state() == "active"
    clock.advance(timedelta(days=50))  # the first are forgotten
    await witness.bounce(BounceKind.SOFT, status="4.2.2")
    assert await witness.state() == "active"
    for _ in range(4):
        clock.advance(timedelta(days=7))
        await witness.bounce(BounceKind.SOFT, status="4.2.2")
    assert await witness.suppressions() == [("soft_bounces", "4.2.2", "")]
    await witness.says("mailbox_works")
    await witness.bounce(BounceKind.SOFT, status="4.2.2")
    assert await witness.state() == "active"


async def test_a_complaint_ends_the_mails_until_the_reader_begins_again(
    witness: Witness, worker: FanoutWorker, database: Database, clock: FixedClock, office: AsyncClient
) -> None:
    for _ in range(2):
        await witness.complain()
    assert await witness.state() == "unsubscribed"
    assert not await witness.gets(worker, database, clock)
    assert "skräppost" in await witness.sees()
    await office.delete(f"/api/subscriptions/v1/subscribers/{witness.key}/suppressions")
    assert await witness.suppressions() == [("complaint", "", "")]
    await witness.says("begin_again")
    assert await witness.state() == "active"
    assert await witness.suppressions() == [("complaint", "", "page")]


async def test_the_office_stops_and_lifts(witness: Witness, office: AsyncClient, database: Database) -> None:
    path = f"/api/subscriptions/v1/subscribers/{witness.key}/suppressions"
    await witness.bounce(BounceKind.HARD)
    for _ in range(2):
        assert (await office.post(path, json={"note": "Ringde och bad om det."})).status_code == 200
    assert "Kontakta oss" in await witness.sees() and "Min adress fungerar" not in await witness.sees()
    await witness.says("mailbox_works")
    assert await witness.state() == "suppressed", "the office's stop stands"
    assert await witness.suppressions() == [
        ("manual", "Ringde och bad om det.", ""),
        ("hard_bounce", "5.1.1", "page"),
    ]
    assert (await office.delete(path)).status_code == 200
    assert await witness.state() == "active"
    events = [each.type.split(".")[3] for each in await emitted(database, "recipient.")]
    assert events == ["stopped", "resumed"]
    async with database.reading() as session:
        rows = await session.execute(select(HistoryRow.source, HistoryRow.after).order_by(HistoryRow.id))
        told = [(source, after["suppressed"]) for source, after in rows if "suppressed" in after]
    assert told == [("bounce", True), ("office", False)]


async def test_nobody_is_suppressed_who_is_not_there(office: AsyncClient) -> None:
    path = f"/api/subscriptions/v1/subscribers/{new_id()}/suppressions"
    assert [(await office.request(method, path)).status_code for method in ("GET", "DELETE")] == [404, 404]
    assert (await office.post(path, json={})).status_code == 404
