"""The embedded transport: a durable queue in one SQLite file, for the standalone deployment.

One row per message and bound queue, written in one transaction: publication is confirmed by the commit, and a message
that no queue takes is refused. Each queue is drained by a task of its own, so that a poisoned handler or a long one
holds up no other queue. Messages are leased a batch at a time and their answers written together by one task, so that
a message costs a fraction of a transaction. Each such transaction is one visit to a thread: these few statements lie on
the way of everything that is sent.

The file belongs to one process at a time (a lock beside it sees to that), so whatever was leased when it is opened
was in the hands of a process that died, and is due again at once. It is then taken alone: a message that kills its
process again and again drags no neighbour along, and is given up after as many deaths as RabbitMQ would allow.
"""

import asyncio
import fcntl
import json
import os
import sqlite3
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate, takewhile
from pathlib import Path
from typing import NamedTuple

import structlog
from sqlalchemy import Boolean, Column, Index, Integer, LargeBinary, MetaData, String, Table, func, select, update

from shared.clock import Clock, SystemClock
from shared.database import EPOCH, MICROSECOND, Database, Instant
from shared.messaging.bus import DIRECT, Ack, BusUnavailable, Incoming, Message, Receive, Unroutable, answered
from shared.messaging.topology import BROKER_DELIVERY_LIMIT, QUEUES, Queue, matches
from shared.tasks import end, pause

log = structlog.get_logger()

BATCH = 50
"""Messages leased at once. Few, because a crash hands them out once more."""

BATCH_BYTES = 1_000_000
"""Their bodies together, for they are held in memory: three batches of 500 recipients, say. One at least is leased."""

POLL_S = 1.0
"""The longest that a message whose wait is over lies unnoticed."""

IDLE_S = 10.0
"""How long a queue without any message is left alone: whoever gives it one wakes it, for nobody else has the file."""

TIDY_EVERY_S = 3600.0

