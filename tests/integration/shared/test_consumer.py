"""A message is one transaction, and whatever goes wrong becomes a value; on both databases."""

import asyncio
import dataclasses
import gzip
import json
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from tests.eventually import eventually
from tests.integration.shared.transports import FIRST, Transport

from shared import correlation
from shared.clock import SystemClock
from shared.contracts.envelope import Envelope
from shared.contracts.mail import RecipientErased
from shared.database import Database
from shared.ids import new_id
from shared.messaging import consumer as consuming
from shared.messaging import dead_letters, outbox
from shared.messaging.bus import Ack, DeadLetter, Incoming, Outcome, Retry
from shared.messaging.consumer import Consumer, Received
from shared.messaging.relay import Relay
from shared.messaging.topology import DISTRIBUTOR_RECIPIENTS, RETRY_DELAYS_S, Queue

CLOCK = SystemClock()
AT = datetime(2026, 11, 22, 8, 30, tzinfo=UTC)
Handler = Callable[[AsyncSession, Received[RecipientErased]], Awaitable[Outcome | None]]


def body(**changes: object) -> bytes:
    event = RecipientErased(recipient_id=UUID(int=1), version=3)
    envelope = Envelope.wrap(
        event,
        event_id=UUID(int=2),
        source="/budkavle/tests",
        subject="x",
        time=AT,
        correlation_id="click-1",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
    return json.dumps(envelope.model_dump(mode="json") | changes).encode()


def a_consumer(
    database: Database, handler: Handler, queue: Queue = DISTRIBUTOR_RECIPIENTS, **options: float
) -> Consumer:
    return Consumer(queue, database, CLOCK, {RecipientErased: handler}, **options)


async def parked(database: Database) -> list[tuple[str, str, int]]:
    async with database.reading() as session:
        letters = await dead_letters.listing(session)
    return [(letter["reason"], letter["event_type"], letter["attempts"]) for letter in letters]


async def emitted(database: Database) -> int:
    async with database.reading() as session:
        return await session.scalar(select(func.count()).select_from(outbox.outbox)) or 0


async def emit_and(
    session: AsyncSession, received: Received[RecipientErased], then: Outcome | Exception | None
) -> Outcome | None:
    await outbox.emit(session, received.event, source="tests", subject="x", at=AT)
    if isinstance(then, Exception):
        raise then
    return then


async def test_what_is_given_up_is_counted_from_nought(database: Database) -> None:
    """An alarm sees a number grow, and not that it is there for the first time."""
    queue = dataclasses.replace(DISTRIBUTOR_RECIPIENTS, name="tests.from_nought")
    Consumer(queue, database, SystemClock(), {})
    counted = {"queue": queue.name, "outcome": "deadletter"}
    assert REGISTRY.get_sample_value("budkavle_messages_total", counted) == 0


async def test_a_handled_message_is_committed_and_acknowledged(database: Database) -> None:
    seen: list[Received[RecipientErased]] = []

    async def handler(session: AsyncSession, received: Received[RecipientErased]) -> None:
        seen.append(received)
        await emit_and(session, received, None)

    assert await a_consumer(database, handler).receive(Incoming("m", body(), 1)) == Ack()
    assert (seen[0].event.version, seen[0].envelope.id) == (3, UUID(int=2))
    assert await emitted(database) == 1


async def test_what_a_handler_emits_follows_the_trail_of_what_it_heard(database: Database) -> None:
    async def handler(session: AsyncSession, received: Received[RecipientErased]) -> None:
        assert correlation.current().correlation_id == "click-1"
        await emit_and(session, received, None)

    await a_consumer(database, handler).receive(Incoming("m", body(), 1))
    async with database.reading() as session:
        said = json.loads(await session.scalar(select(outbox.outbox.c.body)) or b"")
    assert said["correlationid"] == "click-1"
    assert said["traceparent"] == "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("then", "outcome"),
    [(ValueError("broken"), Retry(RETRY_DELAYS_S[0])), (Retry(5), Retry(5)), (DeadLetter("refused"), Ack())],
)
async def test_whatever_is_not_done_is_rolled_back(
    database: Database, then: Outcome | Exception, outcome: Outcome
) -> None:
    async def handler(session: AsyncSession, received: Received[RecipientErased]) -> Outcome | None:
        return await emit_and(session, received, then)

    assert await a_consumer(database, handler).receive(Incoming("m", body(), 1)) == outcome
    assert await emitted(database) == 0


