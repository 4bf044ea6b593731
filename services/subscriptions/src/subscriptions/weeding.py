"""Removes what is not needed any more: sign-ups that nobody confirmed, changes of address that had their week, counts
of hours that are over, and sessions of the office that have ended.

Each round is one short transaction; any number of replicas may run, since a row is deleted once. A round that dies is
done again: the next one finds what is left. What goes is logged as a count, never by name.
"""

import asyncio
from datetime import datetime

import structlog
from sqlalchemy import ColumnElement, delete, exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.clock import Clock
from shared.database import Database, among
from shared.tasks import pause
from subscriptions import address_changes
from subscriptions.forgetting import forget
from subscriptions.limits import HOUR
from subscriptions.models import SignUp, Tally
from subscriptions.office import sessions
from subscriptions.office.sessions import Lasting
from subscriptions.signing_up import KEPT
from subscriptions.weeding_log import Weeded, note

log = structlog.get_logger()

ROUND_S = 60.0
AT_A_TIME = 500


class Weeder:
    """Looks once a minute."""

    name = "weeding"

    def __init__(self, database: Database, clock: Clock, lasting: Lasting) -> None:
        self._database = database
        self._clock = clock
        self._lasting = lasting

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if not await self.weed():
                await pause(stop, ROUND_S)

    async def weed(self) -> bool:
        """One round; whether there may be more to remove at once."""
        now = self._clock.now()
        async with self._database.reading() as session:
            if not await _has_weeds(session, self._lasting, now):
                return False
        async with self._database.transaction() as session:
            await session.execute(delete(Tally).where(Tally.hour <= now - HOUR))
            expired = await _drop_sign_ups(session, now)
            await note(session, Weeded.SIGN_UPS, now, expired)
            await sessions.weed(session, self._lasting, now)
            moved = await address_changes.expired(session, now, limit=AT_A_TIME)
            await address_changes.drop(session, moved, now)
        if expired:
            log.info("sign_ups_expired", count=expired)
        return AT_A_TIME in (expired, len(moved))


async def _has_weeds(session: AsyncSession, lasting: Lasting, now: datetime) -> bool:
    over = exists().where(Tally.hour <= now - HOUR)
    expired = exists().where(*_unconfirmed(now))
    if await session.scalar(select(over | expired | exists().where(sessions.over(lasting, now)))):
        return True
    return bool(await address_changes.expired(session, now, limit=1))


async def _drop_sign_ups(session: AsyncSession, now: datetime) -> int:
    """Unconfirmed for a week: gone here, and told, so that the distributor forgets the address it mailed."""
    oldest = select(SignUp.id).where(*_unconfirmed(now)).order_by(SignUp.asked_at).limit(AT_A_TIME)
    ids = list(await session.scalars(oldest))
    mine = (among(session, SignUp.id, ids), *_unconfirmed(now))
    gone = await session.scalars(delete(SignUp).where(*mine).returning(SignUp.id))
    count = 0
    for sign_up_id in gone.all():
        await forget(session, sign_up_id, now)
        count += 1
    return count


def _unconfirmed(now: datetime) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return SignUp.asked_at <= now - KEPT, SignUp.subscriber_id.is_(None)
