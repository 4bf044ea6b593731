"""What a person chooses on the preference page: audiences, topics, municipalities, a pause, or to leave it all."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.news import Audience
from subscriptions import people
from subscriptions.stops import changing


@dataclass(frozen=True, slots=True)
class Chosen:
    """The whole page, as it was left."""

    audiences: Collection[Audience]
    topics: frozenset[str]
    municipalities: frozenset[str]
    paused_until: datetime | None


async def choose(session: AsyncSession, subscriber_id: UUID, chosen: Chosen, at: datetime) -> None:
    """Save what was chosen. A ticked audience is come back to (the public one is joined, being open to all); one that
    is not ticked is left. Saving the same twice changes nothing.
    """
    async with changing(session, subscriber_id, at) as person:
        held = await people.audiences_of(session, subscriber_id)
        if Audience.PUBLIC in chosen.audiences and Audience.PUBLIC not in held:
            await people.put_roles(session, [people.role_values(subscriber_id, Audience.PUBLIC, None)])
            person.touched = True
        wanted = set(chosen.audiences)
        person.left = (person.left | (held - wanted)) - wanted
        row = person.subscriber
        if (row.topics, row.municipalities) != (chosen.topics, chosen.municipalities):
            row.topics, row.municipalities = chosen.topics, chosen.municipalities
        if row.paused_until != chosen.paused_until:
            row.paused_until = chosen.paused_until


async def leave_all(session: AsyncSession, subscriber_id: UUID, at: datetime) -> None:
    """No more mail at all."""
    async with changing(session, subscriber_id, at) as person:
        person.subscriber.unsubscribed_at = person.subscriber.unsubscribed_at or at


async def begin_again(session: AsyncSession, subscriber_id: UUID, at: datetime) -> None:
    """Undo `leave_all`; what was chosen before holds again."""
    async with changing(session, subscriber_id, at) as person:
        person.subscriber.unsubscribed_at = None