metadata = MetaData()
queued = Table(
    "queued_messages",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("queue", String, nullable=False),
    Column("message_id", String, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("attempt", Integer, nullable=False, default=1),
    Column("deaths", Integer, nullable=False, default=0),  # processes that died with it in their hands
    # The epoch until a wait is due: a clock that steps back must not hide what was never to wait.
    Column("due_at", Instant, nullable=False, default=EPOCH),
    Column("leased", Boolean, nullable=False, default=False),
)
Index("ix_queued_messages_queue_leased_id_due_at", queued.c.queue, queued.c.leased, queued.c.id, queued.c.due_at)

PUT = """INSERT INTO queued_messages (queue, message_id, body, attempt, deaths, due_at, leased)
    VALUES (?, ?, ?, 1, 0, 0, 0)"""
HEAD = """SELECT id, deaths, length(body) FROM queued_messages
    WHERE queue = ? AND leased = 0 AND due_at <= ? ORDER BY id LIMIT ?"""
LEASE = """UPDATE queued_messages SET leased = 1 WHERE id IN (SELECT value FROM json_each(?))
    RETURNING id, message_id, body, attempt, deaths"""
NEXT_DUE = "SELECT min(due_at) FROM queued_messages WHERE queue = ? AND leased = 0"
RELEASE = "UPDATE queued_messages SET leased = 0 WHERE leased = 1"
DONE = "DELETE FROM queued_messages WHERE id IN (SELECT value FROM json_each(?))"
AGAIN = "UPDATE queued_messages SET leased = 0, deaths = 0, attempt = ?, due_at = ? WHERE id = ?"


class FileInUse(Exception):
    """Another process has the bus's file open."""


class EmbeddedBus:
    """The bus in a file. `retry_pace` stretches the waits before a retry; tests make them short."""

    def __init__(
        self, path: Path, *, clock: Clock | None = None, queues: Sequence[Queue] = QUEUES, retry_pace: float = 1.0
    ) -> None:
        self._path = path
        self._clock = clock or SystemClock()
        self._queues = queues
        self._retry_pace = retry_pace
        self._database = Database(f"sqlite+aiosqlite:///{path}", clock=self._clock)
        self._answers = _Answers(self._database)
        self._tasks: list[asyncio.Task[None]] = []
        self._wakes = {queue.name: asyncio.Event() for queue in queues}
        self._draining = False
        self._lock: int | None = None
        self._tidying: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._lock is not None:
            return
        self._lock = _lock_file(self._path.with_suffix(".lock"))
        async with self._database.engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        async with self._database.transaction() as session:
            orphaned = update(queued).where(queued.c.leased)
            await session.execute(orphaned.values(leased=False, deaths=queued.c.deaths + 1))
        self._answers.start()
        self._tidying = asyncio.create_task(self._tidy(), name="bus tidying")

    async def publish(self, messages: Sequence[Message]) -> list[Exception | None]:
        if not self.is_ready():
            return [BusUnavailable("the bus is not open") for _ in messages]
        routes = [self._route(message) for message in messages]
        try:
            await self._write(
                [
                    (name, message.message_id, message.body)
                    for message, names in zip(messages, routes, strict=True)
                    for name in names
                ]
            )
        except Exception as error:  # noqa: BLE001 - a full disk, say: nothing was kept
            return [BusUnavailable(type(error).__name__) for _ in messages]
        for name in {name for names in routes for name in names}:
            self._wakes[name].set()
        return [
            None if names else Unroutable(f"{message.exchange}/{message.routing_key}")
            for message, names in zip(messages, routes, strict=True)
        ]

    async def consume(self, queue: Queue, receive: Receive) -> None:
        task = asyncio.create_task(self._drain_queue(queue, receive), name=f"bus {queue.name}")
        self._tasks.append(task)

    def is_ready(self) -> bool:
        return self._lock is not None

    async def depths(self) -> dict[str, int]:
        """How many messages each queue holds, those in hand included."""
        async with self._database.reading() as session:
            rows = await session.execute(select(queued.c.queue, func.count()).group_by(queued.c.queue))
            counted = {name: int(count) for name, count in rows}
        return {queue.name: counted.get(queue.name, 0) for queue in self._queues}

    async def drain(self) -> None:
        self._draining = True
        for wake in self._wakes.values():
            wake.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._answers.written()

    async def close(self) -> None:
        await end([*self._tasks, *([self._tidying] if self._tidying else [])])
        self._tasks.clear()
        await self._answers.close()
        if self._lock is not None:
            with suppress(Exception):  # then the next start takes them for orphans: no more than one death too many
                await self._release()
            os.close(self._lock)
            self._lock = None
        await self._database.dispose()

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_EVERY_S)
            with suppress(Exception):  # a disk that is full now is not in an hour
                await self._database.tidy()

    async def _release(self) -> None:
        await self._database.at_once(lambda connection: connection.execute(RELEASE))

    def _route(self, message: Message) -> list[str]:
        if message.exchange == DIRECT:
            return [queue.name for queue in self._queues if queue.name == message.routing_key]
        return [
            queue.name
            for queue in self._queues
            if queue.exchange == message.exchange and any(matches(key, message.routing_key) for key in queue.keys)
        ]

    async def _write(self, rows: list[tuple[str, str, bytes]]) -> None:
        if rows:
            await self._database.at_once(lambda connection: connection.executemany(PUT, rows))

    async def _drain_queue(self, queue: Queue, receive: Receive) -> None:
        wake = self._wakes[queue.name]
        while not self._draining:
            wake.clear()
            try:
                rows, due_at = await self._lease(queue)
                for row in rows:
                    if self._draining:  # the rest is given back when the bus closes
                        return
                    await self._hand_over(queue, row, receive)
                if not rows:
                    await pause(wake, self._wait_s(due_at))
            except Exception as error:  # noqa: BLE001 - the queue's file may be unwritable for a while
                log.warning("bus_queue_failed", queue=queue.name, error=type(error).__name__)
                await asyncio.sleep(POLL_S)

    def _wait_s(self, due_at: int | None) -> float:
        """Seconds until the queue has something to give, as far as is known; the clock may be set meanwhile."""
        return IDLE_S if due_at is None else min(max(due_at - self._now(), 0) / 1e6, POLL_S)

    def _now(self) -> int:
        return _stored(self._clock.now())

    async def _lease(self, queue: Queue) -> tuple[list["_Leased"], int | None]:
        """What is due, a batch of it; else when something will be."""
        now = self._now()

        def take(connection: sqlite3.Connection) -> tuple[list[_Leased], int | None]:
            head = [_Waiting(*row) for row in connection.execute(HEAD, (queue.name, now, BATCH))]
            if not head:
                return [], connection.execute(NEXT_DUE, (queue.name,)).fetchone()[0]
            ids = _safe_together(_within(BATCH_BYTES, head))
            return sorted(_Leased(*row) for row in connection.execute(LEASE, (json.dumps(ids),))), None

        return await self._database.at_once(take)

    async def _hand_over(self, queue: Queue, row: "_Leased", receive: Receive) -> None:
        given_up = row.deaths > BROKER_DELIVERY_LIMIT
        outcome = await answered(receive, Incoming(row.message_id, row.body, row.attempt, given_up))
        if isinstance(outcome, Ack):
            self._answers.acknowledge(row.id)
            return
        again = self._clock.now() + timedelta(seconds=outcome.delay_s * self._retry_pace)
        attempt = row.attempt + int(outcome.counts)
        self._answers.put_back(row.id, _Again(attempt, again, self._wakes[queue.name]))


