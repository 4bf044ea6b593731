"""
The embedded transport: a durable queue in one SQLite file, for the standalone deployment.

One row per message and bound queue, written in one transaction: publication is confirmed by the commit, and a message
that no queue takes is refused. Each queue is drained by a task of its own, so that a poisoned handler or a long one
holds up no other queue. The file belongs to one process at a time (a lock beside it sees to that), so whatever was
leased when it is opened was in the hands of a process that died, and is due again at once.
"""

import asyncio
import fcntl
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Boolean, Column, Index, Integer, LargeBinary, MetaData, String, Table, delete, select, update

from shared.clock import Clock, SystemClock
from shared.database import Database, Instant
from shared.messaging.bus import DIRECT, Ack, Incoming, Message, Receive, Retry, Unroutable
from shared.messaging.topology import QUEUES, Queue, matches

log = structlog.get_logger()

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
    Column("due_at", Instant, nullable=False),
    Column("leased", Boolean, nullable=False, default=False),
)
Index("ix_queued_messages_queue_due_at", queued.c.queue, queued.c.due_at, queued.c.id)


class FileInUse(Exception):
    """Another process has the bus's file open."""


class EmbeddedBus:
    """The bus in a file."""

    def __init__(self, path: Path, *, clock: Clock | None = None, queues: Sequence[Queue] = QUEUES) -> None:
        self._path = path
        self._clock = clock or SystemClock()
        self._queues = queues
        self._database = Database(f"sqlite+aiosqlite:///{path}", clock=self._clock)
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
            await session.execute(update(queued).where(queued.c.leased).values(leased=False))

    async def publish(self, messages: Sequence[Message]) -> list[Exception | None]:
        rows: list[dict[str, Any]] = []
        results: list[Exception | None] = []
        for message in messages:
            names = self._route(message)
            rows.extend(self._row(name, message) for name in names)
            results.append(None if names else Unroutable(f"{message.exchange}/{message.routing_key}"))
        if rows:
            async with self._database.transaction() as session:
                await session.execute(queued.insert(), rows)
        for name in {row["queue"] for row in rows}:
            self._wakes[name].set()
        return results

    async def consume(self, queue: Queue, receive: Receive) -> None:
        task = asyncio.create_task(self._drain_queue(queue, receive), name=f"bus {queue.name}")
        self._tasks.append(task)

    def is_ready(self) -> bool:
        return self._lock is not None

    async def depths(self) -> dict[str, int]:
        """How many messages each queue holds."""
        async with self._database.reading() as session:
            names = list(await session.scalars(select(queued.c.queue)))
        return {queue.name: names.count(queue.name) for queue in self._queues}

    async def drain(self) -> None:
        self._draining = True
        for wake in self._wakes.values():
            wake.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._database.dispose()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _route(self, message: Message) -> list[str]:
        if message.exchange == DIRECT:
            return [queue.name for queue in self._queues if queue.name == message.routing_key]
        return [
            queue.name
            for queue in self._queues
            if queue.exchange == message.exchange and any(matches(key, message.routing_key) for key in queue.keys)
        ]

    def _row(self, name: str, message: Message) -> dict[str, Any]:
        return {
            "queue": name,
            "message_id": message.message_id,
            "body": message.body,
            "attempt": 1,
            "due_at": self._clock.now(),
            "leased": False,
        }

    async def _drain_queue(self, queue: Queue, receive: Receive) -> None:
        wake = self._wakes[queue.name]
        while not self._draining:
            wake.clear()
            try:
                if not await self._take_one(queue, receive):
                    await asyncio.wait_for(wake.wait(), POLL_S)
            except TimeoutError:
                continue
            except Exception as error:  # noqa: BLE001 - the queue's file may be unwritable for a while
                log.warning("bus_queue_failed", queue=queue.name, error=type(error).__name__)
                await asyncio.sleep(POLL_S)

    async def _take_one(self, queue: Queue, receive: Receive) -> bool:
        async with self._database.transaction() as session:
            row = (await session.execute(self._next(queue))).first()
            if row is None:
                return False
            await session.execute(update(queued).where(queued.c.id == row.id).values(leased=True))
        outcome = await receive(Incoming(row.message_id, row.body, row.attempt))
        await self._answer(row.id, row.attempt, outcome)
        return True

    def _next(self, queue: Queue) -> Any:
        due = queued.c.due_at <= self._clock.now()
        mine = (queued.c.queue == queue.name, ~queued.c.leased, due)
        return select(queued).where(*mine).order_by(queued.c.due_at, queued.c.id).limit(1)

    async def _answer(self, row_id: int, attempt: int, outcome: Ack | Retry) -> None:
        row = queued.c.id == row_id
        async with self._database.transaction() as session:
            if isinstance(outcome, Ack):
                await session.execute(delete(queued).where(row))
                return
            due_at = self._clock.now() + timedelta(seconds=outcome.delay_s)
            again = {"leased": False, "attempt": attempt + int(outcome.counts), "due_at": due_at}
            await session.execute(update(queued).where(row).values(**again))


def _lock_file(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise FileInUse(f"{path.parent} is in use by another Budkavle") from error
    return handle
