"""The workers under bad luck: a relay that is away, an order to stop, a lease that ran out, a part that fails."""

import asyncio
import time
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from tests.eventually import eventually
from tests.integration.distributor.conftest import CLOCK, MemorySender, Room, batch, people, snapshot

from distributor import delivery, journal, leases, recovery
from distributor.channels import Fault, Outcome
from distributor.delivery import DeliveryWorker
from distributor.states import DEFERRED, SENT


class ClosingSender(MemorySender):
    """Remembers that it was closed."""

    closed = False

    async def close(self) -> None:
        self.closed = True


async def in_hand(room: Room) -> int:
    return len(await room.rows(state="leased"))


async def test_a_relay_that_is_away_does_not_make_a_sender_hoard(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "PAUSE_FIRST_S", 0.01)
    monkeypatch.setattr(delivery, "PAUSE_LONGEST_S", 0.01)
    room.sender.answer = lambda _: Outcome(DEFERRED, phase="connect", fault=Fault.SYSTEM, counts=False)
    item = snapshot(uuid4())
    await room.hear(batch(item, people(400)))
    stop = asyncio.Event()
    worker = asyncio.create_task(room.worker().run(stop))
    await eventually(lambda: len(room.sender.dispatched) > 60, within=20)
    held = await in_hand(room)
    stop.set()
    await worker
    assert held <= room.sender.slots


async def test_an_order_to_stop_ends_with_what_has_begun(room: Room) -> None:
    await room.hear(batch(snapshot(uuid4()), people(40)))
    room.sender.hold.clear()
    stop = asyncio.Event()
    worker = asyncio.create_task(room.worker().run(stop))
    await eventually(lambda: len(room.sender.dispatched) == room.sender.slots)
    stop.set()
    room.sender.hold.set()
    await worker
    assert len(room.sender.dispatched) == room.sender.slots
    while await room.recovery().take_over():
        pass
    states = [row.state for row in await room.rows()]
    assert (states.count("sent"), states.count("planned")) == (room.sender.slots, 40 - room.sender.slots)


async def test_an_order_to_stop_is_heard_while_the_channel_pauses(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "PAUSE_FIRST_S", 60.0)
    monkeypatch.setattr(delivery, "PAUSE_LONGEST_S", 60.0)
    room.sender.answer = lambda _: Outcome(DEFERRED, phase="connect", fault=Fault.SYSTEM, counts=False)
    await room.hear(batch(snapshot(uuid4()), people(20)))
    stop = asyncio.Event()
    worker = asyncio.create_task(room.worker().run(stop))
    await eventually(lambda: len(room.sender.dispatched) >= room.sender.slots)
    stop.set()
    await asyncio.wait_for(worker, 5)


async def test_a_journal_that_fails_ends_the_worker_instead_of_leaving_it_mute(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ArithmeticError("of no matter")

    sender = ClosingSender()
    await room.hear(batch(snapshot(uuid4()), people(3)))
    monkeypatch.setattr(journal, "decide", fails)
    worker = room.worker(sender)
    with pytest.raises(ArithmeticError):
        await asyncio.wait_for(worker.run(asyncio.Event()), 60)
    assert not sender.closed, "the worker is started again with the same sender"


async def sending_past_its_lease(room: Room, worker: DeliveryWorker, stop: asyncio.Event) -> "asyncio.Task[None]":
    """A mail is on its way out when the lease has run out, as after 20 s without a database."""
    room.sender.hold.clear()
    task = asyncio.create_task(worker.run(stop))
    await eventually(lambda: len(room.sender.dispatched) == 1)
    async with room.database.transaction() as session:
        old = leases.sender_leases.update().values(held_until=CLOCK.now() - leases.HELD_FOR)
        await session.execute(old)
    return task


async def test_an_outcome_counts_though_the_lease_ran_out_if_nobody_took_over(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_EVERY_S", 0.05)
    await room.hear(batch(snapshot(uuid4()), people(1)))
    stop, worker = asyncio.Event(), room.worker()
    task = await sending_past_its_lease(room, worker, stop)

    async def renewed() -> bool:
        async with room.database.reading() as session:
            return await session.scalar(text("SELECT count(*) FROM sender_leases")) == 2

    await eventually(renewed)
    room.sender.hold.set()
    await room.quiet()
    stop.set()
    await task
    assert [row.state for row in await room.rows()] == [SENT]
    assert len(room.sender.dispatched) == 1


async def test_after_a_database_was_away_senders_may_renew_before_they_are_taken_for_dead(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_EVERY_S", 0.3)
    await room.hear(batch(snapshot(uuid4()), people(1)))
    stop = asyncio.Event()
    task = await sending_past_its_lease(room, room.worker(), stop)
    sweeper = room.recovery()
    sweeper._swept_at = time.monotonic() - 2 * recovery.UNSEEING_S
    sweeping = asyncio.create_task(sweeper.run(stop))
    await eventually(lambda: sweeper._swept_at > time.monotonic() - 5, within=20)
    room.sender.hold.set()
    await room.quiet()
    stop.set()
    await asyncio.gather(task, sweeping)
    assert [row.state for row in await room.rows()] == [SENT]
    assert len(room.sender.dispatched) == 1
