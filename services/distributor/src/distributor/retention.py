"""The retention job: what is no longer needed is dropped, a little at a time, and said in one line a run.

It runs once a day, in chunks of a few hundred rows with a breath between them, so that it is never in a sender's way
and holds no lock for long. It may be killed anywhere and run in several processes: see `weeding` for what it drops and
when. Counts stay for ever, so that reach of the oldest item answers and adds up; a correction to an item whose readers
are forgotten says how many could not be told.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from distributor import erasing, weeding
from distributor.settings import DistributorSettings
from distributor.weeding import FORGET, FORGET_REQUESTS, WEED, Rule, Start
from shared.clock import Clock
from shared.database import Database, instant
from shared.messaging import dead_letters
from shared.tasks import pause

log = structlog.get_logger()

RUN_EVERY_S = 86_400.0
LOOK_EVERY_S = 60.0
BREATH_S = 0.02
"""Between two chunks: the senders come first."""

Chunk = Callable[[AsyncSession], Awaitable[int]]


class RetentionWorker:
    """Drops what is no longer kept."""

    name = "retention"

    def __init__(self, database: Database, clock: Clock, settings: DistributorSettings) -> None:
        self._database = database
        self._clock = clock
        self._personal = timedelta(days=settings.personal_data_days)
        self._requests = timedelta(days=min(settings.request_days, settings.personal_data_days))
        self._ledger = timedelta(days=settings.ledger_days)

    async def run(self, stop: asyncio.Event) -> None:
        """Once at the start and then every day, until `stop`; erasures are looked at again every minute."""
        waited = RUN_EVERY_S
        while not stop.is_set():
            await self.settle_erasures()
            if waited >= RUN_EVERY_S:
                await self.weed(stop)
                waited = 0.0
            await pause(stop, LOOK_EVERY_S)
            waited += LOOK_EVERY_S

    async def settle_erasures(self) -> None:
        """Do erasures once more whose second look is due."""
        again = True
        while again:
            async with self._database.transaction(quiet=True) as session:
                again = await erasing.erase_again(session, self._clock.now())

    async def weed(self, stop: asyncio.Event) -> Counter[str]:
        """One run through all that is old enough; returns what was dropped."""
        now = self._clock.now()
        personal, ledger = now - self._personal, now - self._ledger
        dropped: Counter[str] = Counter()
        dropped["requests_forgotten"] = await self._walk(FORGET_REQUESTS, now - self._requests, stop)
        dropped["forgotten"] = await self._walk(FORGET, personal, stop)
        dropped["weeded"] = await self._walk(WEED, ledger, stop)
        dropped["stops"] = await self._all(lambda session: weeding.weed_stops(session, ledger, weeding.CHUNK), stop)
        dropped["dead_letters"] = await self._all(
            lambda session: dead_letters.purge(session, personal, weeding.CHUNK), stop
        )
        if dropped.total():
            log.info("ledger_weeded", **dropped)
        return dropped

    async def _walk(self, rule: Rule, before: datetime, stop: asyncio.Event) -> int:
        after: Start | None = None
        dropped = 0
        while not stop.is_set():
            async with self._database.transaction(quiet=True) as session:
                now = await instant(session, self._clock)
                step = await weeding.step(session, rule, after=after, before=before, at=now)
            if step is None:
                break
            dropped += step.dropped
            after = step.passed or after
            await pause(stop, BREATH_S if step.dropped else 0.0)
        return dropped

    async def _all(self, chunk: Chunk, stop: asyncio.Event) -> int:
        dropped = 0
        while not stop.is_set():
            async with self._database.transaction(quiet=True) as session:
                gone = await chunk(session)
            dropped += gone
            if gone < weeding.CHUNK:
                break
            await pause(stop, BREATH_S)
        return dropped
