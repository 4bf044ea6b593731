"""The outbox and its relay on both databases: nothing said that was not done, nothing done that is not said."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import func, select, update
from tests.eventually import eventually

from shared import correlation
from shared.clock import FixedClock, SystemClock
from shared.contracts.mail import Form, Lane, MailRequested, RecipientErased, SubjectKind
from shared.database import Database
from shared.ids import derived_id, new_id
from shared.messaging import outbox, relay
from shared.messaging.bus import BusUnavailable, Message, Unroutable
from shared.messaging.relay import Relay

CLOCK = SystemClock()


class NotedBus:
    """Notes what is published. `then` runs between the note and the confirm."""

    def __init__(self) -> None:
        self.published: list[Message] = []
        self.then: Callable[[Sequence[Message]], object] = lambda _messages: None
        self.answer: Callable[[Message], Exception | None] = lambda _message: None

    async def publish(self, messages: Sequence[Message]) -> list[Exception | None]:
        self.published.extend(messages)
        waiting = self.then(messages)
        if asyncio.iscoroutine(waiting):
            await waiting
        return [self.answer(message) for message in messages]

    @property
    def ids(self) -> list[str]:
        return [message.message_id for message in self.published]


def a_relay(database: Database, bus: NotedBus) -> Relay:
    return Relay("tests", database, bus, CLOCK)  # type: ignore[arg-type]


async def emit(database: Database, count: int = 1, **options: object) -> list[str]:
    async with database.transaction() as session:
        event = RecipientErased(recipient_id=new_id(), version=1)
        keys = [
            await outbox.emit(session, event, source="tests", subject="x", at=CLOCK.now(), **options)  # type: ignore[arg-type]
            for _ in range(count)
        ]
    return [str(key) for key in keys]


async def unpublished(database: Database) -> int:
    async with database.reading() as session:
        return await session.scalar(select(func.count()).select_from(outbox.outbox).where(outbox.WAITING)) or 0


async def kept(database: Database) -> int:
    async with database.reading() as session:
        return await session.scalar(select(func.count()).select_from(outbox.outbox)) or 0


async def test_an_event_leaves_right_after_its_commit_and_only_once(database: Database) -> None:
    bus = NotedBus()
    running = asyncio.create_task(a_relay(database, bus).run())
    keys = await emit(database, 120)
    await eventually(lambda: len(bus.ids) >= 120, within=5)
    await eventually(lambda: _is(unpublished(database), 0))
    assert bus.ids == keys, "in the order of their emission, as long as nothing fails"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_press_release_passes_the_batches_of_a_digest_that_wait(database: Database) -> None:
    await emit_batches(database, Lane.DIGEST, 10)
    bus = NotedBus()
    carrier = a_relay(database, bus)
    assert await carrier.carry() == outbox.BULK_TOGETHER, "no more is ever ahead of what comes next"
    await emit_batches(database, Lane.PRESS, 2)
    while await carrier.carry():
        pass
    lanes = [message.routing_key.rpartition(".")[2] for message in bus.published]
    assert lanes == ["digest"] * 4 + ["press"] * 2 + ["digest"] * 6
    assert len(set(bus.ids)) == 12


async def emit_batches(database: Database, lane: Lane, count: int) -> None:
    async with database.transaction() as session:
        for _ in range(count):
            batch = MailRequested(
                batch_id=new_id(),
                subject_kind=SubjectKind.DIGEST_RUN,
                subject_id=new_id(),
                revision=0,
                form=Form.DIGEST,
                lane=lane,
                planned_at=CLOCK.now(),
            )
            await outbox.emit(session, batch, source="tests", subject="x", at=CLOCK.now())


async def _is(value: object, expected: object) -> bool:
    return await value == expected  # type: ignore[misc]


async def test_a_relay_with_nothing_to_do_leaves_the_database_alone(database: Database) -> None:
    commits = 0

    def count() -> None:
        nonlocal commits
        commits += 1

    bus = NotedBus()
    running = asyncio.create_task(a_relay(database, bus).run())
    await emit(database)
    await eventually(lambda: _is(unpublished(database), 0))
    database.on_commit(count)
    await asyncio.wait({running}, timeout=1.5)
    assert commits == 0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_is_rolled_back_is_never_said(database: Database) -> None:
    with pytest.raises(RuntimeError):
        async with database.transaction() as session:
            event = RecipientErased(recipient_id=new_id(), version=1)
            await outbox.emit(session, event, source="tests", subject="x", at=CLOCK.now())
            raise RuntimeError
    bus = NotedBus()
    assert await a_relay(database, bus).carry() == 0
    assert bus.published == []


async def test_the_same_derived_id_is_said_once(database: Database) -> None:
    key = derived_id("fan-out", "x", 1)
    assert await emit(database, event_id=key) == [str(key)]
    assert await emit(database, event_id=key) == [str(key)]
    bus = NotedBus()
    await a_relay(database, bus).carry()
    assert bus.ids == [str(key)]


async def test_the_envelope_carries_the_trail_of_whoever_emitted_it(database: Database) -> None:
    trail = correlation.Correlation("click-1", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    with correlation.correlated(trail):
        (key,) = await emit(database)
    bus = NotedBus()
    await a_relay(database, bus).carry()
    envelope = json.loads(bus.published[0].body)
    assert (envelope["correlationid"], envelope["traceparent"]) == (trail.correlation_id, trail.traceparent)
    assert (envelope["id"], envelope["source"], envelope["subject"]) == (key, "/budkavle/tests", "x")
    assert (bus.published[0].exchange, bus.published[0].routing_key) == ("mail", "recipient.erased")


async def test_two_relays_at_once_publish_each_event_once(database: Database) -> None:
    keys = await emit(database, 400)
    bus = NotedBus()

    async def carry_all() -> int:
        carried, one = 0, a_relay(database, bus)
        while found := await one.carry():
            carried += found
        return carried

    shares = await asyncio.gather(*(carry_all() for _ in range(4)))
    assert Counter(bus.ids) == Counter(keys)
    assert sum(shares) == 400


@pytest.mark.parametrize("step", ["before the broker has it", "before the confirm", "before the mark"])
async def test_a_relay_that_dies_at_any_step_loses_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(relay, "LEASE", timedelta(milliseconds=300))
    keys = await emit(database, 3)
    bus, reached = NotedBus(), asyncio.Event()

    async def die(*_arguments: object, **_options: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as dying:
        if step == "before the broker has it":
            dying.setattr(bus, "publish", die)
        elif step == "before the confirm":
            bus.then = die
        else:
            dying.setattr(outbox, "settle", die)
        first = asyncio.create_task(a_relay(database, bus).run())
        await asyncio.wait_for(reached.wait(), 10)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    bus.then = lambda _messages: None
    assert await unpublished(database) == 3
    second = asyncio.create_task(a_relay(database, bus).run())
    await eventually(lambda: _is(unpublished(database), 0), within=6)
    assert Counter(bus.ids) == Counter(keys * (1 if step == "before the broker has it" else 2))
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)


async def test_a_cancellation_that_nobody_asked_for_does_not_end_the_relay(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "shared.messaging.relay.LEASE", timedelta(seconds=0.2)
    )  # the rows that fell are soon free again
    bus, falls = NotedBus(), iter([True])

    async def fall(_messages: object) -> None:
        if next(falls, False):
            raise asyncio.CancelledError

    bus.then = fall  # type: ignore[assignment]
    running = asyncio.create_task(a_relay(database, bus).run())
    keys = await emit(database)
    await eventually(lambda: _is(unpublished(database), 0), within=10)
    assert set(bus.ids) == set(keys)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_the_broker_did_not_confirm_stays_and_the_rest_is_marked(database: Database) -> None:
    keys = await emit(database, 4)
    bus = NotedBus()
    bus.answer = lambda message: BusUnavailable("nack") if message.message_id in keys[:2] else None
    await a_relay(database, bus).carry()
    async with database.reading() as session:
        waiting = {str(key) for key in await session.scalars(select(outbox.outbox.c.id).where(outbox.WAITING))}
    assert waiting == set(keys[:2])
    bus.answer = lambda _message: None
    await a_relay(database, bus).carry()
    assert await unpublished(database) == 0


async def test_events_that_no_queue_takes_do_not_keep_the_others_waiting(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "BATCH", 5)
    stuck = set(await emit(database, 20))
    free = await emit(database, 1)
    bus = NotedBus()
    bus.answer = lambda message: Unroutable("nowhere") if message.message_id in stuck else None
    one = a_relay(database, bus)
    for _ in range(40):
        await one.carry()
    assert free[0] in bus.ids
    assert await unpublished(database) == 20, "they stay, and are offered again from time to time"
    unroutable = ("budkavle_outbox_unroutable", {"service": "tests"})
    assert REGISTRY.get_sample_value(*unroutable) == 1, "though others got away meanwhile"
    bus.answer = lambda _: None
    async with database.transaction() as session:
        await session.execute(update(outbox.outbox).values(leased_until=None))
    while await one.carry():
        pass
    assert REGISTRY.get_sample_value(*unroutable) == 0


async def test_what_was_published_is_kept_for_a_while_and_then_goes(database: Database) -> None:
    keys = await emit(database, 3)
    await a_relay(database, NotedBus()).carry()
    late = await emit(database)
    async with database.transaction() as session:
        assert await outbox.purge(session, CLOCK.now() - timedelta(hours=1), 9) == 0
        assert await outbox.purge(session, CLOCK.now() + timedelta(seconds=1), 9) == 3
    async with database.reading() as session:
        left = [str(key) for key in await session.scalars(select(outbox.outbox.c.id))]
    assert left == late and not set(keys) & set(left)


async def test_a_heap_of_old_events_goes_in_chunks_and_keeps_nothing_new_waiting(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "PURGE_CHUNK", 2)
    monkeypatch.setattr(relay, "POLL_S", 0.01)
    await emit(database, 7)
    await a_relay(database, NotedBus()).carry()
    bus, chunks, left_before = NotedBus(), [], []
    purge_safely = Relay._purge_safely

    async def noted(emptying: Relay) -> int:
        left_before.append(len(bus.ids))
        chunks.append(await purge_safely(emptying))
        if len(chunks) == 2:
            await emit(database)
        return chunks[-1]

    monkeypatch.setattr(Relay, "_purge_safely", noted)
    emptying = Relay("tests", database, bus, CLOCK, retention=timedelta(seconds=-1))  # type: ignore[arg-type]
    running = asyncio.create_task(emptying.run())
    await eventually(lambda: _is(kept(database), 0), within=5)
    emptying.stop()
    await asyncio.wait_for(running, 5)
    assert (chunks[:3], sum(chunks)) == ([2, 2, 2], 8)
    assert left_before[:3] == [0, 0, 1], "what is new leaves before the next chunk goes"


async def test_a_wrong_clock_of_the_process_does_not_hold_an_event_back(database: Database) -> None:
    """Leases are decided by the database's clock where it has one; `created_at` only orders."""
    async with database.transaction() as session:
        event = RecipientErased(recipient_id=new_id(), version=1)
        future = FixedClock(datetime(2099, 1, 1, tzinfo=UTC)).now()
        await outbox.emit(session, event, source="tests", subject="x", at=future)
    bus = NotedBus()
    assert await a_relay(database, bus).carry() == 1
    assert UUID(bus.ids[0])


async def test_a_relay_that_is_told_to_stop_settles_what_is_at_hand(database: Database) -> None:
    bus = NotedBus()
    keys = await emit(database, 3)
    stopping = a_relay(database, bus)
    bus.then = lambda _messages: stopping.stop()
    await asyncio.wait_for(stopping.run(), 10)
    assert bus.ids == keys
    assert await unpublished(database) == 0
