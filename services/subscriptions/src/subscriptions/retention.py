"""Ends what the set time has passed for, by legal basis, once an hour.

Consent: the public audience goes a set time after the person left it, stopped all mail, or became unreachable. Public
task and press register: a set time after the address stopped taking mail; somebody who merely left is remembered, or
the next import would bring them back. Mandates have a time of their own (`rolls.weeding`). Whoever has nothing left is
erased. The history of an erased person goes a set time after the erasure: until then it is the proof.

Each round is one short transaction; a round that dies is done again.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Select, and_, delete, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.clock import Clock
from shared.contracts.news import Audience
from shared.database import Database, among
from shared.tasks import pause
from subscriptions.consent import BASIS_OF, Basis
from subscriptions.erasing import erase
from subscriptions.history import Act, Source
from subscriptions.models import Departure, HistoryRow, Role, Subscriber, rank_of
from subscriptions.stops import UnknownSubscriber, changing
from subscriptions.weeding_log import Weeded, note

log = structlog.get_logger()

ROUND_S = 3600.0
AT_A_TIME = 200


@dataclass(frozen=True, slots=True)
class Kept:
    """How long each is kept after its end."""

    consent: timedelta
    press_register: timedelta
    public_task: timedelta
    history: timedelta

    def of(self, basis: Basis) -> timedelta:
        return {
            Basis.CONSENT: self.consent,
            Basis.PRESS_REGISTER: self.press_register,
            Basis.PUBLIC_TASK: self.public_task,
        }[basis]

    def before(self, basis: Basis, at: datetime) -> datetime:
        """What ended before this goes."""
        return at - self.of(basis)


class RetentionWorker:
    """Looks once an hour; any number of replicas may run."""

    name = "retention"

    def __init__(self, database: Database, clock: Clock, kept: Kept) -> None:
        self._database = database
        self._clock = clock
        self._kept = kept

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if not await self.weed():
                await pause(stop, ROUND_S)

    async def weed(self) -> bool:
        """One round; whether there may be more to end at once."""
        more = [await self._end(basis) for basis in Basis]
        return any([*more, await self._forget_history()])

    async def _end(self, basis: Basis) -> bool:
        now = self._clock.now()
        over = _over(basis, self._kept.before(basis, now)).limit(AT_A_TIME)
        async with self._database.reading() as session:
            if await session.scalar(over) is None:
                return False
        async with self._database.transaction() as session:
            people = (await session.scalars(over)).all()
            erased = [await _end_of(session, subscriber_id, basis, now) for subscriber_id in people]
            await note(session, Weeded(basis), now, len(people), sum(erased))
        log.info("subscriptions_weeded", basis=str(basis), subscriptions=len(people), people=sum(erased))
        return len(people) == AT_A_TIME

    async def _forget_history(self) -> bool:
        gone = HistoryRow.act == Act.ERASED, HistoryRow.at <= self._clock.now() - self._kept.history
        erased = select(HistoryRow.subscriber_id).where(*gone).limit(AT_A_TIME)
        async with self._database.reading() as session:
            if await session.scalar(erased) is None:
                return False
        async with self._database.transaction() as session:
            people = (await session.scalars(erased)).all()
            await session.execute(delete(HistoryRow).where(among(session, HistoryRow.subscriber_id, people)))
            await note(session, Weeded.HISTORY, self._clock.now(), len(people))
        log.info("history_weeded", people=len(people))
        return len(people) == AT_A_TIME


def _over(basis: Basis, before: datetime) -> Select[UUID]:
    """People who have a subscription on this basis that ended before `before`."""
    ended: list[Any] = [Subscriber.suppressed_at <= before]
    if basis is Basis.CONSENT:
        left = and_(Departure.subscriber_id == Role.subscriber_id, Departure.audience_rank == Role.audience_rank)
        ended += [Subscriber.unsubscribed_at <= before, exists().where(left, Departure.left_at <= before)]
    joined = select(Role.subscriber_id).distinct().join(Subscriber, Subscriber.id == Role.subscriber_id)
    return joined.where(Role.audience_rank.in_(_ranks(basis)), or_(*ended)).order_by(Role.subscriber_id)


async def _end_of(session: AsyncSession, subscriber_id: UUID, basis: Basis, at: datetime) -> bool:
    """End what rests on this basis; whether nothing was left, and the person was erased."""
    theirs = Role.subscriber_id == subscriber_id
    try:
        async with changing(session, subscriber_id, at, Source.WEEDING) as person:
            await session.execute(delete(Role).where(theirs, Role.audience_rank.in_(_ranks(basis))))
            person.touched = True
        if await session.scalar(select(exists().where(theirs))):
            return False
        await erase(session, subscriber_id, at, Source.WEEDING)
    except UnknownSubscriber:
        return False
    return True


def _ranks(basis: Basis) -> Sequence[int]:
    return [rank_of(audience) for audience in _audiences(basis)]


def _audiences(basis: Basis) -> Iterable[Audience]:
    return (audience for audience, rests_on in BASIS_OF.items() if rests_on is basis)