async def test_f24_a_raising_handler_is_tried_five_times_in_under_two_minutes_and_then_parked(
    database: Database,
) -> None:
    """With the error, the trail of what it heard, and a sum of its body."""

    async def handler(session: AsyncSession, received: Received[RecipientErased]) -> None:
        raise ValueError("always")

    outcomes = [await a_consumer(database, handler).receive(Incoming("m", body(), attempt)) for attempt in range(1, 6)]
    assert outcomes == [*(Retry(delay) for delay in RETRY_DELAYS_S), Ack()]
    assert sum(RETRY_DELAYS_S) < 120
    assert await parked(database) == [("retries_exhausted", "se.budkavle.recipient.erased.v1", 5)]
    async with database.reading() as session:
        (listed,) = await dead_letters.listing(session)
        kept = await dead_letters.find(session, listed["id"])
    assert (kept["detail"], kept["body_sha256"]) == ("ValueError: always", sha256(body()).hexdigest())
    assert json.loads(kept["body"])["traceparent"].startswith("00-4bf92f")


async def test_a_handler_that_asks_again_and_again_gets_no_more_tries(database: Database) -> None:
    async def handler(session: AsyncSession, received: Received[RecipientErased]) -> Outcome:
        return Retry(1)

    assert await a_consumer(database, handler).receive(Incoming("m", body(), 5)) == Ack()
    assert [reason for reason, _, _ in await parked(database)] == ["retries_exhausted"]


async def test_a_fault_that_is_not_the_messages_own_waits_without_counting(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consuming, "PAUSE_S", 0)

    async def handler(session: AsyncSession, received: Received[RecipientErased]) -> None:
        raise OperationalError("select 1", {}, sqlite3.OperationalError("database is locked"))

    for attempt in (1, 5, 50):
        outcome = await a_consumer(database, handler).receive(Incoming("m", body(), attempt))
        assert isinstance(outcome, Retry) and not outcome.counts
    assert await parked(database) == []


async def test_f18_a_handler_that_hangs_is_stopped_and_the_database_is_free_again(database: Database) -> None:
    async def handler(session: AsyncSession, received: Received[RecipientErased]) -> None:
        await emit_and(session, received, None)
        await asyncio.Event().wait()

    hanging = a_consumer(database, handler, limit_s=0.2)
    assert await hanging.receive(Incoming("m", body(), 1)) == Retry(RETRY_DELAYS_S[0])
    assert await hanging.receive(Incoming("m", body(), 5)) == Ack()
    assert await emitted(database) == 0
    assert [reason for reason, _, _ in await parked(database)] == ["retries_exhausted"]


@pytest.mark.parametrize(
    ("raw", "reason", "event_type"),
    [
        (b"", "undecodable", ""),
        (b"\xff\xfe", "undecodable", ""),
        (b"[]", "undecodable", ""),
        (body(id="not.an.id"), "undecodable", ""),
        (body(id=None), "undecodable", ""),
        (body(type=None), "undecodable", ""),
        (body(type=""), "undecodable", ""),
        (body(specversion="0.3"), "undecodable", ""),
        (body(datacontenttype="text/plain"), "undecodable", ""),
        pytest.param(gzip.compress(body()), "undecodable", "", id="packed"),
        pytest.param(b"[" * 100_000, "undecodable", "", id="deep"),
        (body(time="2999-01-01T00:00:00Z"), "from_the_future", "se.budkavle.recipient.erased.v1"),
        pytest.param(b" " * 20_000_000, "too_large", "", id="20 MB"),
        (body(type="se.budkavle.recipient.erased.v2"), "unknown_type", "se.budkavle.recipient.erased.v2"),
        (body(type="se.budkavle.weather.changed.v1"), "unknown_type", "se.budkavle.weather.changed.v1"),
        (body(type="se.budkavle.\ud800"), "undecodable", ""),
        pytest.param(body(type="se.budkavle.\0x"), "unknown_type", "se.budkavle.x", id="NUL"),
        pytest.param(body(type="x" * 9_000), "unknown_type", "x" * 100, id="long"),
        (body(data={"version": 0}), "invalid_data", "se.budkavle.recipient.erased.v1"),
    ],
)
async def test_b36_what_cannot_be_understood_is_parked_at_once(
    database: Database, raw: bytes, reason: str, event_type: str
) -> None:
    async def handler(session: AsyncSession, received: Received[RecipientErased]) -> None:
        raise AssertionError("not to be reached")

    consumer, counted = a_consumer(database, handler), {"queue": DISTRIBUTOR_RECIPIENTS.name, "outcome": "deadletter"}
    before = REGISTRY.get_sample_value("budkavle_messages_total", counted) or 0
    assert await consumer.receive(Incoming("m", raw, 1)) == Ack()
    assert await parked(database) == [(reason, event_type, 1)]
    assert REGISTRY.get_sample_value("budkavle_messages_total", counted) == before + 1


