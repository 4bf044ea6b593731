"""Removes invitations that nobody answered in time, and changes that are too old to be undone.

Each round is one short transaction; a row is deleted once, so any number of workers may run.
"""

import asyncio
from datetime import datetime, timedelta

import structlog
from sqlalchemy import delete, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.clock import Clock
from shared.database import Database, among
from shared.tasks import pause
from subscriptions.forgetting import forget
from subscriptions.groups.models import GroupChange, Invitation
from subscriptions.weeding_log import Weeded, note

log = structlog.get_logger()

ROUND_S = 600.0
AT_A_TIME = 200
CHANGES_KEPT = timedelta(days=365)


class GroupWeeder:
    """Looks every ten minutes."""

    name = "group weeding"

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if not await self.weed():
                await pause(stop, ROUND_S)

    async def weed(self) -> bool:
        """One round; whether there may be more to remove at once."""
        now = self._clock.now()
        over = exists().where(Invitation.expires_at <= now)
        old = exists().where(GroupChange.at <= now - CHANGES_KEPT)
        async with self._database.reading() as session:
            if not await session.scalar(select(or_(over, old))):
                return False
        async with self._database.transaction() as session:
            await session.execute(delete(GroupChange).where(GroupChange.at <= now - CHANGES_KEPT))
            ended = await _drop(session, now)
            await note(session, Weeded.INVITATIONS, now, ended)
        if ended:
            log.info("invitations_expired", count=ended)
        return ended == AT_A_TIME


async def _drop(session: AsyncSession, now: datetime) -> int:
    """Those that were not answered: gone here, and the distributor forgets the address that it mailed."""
    oldest = select(Invitation.id).where(Invitation.expires_at <= now).order_by(Invitation.expires_at).limit(AT_A_TIME)
    ids = list(await session.scalars(oldest))
    gone = await session.execute(
        delete(Invitation).where(among(session, Invitation.id, ids)).returning(Invitation.id, Invitation.subscriber_id)
    )
    rows = gone.all()
    for invitation_id, subscriber_id in rows:
        if subscriber_id is None:
            await forget(session, invitation_id, now)
    return len(rows)