class _Waiting(NamedTuple):
    """What decides whether a message is leased."""

    id: int
    deaths: int
    size: int


class _Leased(NamedTuple):
    """A message in hand. By id, they are in the order in which they came."""

    id: int
    message_id: str
    body: bytes
    attempt: int
    deaths: int


@dataclass(frozen=True, slots=True)
class _Again:
    """When a message is due once more, and whom to tell that it waits."""

    attempt: int
    due_at: datetime
    wake: asyncio.Event


class _Answers:
    """Writes what became of the messages. Those that come while one commit is under way go into the next together.
    What cannot be written is kept and tried again: until then its messages stay leased and are handed out to nobody.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._done: list[int] = []
        self._again: dict[int, _Again] = {}
        self._news = asyncio.Event()
        self._clean = asyncio.Event()
        self._clean.set()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="bus answers")

    def acknowledge(self, row_id: int) -> None:
        self._done.append(row_id)
        self._tell()

    def put_back(self, row_id: int, again: _Again) -> None:
        self._again[row_id] = again
        self._tell()

    async def written(self) -> None:
        """Wait until everything that was answered is on disk."""
        await self._clean.wait()

    async def close(self) -> None:
        if self._task is None:
            return
        self._closing = True
        self._news.set()
        _, late = await asyncio.wait([self._task], timeout=POLL_S)
        await end(late)
        with suppress(Exception):  # on a full disk the messages come again
            await self._write_all()

    def _tell(self) -> None:
        self._clean.clear()
        self._news.set()

    async def _run(self) -> None:
        while not self._closing:
            await self._news.wait()
            self._news.clear()
            try:
                await self._write_all()
            except Exception as error:  # noqa: BLE001 - the disk may be full for a while
                log.warning("bus_answers_failed", error=type(error).__name__, waiting=len(self._done))
                await asyncio.sleep(POLL_S)
                self._news.set()

    async def _write_all(self) -> None:
        done, again = list(self._done), dict(self._again)
        await self._database.at_once(lambda connection: _record(connection, done, again))
        del self._done[: len(done)]
        for row_id, waiting in again.items():
            del self._again[row_id]
            waiting.wake.set()
        if not self._done and not self._again:
            self._clean.set()


def _record(connection: sqlite3.Connection, done: list[int], again: dict[int, _Again]) -> None:
    if done:
        connection.execute(DONE, (json.dumps(done),))
    put_back = [(waiting.attempt, _stored(waiting.due_at), row_id) for row_id, waiting in again.items()]
    connection.executemany(AGAIN, put_back)


def _stored(at: datetime) -> int:
    """As `Instant` stores it."""
    return (at - EPOCH) // MICROSECOND


def _within(limit: int, head: Sequence[_Waiting]) -> Sequence[_Waiting]:
    """The first of `head`, and of those behind it as many as are not larger than `limit` together."""
    together = list(accumulate(row.size for row in head))
    return head[: max(bisect_right(together, limit), 1)]


def _safe_together(head: Sequence[_Waiting]) -> list[int]:
    """The ids to lease: up to the first that a process has died of, and that one alone."""
    if head and head[0].deaths:
        return [head[0].id]
    return [row.id for row in takewhile(lambda row: not row.deaths, head)]


def _lock_file(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise FileInUse(f"{path.parent} is in use by another Budkavle") from error
    return handle
