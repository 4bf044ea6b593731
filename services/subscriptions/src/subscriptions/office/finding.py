"""Finds people for the office, a page at a time, in a time that does not grow with the register.

A page walks along one index in its order, some hundred entries at a time, and asks of those entries whether they fit
the rest of what is wanted. The walk is the narrowest of those that are wanted (who is in a place, in a state, in an
audience), else all people, the newest first. What a page may walk is bounded: where little of it fits, the page ends
early and says where the next one goes on. No statement depends on how a planner guesses: each reads a stretch of one
index, or rows by their keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Select, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from shared.contracts.news import Audience
from subscriptions.models import Group, Organisation, Role, Subscriber, rank_of
from subscriptions.states import SubscriberState, in_state

STEPS = (100, *[800] * 25)
"""How many entries are walked at a time: few where much fits, at most these where little does. Their keys stay below
the 999 parameters that an old SQLite takes."""
NARROW = 2_000
"""Walks are compared by their length up to this: it costs a millisecond to count so far."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Who is looked for: whoever fits all that is given."""

    audience: Audience | None = None
    municipality: str = ""
    state: SubscriberState | None = None
    organisation_id: UUID | None = None
    group_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One page, and after whom the next one begins; `None` on the last."""

    people: Sequence[Subscriber]
    after: UUID | None


@dataclass(frozen=True, slots=True)
class Walk:
    """A stretch of an index: the ids of people, in falling order."""

    ids: Select[UUID]
    key: InstrumentedAttribute[UUID]

    def step(self, after: UUID | None, length: int) -> Select[UUID]:
        further = self.ids if after is None else self.ids.where(self.key < after)
        return further.order_by(self.key.desc()).limit(length)


async def find(session: AsyncSession, wanted: Wanted, after: UUID | None, limit: int, at: datetime) -> Found:
    """The next `limit` people who fit, the newest first."""
    walk = await _narrowest(session, wanted, at)
    fits = _conditions(wanted, at)
    people: list[Subscriber] = []
    for length in STEPS:
        ids = (await session.scalars(walk.step(after, length))).all()
        rows = await session.scalars(select(Subscriber).where(Subscriber.id.in_(ids), *fits))
        people += sorted(rows.all(), key=lambda row: row.id, reverse=True)
        if len(people) > limit:
            return Found(people[:limit], people[limit - 1].id)
        if len(ids) < length:
            return Found(people, None)
        after = ids[-1]
    return Found(people, after)


async def _narrowest(session: AsyncSession, wanted: Wanted, at: datetime) -> Walk:
    walks = list(_walks(wanted, at))
    if len(walks) < 2:
        return walks[0] if walks else Walk(select(Subscriber.id), Subscriber.id)
    lengths = [await _length(session, walk) for walk in walks]
    return walks[lengths.index(min(lengths))]


async def _length(session: AsyncSession, walk: Walk) -> int:
    return await session.scalar(select(func.count()).select_from(walk.ids.limit(NARROW).subquery())) or 0


def _walks(wanted: Wanted, at: datetime) -> Sequence[Walk]:
    held = select(Role.subscriber_id).distinct()
    walks = []
    if wanted.organisation_id is not None:
        walks.append(Walk(held.where(Role.organisation_id == wanted.organisation_id), Role.subscriber_id))
    if wanted.group_id is not None:
        walks.append(Walk(held.where(Role.group_id == wanted.group_id), Role.subscriber_id))
    if wanted.state not in (None, SubscriberState.ACTIVE):
        walks.append(Walk(select(Subscriber.id).where(in_state(wanted.state, at)), Subscriber.id))
    if wanted.audience is not None:
        walks.append(Walk(held.where(Role.audience_rank == rank_of(wanted.audience)), Role.subscriber_id))
    return walks


def _conditions(wanted: Wanted, at: datetime) -> list[ColumnElement[bool]]:
    mine = Role.subscriber_id == Subscriber.id
    fits: list[ColumnElement[bool]] = []
    if wanted.organisation_id is not None:
        fits.append(exists().where(mine, Role.organisation_id == wanted.organisation_id))
    if wanted.group_id is not None:
        fits.append(exists().where(mine, Role.group_id == wanted.group_id))
    if wanted.state is not None:
        fits.append(in_state(wanted.state, at))
    if wanted.audience is not None:
        fits.append(exists().where(mine, Role.audience_rank == rank_of(wanted.audience)))
    if wanted.municipality:
        fits.append(_in_municipality(wanted.municipality))
    return fits


def _in_municipality(code: str) -> ColumnElement[bool]:
    """Whoever has chosen it, has a seat or a post in it, or belongs to a newsroom or a group that is named for it."""
    named = [
        column.like(f"%|{code}|%")
        for column in (Role.municipalities, Organisation.municipalities, Group.municipalities)
    ]
    held = (
        select(Role.id)
        .outerjoin(Organisation, Organisation.id == Role.organisation_id)
        .outerjoin(Group, Group.id == Role.group_id)
        .where(Role.subscriber_id == Subscriber.id, or_(*named))
    )
    return or_(Subscriber.municipalities.like(f"%|{code}|%"), held.exists())
