"""Stops: somebody pauses, leaves, unsubscribes, is suppressed or erased, and the distributor hears of it.

Every change to a subscriber goes through `changing`: it locks the row, compares how the person stood before and after,
and tells of the difference in the same transaction, so that what is not sent yet is not sent. Each event has a version
of its own, which grows per subscriber; doing the same thing twice changes nothing and tells nothing.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import delete, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.mail import RecipientResumed, RecipientStopped, StopScope
from shared.contracts.news import STRONGEST_FIRST, Audience
from shared.database import insert_ignoring
from shared.messaging.outbox import emit
from subscriptions import suppressions
from subscriptions.history import AUDIENCE, GETS, Act, Change, Source, differing, record, standing_of
from subscriptions.models import Departure, Subscriber, rank_of
from subscriptions.people import audiences_of

SOURCE = "subscriptions"
FOR_EVER = datetime.max.replace(tzinfo=UTC)


class UnknownSubscriber(Exception):
    """There is no such subscriber, or there is none any more."""


@dataclass(slots=True)
class Person:
    """A subscriber under change, and the audiences that they have left."""

    subscriber: Subscriber
    at: datetime
    left: set[Audience] = field(default_factory=set)
    touched: bool = False
    """Set it where something beside the row changed (a role, say), so that the version grows."""
    noted: bool = False
    """Set it where the history must tell of it though no field of the standing differs."""
    change: Change | None = None
    """What the history has of it, once the block has ended."""

    def stopped_until(self, at: datetime) -> datetime | None:
        """When mail may flow again: `None` means now, `FOR_EVER` not until somebody says so."""
        subscriber = self.subscriber
        if subscriber.unsubscribed_at is not None or subscriber.suppressed_at is not None:
            return FOR_EVER
        if subscriber.paused_until is not None and subscriber.paused_until > at:
            return subscriber.paused_until
        return None


@asynccontextmanager
async def changing(
    session: AsyncSession,
    subscriber_id: UUID,
    at: datetime,
    source: Source,
    *,
    act: Act = Act.CHANGED,
    undoes_id: UUID | None = None,
    text_shown: str = "",
) -> AsyncIterator[Person]:
    """Lock a subscriber, change them in the block, tell of what stopped or resumed, and write the history.
    `UnknownSubscriber` where gone.
    """
    person = await locked(session, subscriber_id, at)
    stopped_before, left_before = person.stopped_until(at), frozenset(person.left)
    stood = await standing_of(session, person.subscriber, left_before)
    yield person
    await suppressions.lift_what_ended(session, person.subscriber, stood, source, at)
    before, after = differing(stood, await standing_of(session, person.subscriber, person.left))
    if after or person.noted:
        consented = after.get(f"{AUDIENCE}{Audience.PUBLIC}") == GETS
        person.change = await record(
            session,
            subscriber_id,
            at,
            act=act,
            source=source,
            before=before,
            after=after,
            undoes_id=undoes_id,
            text_shown=text_shown if consented else "",
        )
    events = [
        *_about_all(person, stopped_before, person.stopped_until(at)),
        *_about_audiences(person, left_before),
    ]
    if person.touched or events or inspect(person.subscriber).modified:
        person.subscriber.version += max(len(events), 1)
    await _write_departures(session, person, left_before, at)
    first = person.subscriber.version - len(events) + 1
    for version, event in enumerate(events, start=first):
        versioned = event.model_copy(update={"version": version})
        await emit(session, versioned, source=SOURCE, subject=subscriber_id, at=at)
    await session.flush()


async def take_up(session: AsyncSession, person: Person, audience: Audience) -> None:
    """Mail to this audience flows again. Where everything had been ended, nothing else begins with it."""
    if person.subscriber.unsubscribed_at is not None:
        person.left |= await audiences_of(session, person.subscriber.id)
        person.subscriber.unsubscribed_at = None
    person.left.discard(audience)


async def locked(session: AsyncSession, subscriber_id: UUID, at: datetime) -> Person:
    """A subscriber that nobody else changes until this transaction has ended; `UnknownSubscriber` where gone."""
    mine = select(Subscriber).where(Subscriber.id == subscriber_id).with_for_update()
    subscriber = await session.scalar(mine.execution_options(populate_existing=True))
    if subscriber is None:
        raise UnknownSubscriber
    ranks = await session.scalars(select(Departure.audience_rank).where(Departure.subscriber_id == subscriber_id))
    return Person(subscriber, at, {STRONGEST_FIRST[rank] for rank in ranks})


def _about_all(
    person: Person, before: datetime | None, after: datetime | None
) -> Iterator[RecipientStopped | RecipientResumed]:
    if before == after:
        return
    recipient_id = person.subscriber.id
    if after is None:
        yield RecipientResumed(recipient_id=recipient_id, scope=StopScope.ALL, version=1)
    else:
        until = None if after == FOR_EVER else after
        yield RecipientStopped(recipient_id=recipient_id, scope=StopScope.ALL, version=1, until=until)


def _about_audiences(person: Person, before: frozenset[Audience]) -> Iterator[RecipientStopped | RecipientResumed]:
    recipient_id = person.subscriber.id
    for audience in sorted(person.left - before):
        yield RecipientStopped(recipient_id=recipient_id, scope=StopScope.AUDIENCE, audience=audience, version=1)
    for audience in sorted(before - person.left):
        yield RecipientResumed(recipient_id=recipient_id, scope=StopScope.AUDIENCE, audience=audience, version=1)


async def _write_departures(session: AsyncSession, person: Person, before: frozenset[Audience], at: datetime) -> None:
    recipient_id = person.subscriber.id
    table = Departure.__table__
    rows = [
        {"subscriber_id": recipient_id, "audience_rank": rank_of(audience), "left_at": at}
        for audience in person.left - before
    ]
    if rows:
        await session.execute(insert_ignoring(session, table).values(rows))  # type: ignore[arg-type]
    back = [rank_of(audience) for audience in before - person.left]
    if back:
        mine = (Departure.subscriber_id == recipient_id, Departure.audience_rank.in_(back))
        await session.execute(delete(Departure).where(*mine))
