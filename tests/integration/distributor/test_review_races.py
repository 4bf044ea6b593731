"""Two transactions at once: what neither sees of the other must not send, lose or miscount anything.

On SQLite one transaction follows the other, so what needs two open ones runs on PostgreSQL alone.
"""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from tests.eventually import eventually
from tests.integration.distributor.conftest import CLOCK, Room, batch, people, retention_in, snapshot

from distributor import follow_ups, ledger
from distributor.channels import Outcome
from distributor.follow_ups import FollowUpWorker
from distributor.journal import Journal
from distributor.leases import Claimed, take
from distributor.states import BOUNCED, SENT, UNCERTAIN
from shared.contracts.delivery import Channel
from shared.contracts.envelope import Envelope, Event
from shared.contracts.mail import Form, RecipientErased, RecipientStopped, StopScope
from shared.contracts.news import ItemState, NewsCorrected, NewsWithdrawn
from shared.ids import new_id
from shared.messaging.consumer import Received

concurrently = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


def received(event: Event) -> Received[Any]:
    envelope = Envelope.wrap(
        event, event_id=new_id(), source="/test", subject="x", time=CLOCK.now(), correlation_id="c"
    )
    return Received(event, envelope)


def corrected(item: Any, revision: int = 2) -> NewsCorrected:
    return NewsCorrected(item=snapshot(item.item_id, revision, ItemState.CORRECTED), note="Siffran var fel.")


def withdrawn(item: Any, revision: int = 2) -> NewsWithdrawn:
    return NewsWithdrawn(item=snapshot(item.item_id, revision, ItemState.WITHDRAWN), reason="Uppgiften stämde inte.")


def stopped(recipient_id: Any, version: int = 2) -> RecipientStopped:
    return RecipientStopped(recipient_id=recipient_id, scope=StopScope.ALL, version=version)


async def claimed_in_doubt(room: Room) -> tuple[Journal, Claimed]:
    """The only delivery may have arrived, and is claimed to be repeated."""
    journal = Journal(room.database, CLOCK, Channel.MAIL, repeated_lanes=frozenset(range(4)), retry_scale=1)
    journal.owner = "a"
    await room.force(state=UNCERTAIN, next_attempt_at=CLOCK.now())
    async with room.database.transaction() as session:
        await take(session, room.database, "a")
    (row,) = await journal.write([], 5)
    return journal, row


@concurrently
async def test_a_stop_in_the_moment_of_accepting_counts(room: Room) -> None:
    item, (stays, leaves) = snapshot(uuid4()), people(2)
    async with room.database.transaction() as session:
        await room.handlers.on_mail_requested(session, received(batch(item, (stays, leaves))))
        await room.hear(stopped(leaves.recipient_id))
    await room.drain()
    assert [d.recipient_id for d in room.sender.dispatched] == [stays.recipient_id]
    assert [(row.state, row.ended_reason) for row in await room.rows(recipient_id=leaves.recipient_id)] == [
        ("cancelled", "stopped")
    ]


@concurrently
@pytest.mark.parametrize("sends", [True, False])
async def test_an_erasure_in_the_moment_of_accepting_leaves_no_address(room: Room, *, sends: bool) -> None:
    item, (gone,) = snapshot(uuid4()), people(1)
    async with room.database.transaction() as session:
        await room.handlers.on_mail_requested(session, received(batch(item, (gone,))))
        await room.hear(RecipientErased(recipient_id=gone.recipient_id, version=2))
    if sends:
        await room.drain()
    else:
        await retention_in(room, timedelta(minutes=6)).settle_erasures()
    assert room.sender.dispatched == []
    (row,) = await room.rows()
    assert (row.address, row.reason, row.one_click_url) == (None, None, None)


