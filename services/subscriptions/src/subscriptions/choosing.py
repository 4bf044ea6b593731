"""What a person chooses on the preference page: audiences, topics, municipalities, how often, a pause, or to leave it
all. Each change is told to the distributor where it stops or resumes mail, and confirmed to the person by mail.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.news import Audience, Locale
from subscriptions import people, suppressions
from subscriptions.frequencies import Frequencies, frequencies_of, put_frequencies
from subscriptions.history import Source
from subscriptions.links import Links
from subscriptions.receipts import confirming
from subscriptions.stops import Person, take_up


@dataclass(frozen=True, slots=True)
class Chosen:
    """The whole page, as it was left; `text_shown` is what the public consents to."""

    audiences: Collection[Audience]
    topics: frozenset[str]
    municipalities: frozenset[str]
    frequencies: Frequencies
    locale: Locale
    paused_until: datetime | None
    text_shown: str


async def choose(session: AsyncSession, links: Links, subscriber_id: UUID, chosen: Chosen, at: datetime) -> None:
    """Save what was chosen. A ticked audience is come back to (the public one is joined, being open to all); one that
    is not ticked is left. Saving the same twice changes nothing.
    """
    async with confirming(session, links, subscriber_id, at, Source.PAGE, text_shown=chosen.text_shown) as person:
        held = await people.audiences_of(session, subscriber_id)
        if Audience.PUBLIC in chosen.audiences and Audience.PUBLIC not in held:
            await people.put_roles(session, [people.public_role(subscriber_id, at, Source.PAGE)])
            person.touched = True
        wanted = set(chosen.audiences)
        person.left = (person.left | (held - wanted)) - wanted
        await _choose_frequencies(session, person, chosen.frequencies)
        row = person.subscriber
        if row.locale != str(chosen.locale):
            row.locale = str(chosen.locale)
        if (row.topics, row.municipalities) != (chosen.topics, chosen.municipalities):
            row.topics, row.municipalities = chosen.topics, chosen.municipalities
        if row.paused_until != chosen.paused_until:
            row.paused_until = chosen.paused_until


async def leave_all(session: AsyncSession, links: Links, subscriber_id: UUID, at: datetime) -> None:
    """No more mail at all, but the one that confirms it."""
    async with confirming(session, links, subscriber_id, at, Source.PAGE) as person:
        person.subscriber.unsubscribed_at = person.subscriber.unsubscribed_at or at


async def begin_again(session: AsyncSession, links: Links, subscriber_id: UUID, at: datetime) -> None:
    """Undo `leave_all`; what was chosen before holds again."""
    async with confirming(session, links, subscriber_id, at, Source.PAGE) as person:
        person.subscriber.unsubscribed_at = None


async def mailbox_works(session: AsyncSession, links: Links, subscriber_id: UUID, at: datetime) -> None:
    """The reader says that mail comes through again; what else stops it stands."""
    async with confirming(session, links, subscriber_id, at, Source.PAGE) as person:
        await suppressions.lift(session, person.subscriber, suppressions.BY_MAILBOX, Source.PAGE, at)


async def leave(
    session: AsyncSession, links: Links, subscriber_id: UUID, audience: Audience | None, at: datetime
) -> None:
    """No more mail to this person in this audience (`None`: at all); nothing happens where it is so already."""
    async with confirming(session, links, subscriber_id, at, Source.UNSUBSCRIBE_LINK) as person:
        if audience is None:
            person.subscriber.unsubscribed_at = person.subscriber.unsubscribed_at or at
        else:
            person.left.add(audience)


async def come_back(
    session: AsyncSession, links: Links, subscriber_id: UUID, audience: Audience | None, at: datetime
) -> None:
    """Undo `leave`, whatever else was ended meanwhile."""
    async with confirming(session, links, subscriber_id, at, Source.UNSUBSCRIBE_LINK) as person:
        if audience is None:
            person.subscriber.unsubscribed_at = None
        else:
            await take_up(session, person, audience)


async def _choose_frequencies(session: AsyncSession, person: Person, chosen: Frequencies) -> None:
    subscriber_id = person.subscriber.id
    before = (await frequencies_of(session, [subscriber_id])).get(subscriber_id, {})
    await put_frequencies(session, subscriber_id, chosen)
    after = (await frequencies_of(session, [subscriber_id])).get(subscriber_id, {})
    person.touched = person.touched or before != after
