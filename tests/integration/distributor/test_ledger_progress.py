"""What content is told: numbered snapshots that end in the truth."""

import json
from uuid import uuid4

import pytest
from sqlalchemy import update
from tests.integration.distributor.conftest import CLOCK, Room, batch, people, snapshot

from distributor import tallies
from distributor.channels import Fault, Outcome
from distributor.ledger import deliveries
from distributor.progress import ProgressWorker
from distributor.states import BOUNCED, FAILED, SENT
from distributor.tallies import Moved
from shared.contracts.delivery import DeliveryProgress, DeliveryState
from shared.contracts.mail import Exclusion, ExclusionReason
from shared.contracts.news import Audience, ItemState, NewsCorrected
from shared.messaging.outbox import outbox


async def told(room: Room) -> list[DeliveryProgress]:
    async with room.database.reading() as session:
        query = outbox.select().where(outbox.c.routing_key == "delivery.progress").order_by(outbox.c.created_at)
        rows = (await session.execute(query)).all()
    return [DeliveryProgress.model_validate(json.loads(row.body)["data"]) for row in rows]


async def test_snapshots_are_numbered_and_the_last_is_the_ledger(room: Room) -> None:
    item = snapshot(uuid4())
    listed = people(4)
    left_out = Exclusion(recipient_id=uuid4(), audience=Audience.POLITICIAN, reason=ExclusionReason.PAUSED)
    bad = listed[0].recipient_id
    room.sender.answer = lambda d: (
        Outcome(BOUNCED, 550, fault=Fault.RECIPIENT) if d.recipient_id == bad else Outcome(SENT, 250)
    )
    worker = ProgressWorker(room.database, CLOCK)
    await room.hear(batch(item, listed, exclusions=(left_out,)))
    await worker.tell(item.item_id)
    await room.drain()
    await worker.tell(item.item_id)
    await worker.tell(item.item_id)
    snapshots = await told(room)
    assert [one.sequence for one in snapshots] == [1, 2]
    assert {(one.state, one.count) for one in snapshots[0].deliveries} == {(DeliveryState.PLANNED, 4)}
    assert {(one.state, one.count) for one in snapshots[1].deliveries} == {
        (DeliveryState.SENT, 3),
        (DeliveryState.BOUNCED, 1),
    }
    assert [(one.reason, one.count) for one in snapshots[1].exclusions] == [(ExclusionReason.PAUSED, 1)]


async def test_an_item_at_rest_is_no_longer_counted(room: Room) -> None:
    item = snapshot(uuid4())
    await room.hear(batch(item, people(1)))
    worker = ProgressWorker(room.database, CLOCK)
    assert await worker.step()
    await worker.tell(item.item_id)
    assert not await worker.step()


async def test_what_a_later_revision_took_over_is_told_apart(room: Room) -> None:
    item = snapshot(uuid4())
    await room.hear(batch(item, people(2)))
    await room.hear(NewsCorrected(item=snapshot(item.item_id, 2, ItemState.CORRECTED), note="Fel."))
    await room.follow_up()
    await ProgressWorker(room.database, CLOCK).tell(item.item_id)
    counts = (await told(room))[-1].deliveries
    assert {(one.revision, one.state, one.superseded, one.count) for one in counts} == {
        (1, DeliveryState.CANCELLED, True, 2),
        (2, DeliveryState.PLANNED, False, 2),
    }


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer at a time
async def test_a_change_that_commits_after_the_last_look_is_told(room: Room) -> None:
    item = snapshot(uuid4())
    await room.hear(batch(item, people(1)))
    worker = ProgressWorker(room.database, CLOCK)
    (row,) = await room.rows()
    async with room.database.transaction() as session:
        await session.execute(update(deliveries).values(state=FAILED, next_attempt_at=None))
        await tallies.moved(session, [Moved.of(row, FAILED)])
        await worker.tell(item.item_id)
        assert not await ProgressWorker(room.database, CLOCK).step()
    assert await ProgressWorker(room.database, CLOCK).step()
    assert {one.state for one in (await told(room))[-1].deliveries} == {DeliveryState.FAILED}


async def test_many_changes_are_told_when_all_have_been_added_up(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "FOLD", 3)
    item = snapshot(uuid4())
    for _ in range(8):
        await room.hear(batch(item, people(2)))
    await room.drain()
    await ProgressWorker(room.database, CLOCK).tell(item.item_id)
    (only,) = await told(room)
    assert [(one.state, one.count) for one in only.deliveries] == [(DeliveryState.SENT, 16)]
