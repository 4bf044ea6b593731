"""What a database does to one service, by the numbers of docs/reliability.md (F27 to F33). What it does to the whole
system is in `tests/resilience/test_database_faults.py`."""

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import Column, Integer, MetaData, Table, event, make_url, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from tests.eventually import eventually
from tests.servers.proxy import TcpProxy

from shared import database as databases
from shared import problems
from shared.clock import SystemClock
from shared.contracts.envelope import Envelope
from shared.contracts.mail import RecipientErased
from shared.database import Database, plumbing
from shared.ids import new_id
from shared.messaging import consumer as consuming
from shared.messaging import dead_letters, outbox
from shared.messaging.bus import Ack, Incoming, Retry
from shared.messaging.consumer import Consumer, Received
from shared.messaging.topology import DISTRIBUTOR_RECIPIENTS

CLOCK = SystemClock()
ANSWERED_WITHIN_S = 5.0
TRIED_AGAIN = 3
counters = Table("counters", MetaData(), Column("id", Integer, primary_key=True), Column("value", Integer))
concurrently = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def counted(database: Database) -> Database:
    """A database with two counters at nought."""
    async with database.engine.begin() as connection:
        await connection.run_sync(counters.create)
        await connection.execute(counters.insert(), [{"id": 1, "value": 0}, {"id": 2, "value": 0}])
    return database


async def values(database: Database) -> list[int]:
    async with database.reading() as session:
        return list(await session.scalars(select(counters.c.value).order_by(counters.c.id)))


async def raise_counter(session: AsyncSession, key: int) -> None:
    await session.execute(update(counters).where(counters.c.id == key).values(value=counters.c.value + 1))


def incoming(subject: str = "x") -> Incoming:
    envelope = Envelope.wrap(
        RecipientErased(recipient_id=UUID(int=1), version=3),
        event_id=new_id(),
        source="/tests",
        subject=subject,
        time=datetime.now(UTC),
        correlation_id="c",
    )
    return Incoming(str(envelope.id), envelope.model_dump_json().encode(), 1)


def site(database: Database, act: Callable[[AsyncSession], Any]) -> httpx2.AsyncClient:
    """One path, which does `act` in a transaction."""
    app = FastAPI()
    problems.install(app)

    @app.post("/")
    async def post() -> dict[str, str]:
        async with database.transaction() as session:
            await act(session)
        return {}

    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://tests", timeout=30)


def told_to_wait(answer: httpx2.Response) -> bool:
    assert answer.headers["content-type"] == problems.CONTENT_TYPE
    return answer.status_code == 503 and bool(int(answer.headers["retry-after"])) and "code" in json.loads(answer.text)


@concurrently
@pytest.mark.parametrize("isolation", ["READ COMMITTED", "SERIALIZABLE"])
async def test_f30_two_messages_that_get_in_each_other_s_way_are_both_handled_at_once(
    counted: Database, isolation: str
) -> None:
    """Two transactions cross: a deadlock ends one, or one cannot be serialized. It is done again, three times at most."""
    both, tries = asyncio.Barrier(2), []

    async def handler(session: AsyncSession, received: Received[RecipientErased]) -> None:
        subject = received.envelope.subject
        tries.append(subject)
        await session.execute(text(f"SET TRANSACTION ISOLATION LEVEL {isolation}"))
        first, second = (1, 2) if subject == "one" else (2, 1)
        await raise_counter(session, first)
        if len(tries) <= 2:
            await both.wait()
        await raise_counter(session, second)

    consumer = Consumer(DISTRIBUTOR_RECIPIENTS, counted, CLOCK, {RecipientErased: handler})
    answers = await asyncio.gather(consumer.receive(incoming("one")), consumer.receive(incoming("two")))
    assert answers == [Ack(), Ack()]
    assert await values(counted) == [2, 2]
    assert 3 <= len(tries) <= 2 * (1 + TRIED_AGAIN)


