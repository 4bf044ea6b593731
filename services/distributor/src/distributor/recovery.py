"""The sweeper: takes over what dead senders held, says what is stuck.

It alarms when something is broken, not when it is busy: deliveries that have been due for a minute while no sender
process lives.
"""

import asyncio
import time
from collections import Counter
from datetime import datetime, timedelta

import structlog
from prometheus_client import Counter as Metric
from prometheus_client import Gauge

from distributor import leases, restored
from distributor.settings import DistributorSettings
from distributor.states import UNCERTAIN
from shared.clock import Clock
from shared.database import Database, instant
from shared.tasks import pause

log = structlog.get_logger()

SWEEP_EVERY_S = 5.0
CHUNK = 500
UNSEEING_S = 10.0
"""After so long without a sweep the database was away, and no sender could renew its lease either."""
STUCK_AFTER = timedelta(seconds=60)
SKEW_BORNE = timedelta(seconds=30)

uncertain_total = Metric("budkavle_deliveries_uncertain_total", "Deliveries in doubt after a sender's death")
clock_skew = Gauge("budkavle_clock_skew_seconds", "How far this machine's clock is ahead of the database's")
oldest_due = Gauge("budkavle_oldest_due_seconds", "How long the longest waiting due delivery has waited")


async def succeed(database: Database) -> None:
    """Begin where a process that died left off: what it held is taken over by the first sweep, not after its lease.

    Only for who has the database to himself, and before anything is sent.
    """
    async with database.transaction(quiet=True) as session:
        await leases.forget_all(session)


class RecoveryWorker:
    """Sweeps."""

    name = "recovery"

    def __init__(self, database: Database, clock: Clock, settings: DistributorSettings) -> None:
        self._database = database
        self._clock = clock
        self._repeated_lanes = settings.repeated_lanes
        self._swept_at: float | None = None
        self._stuck = False
        self._skewed = False

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep until `stop`."""
        while not stop.is_set():
            await self._let_others_renew(stop)
            while await self.take_over():
                pass
            await self._tidy()
            await self._note_place()
            await self._look_for_stuck()
            self._swept_at = time.monotonic()
            await pause(stop, SWEEP_EVERY_S)

    async def _let_others_renew(self, stop: asyncio.Event) -> None:
        """When the database comes back, senders with mail on its way out shall not be taken for dead."""
        if self._swept_at is not None and time.monotonic() - self._swept_at > UNSEEING_S:
            await self._database.ping()
            await pause(stop, leases.RENEW_EVERY_S + 1)

    async def take_over(self) -> int:
        """Free one chunk of what dead senders held; returns how many."""
        async with self._database.transaction(quiet=True) as session:
            freed = await leases.take_over(session, self._database, repeated_lanes=self._repeated_lanes, limit=CHUNK)
        if freed:
            states = Counter(row.state for row in freed)
            uncertain_total.inc(states[UNCERTAIN])
            log.warning("deliveries_taken_over", deliveries=len(freed), uncertain=states[UNCERTAIN])
            self._database.wake()
        return len(freed)

    async def _tidy(self) -> None:
        async with self._database.transaction(quiet=True) as session:
            await leases.forget_dead(session, self._database)

    async def _note_place(self) -> None:
        async with self._database.transaction(quiet=True) as session:
            restored.waits.set(not await restored.may_send(session, self._database))

    async def _look_for_stuck(self) -> None:
        async with self._database.reading() as session:
            since = await leases.longest_waiting(session)
            alive = await leases.anyone_alive(session, self._database)
            now = await instant(session, self._clock)
        self._compare(now)
        waited = max(now - since, timedelta(0)) if since else timedelta(0)
        oldest_due.set(waited.total_seconds())
        stuck = waited > STUCK_AFTER and not alive
        if stuck and not self._stuck:
            log.error("deliveries_stuck", waited_s=int(waited.total_seconds()), reason="no sender is running")
        self._stuck = stuck

    def _compare(self, now: datetime) -> None:
        """Leases and due times are the database's; what a wrong clock of ours spoils is the time on a webhook, which
        its receiver refuses when it is five minutes off.
        """
        skew = self._clock.now() - now
        clock_skew.set(skew.total_seconds())
        skewed = abs(skew) > SKEW_BORNE
        if skewed and not self._skewed:
            log.error("clock_wrong", ahead_s=round(skew.total_seconds()))
        self._skewed = skewed
