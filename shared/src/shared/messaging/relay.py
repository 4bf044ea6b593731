"""The relay: carries outbox rows to the broker, marks them once the broker has confirmed.

It dies safely at any step: a row whose lease ran out is published again under the same id, and consumers count on
that. It wakes on every commit of its own process and looks once a second for what other processes left behind.
"""

import asyncio
from datetime import timedelta

import structlog
from prometheus_client import Counter, Gauge

from shared import idempotency
from shared.clock import Clock
from shared.database import Database
from shared.messaging import outbox
from shared.messaging.bus import Bus, BusUnavailable, Message, Unroutable
from shared.tasks import pause

log = structlog.get_logger()

BATCH = 50
LEASE = timedelta(seconds=3.5)
"""Longer than a publication may take (the transports give up after 3 s); with the look once a second, another relay has
taken over within five seconds of a death."""
POLL_S = 1.0
PAUSE_AFTER_FAILURE_S = 1.0
PURGE_EVERY_S = 3600.0
PURGE_CHUNK = 100
"""A batch of five hundred recipients weighs some 300 kB: many of them in one transaction would keep SQLite's only
writer from everybody else. One chunk after each look at what waits, so that nothing new waits for the purge; twice as
many as are published in that time, so that it gets done."""

published_total = Counter("budkavle_outbox_published_total", "Events that the broker confirmed", ["service"])
failed_total = Counter("budkavle_outbox_failed_total", "Publications that failed and will be repeated", ["service"])
waiting_seconds = Gauge("budkavle_outbox_waiting_seconds", "Age of the oldest event that waits", ["service"])
unroutable = Gauge("budkavle_outbox_unroutable", "1 while the broker has no queue for an event that waits", ["service"])
blocked = Gauge("budkavle_broker_blocked", "1 while the broker takes no events", ["service"])


class Relay:
    """Publishes one service's outbox."""

    def __init__(
        self, service: str, database: Database, bus: Bus, clock: Clock, *, retention: timedelta = outbox.KEPT
    ) -> None:
        self._service = service
        self._database = database
        self._bus = bus
        self._clock = clock
        self._retention = retention
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._failing = False
        self._unroutable: set[str] = set()
        database.on_commit(self._wake.set)

    def stop(self) -> None:
        """Let `run` end when what is at hand is settled. A statement that is cancelled costs its connection instead."""
        self._stopping.set()
        self._wake.set()

    async def run(self) -> None:
        """Publish until stopped or cancelled."""
        now = asyncio.get_running_loop().time
        purge_at = now()
        while not self._stopping.is_set():
            self._wake.clear()
            carried = await self._carry_safely()
            if now() >= purge_at and await self._purge_safely() < PURGE_CHUNK:
                purge_at = now() + PURGE_EVERY_S
            if carried is None or self._failing:
                await pause(self._stopping, PAUSE_AFTER_FAILURE_S)
            elif carried == 0 and not self._stopping.is_set():
                await pause(self._wake, POLL_S)

    async def carry(self) -> int:
        """Publish one batch; returns how many rows were claimed. Raises where the database does not answer.

        It looks before it claims: a claim is a commit, and every commit of this process wakes the relay.
        """
        async with self._database.reading() as session:
            pending = await outbox.pending(session, self._database)
        self._observe(pending)
        if not pending.claimable:
            return 0
        async with self._database.transaction(quiet=True) as session:
            messages = await outbox.claim(session, self._database, limit=BATCH, lease=LEASE)
        if messages:
            await self._settle(messages, await self._bus.publish(messages))
        return len(messages)

    def _observe(self, pending: outbox.Pending) -> None:
        age = (self._clock.now() - pending.oldest_at).total_seconds() if pending.oldest_at else 0.0
        waiting_seconds.labels(self._service).set(age)
        if pending.oldest_at is None:  # another relay may have carried what we could not
            blocked.labels(self._service).set(0)
            self._note_unroutable(set())
            self._failing = False

    async def _settle(self, messages: list[Message], results: list[Exception | None]) -> None:
        settlement = outbox.Settlement()
        for message, failure in zip(messages, results, strict=True):
            settlement.add(message.message_id, failure)
        async with self._database.transaction() as session:
            await outbox.settle(session, self._database, settlement, at=self._clock.now())
        published_total.labels(self._service).inc(len(settlement.published))
        tried = {message.message_id: failure for message, failure in zip(messages, results, strict=True)}
        refused = {key for key, failure in tried.items() if isinstance(failure, Unroutable)}
        self._note_unroutable(self._unroutable - tried.keys() | refused)
        self._tell([failure for failure in results if failure])

    def _note_unroutable(self, events: set[str]) -> None:
        """They are offered again from time to time, and meanwhile others get away."""
        self._unroutable = events
        unroutable.labels(self._service).set(bool(events))

    def _tell(self, failures: list[Exception]) -> None:
        failed_total.labels(self._service).inc(len(failures))
        blocked.labels(self._service).set(any(isinstance(failure, BusUnavailable) for failure in failures))
        if failures and not self._failing:
            error, detail = type(failures[0]).__name__, str(failures[0])
            log.warning("outbox_publish_failed", waiting=len(failures), error=error, detail=detail)
        if self._failing and not failures:
            log.info("outbox_publish_resumed")
        self._failing = bool(failures)

    async def _carry_safely(self) -> int | None:
        try:
            return await self.carry()
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise
            return None  # a connection was given up; nobody asked us to stop
        except Exception as error:  # noqa: BLE001 - a relay that dies loses nothing but stops everything
            log.warning("outbox_relay_failed", error=type(error).__name__)
            return None

    async def _purge_safely(self) -> int:
        try:
            async with self._database.transaction(quiet=True) as session:
                await idempotency.purge(session, self._clock.now())
                purged = await outbox.purge(session, self._clock.now() - self._retention, PURGE_CHUNK)
            await self._database.tidy()
        except Exception as error:  # noqa: BLE001
            log.warning("outbox_purge_failed", error=type(error).__name__)
            return 0
        return purged