@concurrently
async def test_f30_who_loses_each_time_is_tried_four_times_and_then_waits_without_counting(
    counted: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole transaction each time: nothing of those that lost is kept."""
    monkeypatch.setattr(consuming, "PAUSE_S", 0)
    tries = []

    async def handler(session: AsyncSession, received: Received[RecipientErased]) -> None:
        tries.append(received)
        await raise_counter(session, 1)
        await session.execute(text("DO $$ BEGIN RAISE 'lost' USING ERRCODE = 'deadlock_detected'; END $$"))

    consumer = Consumer(DISTRIBUTOR_RECIPIENTS, counted, CLOCK, {RecipientErased: handler})
    outcome = await consumer.receive(incoming())
    assert isinstance(outcome, Retry)
    assert not outcome.counts
    assert len(tries) == 1 + TRIED_AGAIN
    assert await values(counted) == [0, 0]


@concurrently
async def test_f29_connections_to_what_is_only_a_standby_now_are_given_up(counted: Database) -> None:
    """Nobody cuts them when another server is promoted: they would refuse every write for as long as they are kept."""
    async with counted.engine.connect() as first, counted.engine.connect() as second:
        for connection in (first, second):
            await connection.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
            await connection.commit()
    async with site(counted, lambda session: raise_counter(session, 1)) as client:
        assert told_to_wait(await client.post("/"))
        assert (await client.post("/")).status_code == 200
    assert await values(counted) == [1, 0]


@concurrently
async def test_f30_two_requests_that_get_in_each_other_s_way_are_no_error_of_ours(counted: Database) -> None:
    """The loser is told to come again, and then it is done: an Idempotency-Key makes that safe."""
    both = asyncio.Barrier(2)
    order = iter([(1, 2), (2, 1)])

    async def crossing(session: AsyncSession) -> None:
        first, second = next(order)
        await raise_counter(session, first)
        await both.wait()
        await raise_counter(session, second)

    async with site(counted, crossing) as api:
        answers = await asyncio.gather(api.post("/"), api.post("/"))
    assert sorted(answer.status_code for answer in answers) == [200, 503]
    assert told_to_wait(max(answers, key=lambda answer: answer.status_code))
    assert await values(counted) == [1, 1]


@pytest.fixture
async def narrow(database_url: str, database: Database) -> AsyncIterator[Database]:
    """At most two connections."""
    opened = Database(database_url, pool_size=1)
    yield opened
    await opened.dispose()


@concurrently
async def test_f31_when_every_connection_is_taken_all_are_told_soon(
    narrow: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consuming, "PAUSE_S", 0)

    async def handler(session: AsyncSession, received: Received[RecipientErased]) -> None:
        """It never gets so far."""

    async def act(session: AsyncSession) -> None:
        """It never gets so far."""

    consumer = Consumer(DISTRIBUTOR_RECIPIENTS, narrow, CLOCK, {RecipientErased: handler})
    async with narrow.transaction(), narrow.transaction(), site(narrow, act) as api:
        began = time.monotonic()
        answer, outcome = await asyncio.gather(api.post("/"), consumer.receive(incoming()))
        assert time.monotonic() - began < ANSWERED_WITHIN_S
    assert told_to_wait(answer)
    assert isinstance(outcome, Retry)
    assert not outcome.counts, "it is not the message's own fault"
    async with site(narrow, act) as api:
        assert (await api.post("/")).status_code == 200


async def test_f27_while_there_is_no_server_all_wait_and_nothing_counts(
    free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consuming, "PAUSE_S", 0)

    async def nothing(*_: object) -> None:
        """It never gets so far."""

    gone = Database(f"postgresql://budkavle@127.0.0.1:{free_port}/gone")
    consumer = Consumer(DISTRIBUTOR_RECIPIENTS, gone, CLOCK, {RecipientErased: nothing})
    async with site(gone, nothing) as api:
        assert told_to_wait(await api.post("/"))
    outcome = await consumer.receive(incoming())
    assert isinstance(outcome, Retry)
    assert not outcome.counts
    await gone.dispose()


@concurrently
async def test_f28_a_server_that_hangs_keeps_nobody_waiting(database: Database, database_url: str) -> None:
    """Neither whoever takes a connection out of the pool nor whoever makes a new one; afterwards all is as before."""

    async def act(session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))

    with TcpProxy(make_url(database_url).port) as link:
        hung = Database(make_url(database_url).set(port=link.port).render_as_string(hide_password=False), pool_size=1)
        async with site(hung, act) as api:
            assert (await api.post("/")).status_code == 200
            link.hold()
            began = time.monotonic()
            answers = await asyncio.gather(*(api.post("/") for _ in range(4)))
            slowest = time.monotonic() - began
            assert all(map(told_to_wait, answers))
            print(f"measured: answered within {slowest:.2f} s")
            assert slowest < ANSWERED_WITHIN_S
            link.release()
            await eventually(lambda: _works(api))
        await hung.dispose()


async def _works(api: httpx2.AsyncClient) -> bool:
    return (await api.post("/")).status_code == 200


@contextlib.asynccontextmanager
async def full_disk(database: Database) -> AsyncIterator[None]:
    """The outbox cannot grow: the database says what it says when the disk is full."""
    on_postgresql = database.engine.dialect.name != "sqlite"
    async with _refusing_growth(database) if on_postgresql else _of_no_more_pages(database):
        yield


@contextlib.asynccontextmanager
async def _refusing_growth(database: Database) -> AsyncIterator[None]:
    full = "BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END"
    async with database.engine.begin() as connection:
        await connection.execute(text(f"CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $${full}$$"))
        await connection.execute(text("CREATE TRIGGER no_room BEFORE INSERT ON outbox EXECUTE FUNCTION no_room()"))
    yield
    async with database.engine.begin() as connection:
        await connection.execute(text("DROP TRIGGER no_room ON outbox"))


@contextlib.asynccontextmanager
async def _of_no_more_pages(database: Database) -> AsyncIterator[None]:
    async with database.engine.connect() as connection:
        pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar_one()

    def limit(connection: Any, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    def unlimit(connection: Any, *_: object) -> None:
        connection.execute("PRAGMA max_page_count=4294967294")

    event.listen(database.engine.sync_engine, "checkout", limit)
    yield
    event.remove(database.engine.sync_engine, "checkout", limit)
    event.listen(database.engine.sync_engine, "checkout", unlimit)


async def test_f32_while_the_disk_is_full_nothing_is_half_kept(
    counted: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers are told to come again, messages wait without using up a try, and all goes on as soon as there is room."""
    monkeypatch.setattr(consuming, "PAUSE_S", 0)

    async def act(session: AsyncSession, _: object = None) -> None:
        await raise_counter(session, 1)
        row = {"id": new_id(), "exchange": "x", "routing_key": "x", "body": bytes(100_000), "created_at": CLOCK.now()}
        await session.execute(outbox.outbox.insert(), row)

    consumer = Consumer(DISTRIBUTOR_RECIPIENTS, counted, CLOCK, {RecipientErased: act})
    async with site(counted, act) as api:
        async with full_disk(counted):
            assert told_to_wait(await api.post("/"))
            outcome = await consumer.receive(incoming())
            assert isinstance(outcome, Retry)
            assert not outcome.counts
            assert await values(counted) == [0, 0]
        assert (await api.post("/")).status_code == 200
        assert await consumer.receive(incoming()) == Ack()
    assert await values(counted) == [2, 0]


@on_sqlite
async def test_f33_a_file_that_somebody_else_locks_is_waited_for_and_is_no_error_of_ours(
    counted: Database, database_url: str
) -> None:
    """Another process writes in it: we wait our turn; where that takes too long, the caller is told to come again."""
    path = Path(make_url(database_url).database or "")

    async def act(session: AsyncSession) -> None:
        await raise_counter(session, 1)

    async with counted.engine.connect() as connection:
        await connection.exec_driver_sql("PRAGMA busy_timeout=300")
    async with site(counted, act) as api:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert told_to_wait(await api.post("/"))
            assert await values(counted) == [0, 0], "readers do not wait for writers"
            waiting = asyncio.create_task(api.post("/"))
            await asyncio.wait({waiting}, timeout=0.05)
            other.execute("COMMIT")
            assert (await waiting).status_code == 200
    assert await values(counted) == [1, 0]


@pytest.fixture
async def plumbed(database: Database) -> Database:
    async with database.engine.begin() as connection:
        await connection.run_sync(plumbing.create_all)
    return database


@on_sqlite
async def test_f33_messages_wait_for_a_locked_file_without_using_up_their_tries(
    plumbed: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consuming, "PAUSE_S", 0)
    path = Path(make_url(database_url).database or "")

    async def handler(session: AsyncSession, received: Received[RecipientErased]) -> None:
        await session.execute(text("DELETE FROM dead_letters"))

    async with plumbed.engine.connect() as connection:
        await connection.exec_driver_sql("PRAGMA busy_timeout=100")
    consumer = Consumer(DISTRIBUTOR_RECIPIENTS, plumbed, CLOCK, {RecipientErased: handler})
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        outcome = await consumer.receive(incoming())
        other.execute("ROLLBACK")
    assert isinstance(outcome, Retry)
    assert not outcome.counts
    assert await consumer.receive(incoming()) == Ack()
    async with plumbed.reading() as session:
        assert await dead_letters.listing(session) == []


def test_whoever_waits_for_a_connection_gives_up_before_the_caller_does() -> None:
    assert databases.POOL_WAIT_S < databases.ANSWER_S < ANSWERED_WITHIN_S
