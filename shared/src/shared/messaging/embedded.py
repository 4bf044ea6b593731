"""The embedded transport: a durable queue in one SQLite file, for the standalone deployment.

One row per message and bound queue, written in one transaction: publication is confirmed by the commit, and a message
that no queue takes is refused. Each queue is drained by a task of its own, so that a poisoned handler or a long one
holds up no other queue. Messages are leased a batch at a time and their answers written together by one task, so that
a message costs a fraction of a transaction.

The file belongs to one process at a time (a lock beside it sees to that), so whatever was leased when it is opened
was in the hands of a process that died, and is due again at once. It is then taken alone: a message that kills its
process again and again drags no neighbour along, and is given up after as many deaths as RabbitMQ would allow.
"""

import asyncio
import fcntl
import os
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import (
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    RowMapping,
    String,
    Table,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from shared.clock import Clock, SystemClock
from shared.database import EPOCH, Database, Instant
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

    async def publish(self, messages: Sequence[Message]) -> list[Exception | None]:
        if not self.is_ready():
            return [BusUnavailable("the bus is not open") for _ in messages]
        routes = [self._route(message) for message in messages]
        try:
            await self._write(
                [
                    {"queue": name, "message_id": message.message_id, "body": message.body}
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
        await end(self._tasks)
        self._tasks.clear()
        await self._answers.close()
        if self._lock is not None:
            with suppress(Exception):  # then the next start takes them for orphans: no more than one death too many
                await self._release()
            os.close(self._lock)
            self._lock = None
        await self._database.dispose()

    async def _release(self) -> None:
        async with self._database.transaction() as session:
            await session.execute(update(queued).where(queued.c.leased).values(leased=False))

    def _route(self, message: Message) -> list[str]:
        if message.exchange == DIRECT:
            return [queue.name for queue in self._queues if queue.name == message.routing_key]
        return [
            queue.name
            for queue in self._queues
            if queue.exchange == message.exchange and any(matches(key, message.routing_key) for key in queue.keys)
        ]

    async def _write(self, rows: list[dict[str, Any]]) -> None:
        if rows:
            async with self._database.transaction() as session:
                await session.execute(queued.insert(), rows)

    async def _drain_queue(self, queue: Queue, receive: Receive) -> None:
        wake = self._wakes[queue.name]
        while not self._draining:
            wake.clear()
            try:
                due_in_s = await self._due_in(queue)
                if due_in_s > 0:
                    await pause(wake, due_in_s)
                    continue
                for row in await self._lease(queue):
                    if self._draining:  # the rest is given back when the bus closes
                        return
                    await self._hand_over(row, receive)
            except Exception as error:  # noqa: BLE001 - the queue's file may be unwritable for a while
                log.warning("bus_queue_failed", queue=queue.name, error=type(error).__name__)
                await asyncio.sleep(POLL_S)

    async def _due_in(self, queue: Queue) -> float:
        """Seconds until the queue has something to give, as far as is known; at most one poll."""
        async with self._database.reading() as session:
            earliest = select(func.min(queued.c.due_at)).where(queued.c.queue == queue.name, ~queued.c.leased)
            due_at: datetime | None = await session.scalar(earliest)
        return POLL_S if due_at is None else min((due_at - self._clock.now()).total_seconds(), POLL_S)

    async def _lease(self, queue: Queue) -> list[RowMapping]:
        mine = (queued.c.queue == queue.name, ~queued.c.leased, queued.c.due_at <= self._clock.now())
        async with self._database.transaction() as session:
            head = select(queued.c.id, queued.c.deaths, func.length(queued.c.body).label("size"))
            found = await session.execute(head.where(*mine).order_by(queued.c.id).limit(BATCH))
            ids = _safe_together(_within(BATCH_BYTES, found.all()))
            leased = update(queued).where(queued.c.id.in_(ids)).values(leased=True).returning(queued)
            rows = list((await session.execute(leased)).mappings()) if ids else []
        return sorted(rows, key=lambda row: int(row["id"]))

    async def _hand_over(self, row: RowMapping, receive: Receive) -> None:
        given_up = row["deaths"] > BROKER_DELIVERY_LIMIT
        outcome = await answered(receive, Incoming(row["message_id"], row["body"], row["attempt"], given_up))
        if isinstance(outcome, Ack):
            self._answers.acknowledge(row["id"])
            return
        again = self._clock.now() + timedelta(seconds=outcome.delay_s * self._retry_pace)
        attempt = row["attempt"] + int(outcome.counts)
        self._answers.put_back(row["id"], _Again(attempt, again, self._wakes[row["queue"]]))


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
        async with self._database.transaction() as session:
            await _record(session, done, again)
        del self._done[: len(done)]
        for row_id, waiting in again.items():
            del self._again[row_id]
            waiting.wake.set()
        if not self._done and not self._again:
            self._clean.set()


async def _record(session: AsyncSession, done: list[int], again: dict[int, _Again]) -> None:
    if done:
        await session.execute(delete(queued).where(queued.c.id.in_(done)))
    for row_id, waiting in again.items():
        row = update(queued).where(queued.c.id == row_id)
        await session.execute(row.values(leased=False, deaths=0, attempt=waiting.attempt, due_at=waiting.due_at))


def _within(limit: int, head: Sequence[Any]) -> Sequence[Any]:
    """The first of `head`, and of those behind it as many as are not larger than `limit` together."""
    together = list(accumulate(row.size for row in head))
    return head[: max(bisect_right(together, limit), 1)]


def _safe_together(head: Sequence[Any]) -> list[int]:
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
