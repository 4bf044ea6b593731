"""Removes those whose mandate has been over for the set time, and who are nothing else to us.

Their roles go first; whoever has no role left is erased, here and (by event) in the delivery ledger. Somebody who holds
another role, or a subscription, stays. Each round is one short transaction with some hundred people; a round that dies
is done again, and two workers at once share, since a role is deleted once.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import delete, exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.clock import Clock
from shared.contracts.news import Audience
from shared.database import Database, among
from shared.tasks import pause
from shared.web.dates import STOCKHOLM
from subscriptions import people
from subscriptions.erasing import erase
from subscriptions.history import AUDIENCE, GETS, LEFT, Act, Source, record
from subscriptions.models import Role, Subscriber, rank_of
from subscriptions.stops import UnknownSubscriber
from subscriptions.weeding_log import Weeded, note

log = structlog.get_logger()

ROUND_S = 600.0
AT_A_TIME = 200


class RollWeeder:
    """Looks every ten minutes; `kept` is how long after a mandate's last day its holder is remembered."""

    name = "roll weeding"

    def __init__(self, database: Database, clock: Clock, kept: timedelta) -> None:
        self._database = database
        self._clock = clock
        self._kept = kept

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if not await self.weed():
                await pause(stop, ROUND_S)

    async def weed(self) -> bool:
        """One round; whether there may be more to remove at once."""
        now = self._clock.now()
        async with self._database.reading() as session:
            if not await self._over(session, now):
                return False
        async with self._database.transaction() as session:
            mandates, erased = await self._remove(session, await self._over(session, now), now)
            await note(session, Weeded.MANDATES, now, mandates, erased)
        log.info("mandates_weeded", mandates=mandates, people=erased)
        return mandates >= AT_A_TIME

    async def _over(self, session: AsyncSession, now: datetime) -> Sequence[UUID]:
        last_kept = now.astimezone(STOCKHOLM).date() - self._kept
        over = (Role.audience_rank == rank_of(Audience.POLITICIAN), Role.mandate_until < last_kept)
        return (await session.scalars(select(Role.id).where(*over).order_by(Role.id).limit(AT_A_TIME))).all()

    async def _remove(self, session: AsyncSession, role_ids: Sequence[UUID], now: datetime) -> tuple[int, int]:
        removed = await session.scalars(
            delete(Role).where(among(session, Role.id, role_ids)).returning(Role.subscriber_id)
        )
        holders = removed.all()
        erased = 0
        for subscriber_id in sorted(set(holders)):
            if await _is_needed(session, subscriber_id):
                await _write_down(session, subscriber_id, now)
                continue
            with contextlib.suppress(UnknownSubscriber):
                await erase(session, subscriber_id, now, Source.WEEDING)
                erased += 1
        return len(holders), erased


async def _is_needed(session: AsyncSession, subscriber_id: UUID) -> bool:
    """Whether there is a role left; asked with the row locked, so that nobody gives another one meanwhile."""
    await session.execute(select(Subscriber.id).where(Subscriber.id == subscriber_id).with_for_update())
    return bool(await session.scalar(select(exists().where(Role.subscriber_id == subscriber_id))))


async def _write_down(session: AsyncSession, subscriber_id: UUID, now: datetime) -> None:
    """The history of somebody who stays says when they were no representative any more."""
    elected, field = Audience.POLITICIAN, f"{AUDIENCE}{Audience.POLITICIAN}"
    if elected in await people.audiences_of(session, subscriber_id):
        return
    left = elected in (await people.left_by(session, [subscriber_id]))[subscriber_id]
    stood, stands = {field: LEFT if left else GETS}, {field: None}
    await record(session, subscriber_id, now, act=Act.CHANGED, source=Source.WEEDING, before=stood, after=stands)
