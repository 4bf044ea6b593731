"""Publishes what is due: the publish call that an editor made ahead is carried out at its time.

Each item is one transaction, by the use case of the call itself. The row is held, and changes only from the version
that was read: of two workers one publishes it, and one that dies on the way has changed nothing. What is due is the
database's to say, since two machines' clocks differ.

An item that comes up to `LATE` after its time is published all the same. After that a person should look first: a
machine that slept over the weekend, or a database put back from a backup, must not send the morning's news in the
evening. The item is unscheduled, its `missed_at` tells the editor, and a line in the log the operator. An item that
cannot be published, though it could when it was scheduled, is tried until then, and holds up no other.
"""

import asyncio
from datetime import timedelta
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from content import repository
from content.models import Item
from content.publishing import UNSCHEDULED, Act, publish
from shared.clock import Clock
from shared.correlation import Correlation, correlated
from shared.database import Database, instant, is_transient
from shared.tasks import pause

log = structlog.get_logger()

LATE = timedelta(hours=1)
"""Longer than a restart or a mended database takes, and shorter than news of the morning stays that."""
POLL_S = 1.0
REST_S = 5.0
"""After a look at which something could not be published."""
AT_ONCE = 50


class ScheduleWorker:
    """Looks once a second. Any number of replicas may run."""

    name = "schedule"

    def __init__(self, database: Database, clock: Clock, site: str) -> None:
        self._database = database
        self._clock = clock
        self._site = site

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await pause(stop, POLL_S if await self.advance() else REST_S)

    async def advance(self) -> bool:
        """Carry out what is due; whether all of it could be."""
        async with self._database.reading() as session:
            due = await repository.due(session, self._database.now(), limit=AT_ONCE)
        return all([await self._safely(item_id) for item_id in due])

    async def _safely(self, item_id: UUID) -> bool:
        try:
            async with self._database.transaction() as session:
                await self._carry_out(session, item_id)
        except Exception as error:
            if is_transient(error):
                raise
            log.error("scheduled_item_failed", item_id=str(item_id), exc_info=error)
            return False
        return True

    async def _carry_out(self, session: AsyncSession, item_id: UUID) -> None:
        item = await repository.take_due(session, item_id, self._database.now())
        if item is None or item.publish_at is None:
            return  # another worker was faster, or an editor
        now = await instant(session, self._clock)
        with correlated(Correlation(str(item.correlation_id), item.traceparent)):
            if now - item.publish_at > LATE:
                await _miss(session, item)
            else:
                # Nobody edits what is scheduled: who changed it last is who scheduled it.
                await publish(session, item.id, Act(item.changed_by, now, self._site))


async def _miss(session: AsyncSession, item: Item) -> None:
    await repository.change(session, item, **{**UNSCHEDULED, "missed_at": item.publish_at})
    log.error("schedule_missed", item_id=str(item.id), publish_at=str(item.publish_at))