async def test_fields_of_a_newer_producer_are_ignored(database: Database) -> None:
    seen = []

    async def handler(session: AsyncSession, received: Received[RecipientErased]) -> None:
        seen.append(received.event.version)

    data = {"recipient_id": str(UUID(int=1)), "version": 4, "mood": "new", "nested": {"a": [1]}}
    assert await a_consumer(database, handler).receive(Incoming("m", body(data=data, dataschema="x"), 1)) == Ack()
    assert seen == [4]


async def test_a_message_that_comes_twice_is_parked_once(database: Database) -> None:
    async def handler(session: AsyncSession, received: Received[RecipientErased]) -> Outcome:
        return DeadLetter("refused")

    for _ in range(2):
        assert await a_consumer(database, handler).receive(Incoming("m", body(), 1)) == Ack()
    assert len(await parked(database)) == 1


async def test_without_the_store_of_dead_letters_the_broker_keeps_the_message(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consuming, "PAUSE_S", 0)

    async def away(*_arguments: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(dead_letters, "park", away)

    async def handler(session: AsyncSession, received: Received[RecipientErased]) -> Outcome:
        return DeadLetter("refused")

    outcome = await a_consumer(database, handler).receive(Incoming("m", body(), 1))
    assert isinstance(outcome, Retry) and not outcome.counts


async def test_a_dead_letter_is_replayed_once(database: Database) -> None:
    async def handler(session: AsyncSession, received: Received[RecipientErased]) -> Outcome:
        return DeadLetter("refused")

    await a_consumer(database, handler).receive(Incoming("m", body(), 1))
    async with database.reading() as session:
        (letter,) = await dead_letters.listing(session)
        assert (await dead_letters.find(session, letter["id"]))["body"] == body()

    async def replay() -> str:
        try:
            async with database.transaction() as session:
                await dead_letters.replay(session, letter["id"], CLOCK.now())
        except dead_letters.AlreadyReplayed:
            return "refused"
        return "replayed"

    assert sorted(await asyncio.gather(*(replay() for _ in range(5)))) == ["refused"] * 4 + ["replayed"]
    assert await emitted(database) == 1
    async with database.reading() as session:
        assert await dead_letters.listing(session) == []
    with pytest.raises(dead_letters.UnknownDeadLetter):
        async with database.transaction() as session:
            await dead_letters.replay(session, new_id(), CLOCK.now())


async def test_from_five_tries_to_the_dead_letters_and_back_mended(transport: Transport, database: Database) -> None:
    """The whole way, on each transport and each database."""
    tries: list[str] = []

    async def handler(session: AsyncSession, received: Received[RecipientErased]) -> None:
        tries.append(received.envelope.subject)
        if received.envelope.subject == "broken":
            raise ValueError("broken")

    bus = await transport.open()
    await bus.consume(FIRST, a_consumer(database, handler, FIRST).receive)
    async with database.transaction() as session:
        await outbox.redirect(session, FIRST.name, body(subject="broken"), CLOCK.now())
    running = asyncio.create_task(Relay("tests", database, bus, CLOCK).run())
    try:
        await eventually(lambda: _any(parked(database)), within=20)
        assert tries == ["broken"] * 5
        async with database.transaction() as session:
            (letter,) = await dead_letters.listing(session)
            await dead_letters.replay(session, letter["id"], CLOCK.now(), body=body(subject="mended"))
        await eventually(lambda: "mended" in tries)
        assert tries[5:] == ["mended"]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await bus.close()


async def _any(letters: Awaitable[list[tuple[str, str, int]]]) -> bool:
    return bool(await letters)


async def test_what_the_broker_gave_up_is_parked_with_that_reason(database: Database) -> None:
    async def handler(session: AsyncSession, received: Received[RecipientErased]) -> None:
        raise AssertionError("not to be reached")

    receive = a_consumer(database, handler, FIRST).receive
    assert await receive(Incoming("m", body(), 1, given_up=True)) == Ack()
    assert [reason for reason, _, _ in await parked(database)] == ["broker_gave_up"]