@concurrently
async def test_a_stop_in_the_moment_of_planning_anew_counts(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    item, (leaves,) = snapshot(uuid4()), people(1)
    await room.hear(batch(item, (leaves,)))
    await room.hear(corrected(item))
    worker, stopping = FollowUpWorker(room.database, CLOCK), []
    insert = follow_ups.plant

    async def insert_while_stopping(session: Any, rows: Any) -> None:
        stopping.append(asyncio.create_task(room.hear(stopped(leaves.recipient_id))))
        await asyncio.sleep(0.1)  # until it waits for the rows that this transaction holds
        await insert(session, rows)

    monkeypatch.setattr(follow_ups, "plant", insert_while_stopping)
    await worker.step()
    await asyncio.gather(*stopping)
    await room.drain()
    assert room.sender.dispatched == []


async def test_a_stop_leaves_in_doubt_what_is_in_doubt(room: Room) -> None:
    item, (person,) = snapshot(uuid4()), people(1)
    await room.hear(batch(item, (person,)))
    journal, claimed = await claimed_in_doubt(room)
    await room.hear(stopped(person.recipient_id))
    await journal.give_back([claimed])
    await journal.close()
    (row,) = await room.rows()
    assert (row.state, row.next_attempt_at, row.lease_owner) == (UNCERTAIN, None, None)


@concurrently
async def test_what_arrives_while_a_follow_up_looks_is_told(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    item = snapshot(uuid4())
    await room.hear(batch(item, people(1)))
    room.sender.hold.clear()
    stop = asyncio.Event()
    sending = asyncio.create_task(room.worker().run(stop))
    await eventually(lambda: len(room.sender.dispatched) == 1)
    await room.hear(corrected(item))
    worker = FollowUpWorker(room.database, CLOCK)
    tell = worker._tell

    async def tell_then_arrive(session: Any, *others: Any) -> int:
        told = await tell(session, *others)
        room.sender.hold.set()
        async with asyncio.timeout(5):
            while (await room.rows(revision=1))[0].state != SENT:
                await asyncio.sleep(0.01)
        return told

    monkeypatch.setattr(worker, "_tell", tell_then_arrive)
    await worker.step()
    monkeypatch.undo()
    while await worker.step():
        pass
    await room.quiet()
    stop.set()
    await sending
    assert [(d.form, d.content.revision) for d in room.sender.dispatched] == [(Form.NEWS, 1), (Form.CORRECTION, 2)]


@pytest.mark.parametrize(("taken_back", "form"), [(corrected, Form.CORRECTION), (withdrawn, Form.WITHDRAWAL)])
async def test_who_may_have_it_is_told_though_its_repeat_is_claimed(room: Room, taken_back: Any, form: Form) -> None:
    item = snapshot(uuid4())
    await room.hear(batch(item, people(1)))
    journal, claimed = await claimed_in_doubt(room)
    await room.hear(taken_back(item))
    await room.follow_up()
    await journal.give_back([claimed])
    await journal.close()

    worker = FollowUpWorker(room.database, CLOCK)

    async def told() -> bool:
        await worker.step()
        return len(await room.rows(revision=2)) == 1

    await eventually(told)
    (told_of,) = await room.rows(revision=2)
    assert (told_of.form, told_of.thread_of) == (form, "1")
    assert (await room.rows(revision=1))[0].state == UNCERTAIN


@concurrently
async def test_two_batches_of_one_item_do_not_wait_for_each_other(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    item = snapshot(uuid4())
    await room.hear(batch(item, people(1)))
    both, newest_of = asyncio.Barrier(2), ledger.newest_of

    async def newest_together(session: Any, item_id: Any) -> Any:
        newest = await newest_of(session, item_id)
        with suppress(TimeoutError, asyncio.BrokenBarrierError):
            await asyncio.wait_for(both.wait(), 0.5)
        return newest

    monkeypatch.setattr(ledger, "newest_of", newest_together)
    await asyncio.gather(*(room.hear(batch(item, people(1))) for _ in range(2)))
    assert len(await room.rows()) == 3


@concurrently
async def test_a_retry_by_hand_and_a_correction_leave_nothing_behind(room: Room) -> None:
    item = snapshot(uuid4())
    await room.hear(batch(item, people(1)))
    room.sender.answer = lambda _: Outcome(BOUNCED, 550)
    await room.drain()
    (row,) = await room.rows()
    async with room.database.transaction() as session:
        await ledger.retry_by_hand(session, row.id, CLOCK.now())
        correcting = asyncio.create_task(room.hear(corrected(item)))
        done, _ = await asyncio.wait({correcting}, timeout=0.3)
        if done:
            await room.follow_up()
    await correcting
    await room.follow_up()
    room.sender.answer = lambda _: Outcome(SENT, 250)
    await room.drain()
    assert [(row.revision, row.state) for row in await room.rows()] == [(1, "cancelled"), (2, "sent")]


async def test_a_person_in_two_batches_around_a_correction_is_not_mailed_twice(room: Room) -> None:
    item, (person,) = snapshot(uuid4()), people(1)
    await room.hear(batch(item, (person,)))
    await room.drain()
    await room.hear(batch(snapshot(item.item_id, 2, ItemState.CORRECTED), (person,)))
    await room.hear(corrected(item))
    await room.follow_up()
    await room.drain()
    assert [(d.form, d.content.revision) for d in room.sender.dispatched] == [(Form.NEWS, 1), (Form.CORRECTION, 2)]


async def test_a_copy_of_a_retargeted_batch_adds_nothing_after_the_withdrawal(room: Room) -> None:
    item = snapshot(uuid4())
    told = batch(item, people(1))
    await room.hear(corrected(item))
    await room.hear(told)
    await room.hear(withdrawn(item, 3))
    await room.hear(told)
    await room.follow_up()
    assert [(row.revision, row.ended_reason) for row in await room.rows()] == [(2, "withdrawn")]
