"""Undoing one change: the fields that it changed get back what they held before it, whatever changed since.

Undoing is a change of its own, with its row and its receipt, and can be undone. It happens once: the row that undoes
is unique for what it undoes.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.news import Audience
from subscriptions import history, people
from subscriptions.frequencies import Frequency, put_frequencies
from subscriptions.history import AUDIENCE, GETS, Act, Change, Source
from subscriptions.links import Links
from subscriptions.models import Subscriber
from subscriptions.receipts import confirming
from subscriptions.stops import Person, UnknownSubscriber

UNDOABLE = frozenset({Act.JOINED, Act.CHANGED, Act.UNDONE})
BY_THE_PERSON = frozenset({Source.SIGN_UP, Source.PAGE, Source.UNSUBSCRIBE_LINK, Source.UNDO})


@dataclass(frozen=True, slots=True)
class Undoing:
    """A change that can be, or has been, undone, and whose it is."""

    change: Change
    subscriber: Subscriber
    is_undone: bool


def can_undo(change: Change) -> bool:
    """Whether the person may undo it: their own doing, and not what the office or a mail server did."""
    return change.act in UNDOABLE and change.source in BY_THE_PERSON and bool(change.before)


async def look(session: AsyncSession, change_id: UUID, generation: int) -> Undoing:
    """What the link is about; `UnknownSubscriber` where the person is gone, has ended their links since, or there is
    no such change.
    """
    change = await history.change(session, change_id)
    subscriber = await people.subscriber(session, change.subscriber_id) if change else None
    if change is None or subscriber is None or not can_undo(change) or subscriber.generation != generation:
        raise UnknownSubscriber
    return Undoing(change, subscriber, await history.is_undone(session, change_id))


async def undo(session: AsyncSession, links: Links, undoing: Undoing, at: datetime) -> None:
    """Undo it, unless that has been done."""
    change = undoing.change
    async with confirming(
        session, links, change.subscriber_id, at, Source.UNDO, act=Act.UNDONE, undoes_id=change.id
    ) as person:
        if await history.is_undone(session, change.id):  # asked under the person's lock
            raise AlreadyUndone
        person.noted = True
        for field, value in change.before.items():
            await _put_back(session, person, field, value)


class AlreadyUndone(Exception):
    """Somebody was faster, perhaps the same finger."""


async def _put_back(session: AsyncSession, person: Person, field: str, value: Any) -> None:
    subscriber = person.subscriber
    if field.startswith(AUDIENCE):
        await _put_back_audience(session, person, Audience(field.removeprefix(AUDIENCE)), value)
    elif field in ("topics", "municipalities"):
        setattr(subscriber, field, frozenset(value))
    elif field == "frequencies":
        await put_frequencies(session, subscriber.id, {topic: Frequency(often) for topic, often in value.items()})
        person.touched = True
    elif field == "locale":
        subscriber.locale = value
    elif field == "paused_until":
        subscriber.paused_until = datetime.fromisoformat(value) if value else None
    elif field == "unsubscribed":
        subscriber.unsubscribed_at = person.at if value else None
    elif field == "suppressed" and value:  # the reader's word takes the place of the server's
        subscriber.unsubscribed_at = subscriber.unsubscribed_at or person.at


async def _put_back_audience(session: AsyncSession, person: Person, audience: Audience, value: str | None) -> None:
    """A public role that has gone meanwhile comes back; no other is the person's to take."""
    if value != GETS:
        person.left.add(audience)
        return
    person.left.discard(audience)
    if audience is Audience.PUBLIC:
        await people.put_roles(session, [people.public_role(person.subscriber.id, person.at, Source.UNDO)])
