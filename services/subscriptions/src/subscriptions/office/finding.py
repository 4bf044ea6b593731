"""Finds people for the office, a page at a time, in a time that does not grow with the register.

A page walks along one index in its order, some hundred entries at a time, and asks of those entries whether they fit
the rest of what is wanted. The walk is the narrowest of those that are wanted (who is in a place, in a state, in an
audience, has a word that begins so), else all people, the newest first; by words, people come in the order of the
words. What a page may walk is bounded: where little of it fits, the page ends early and says where the next one goes
on. No statement depends on how a planner guesses: each reads a stretch of one index, or rows by their keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Uuid, and_, exists, func, literal, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, aliased

from shared.contracts.news import Audience
from shared.database import among
from subscriptions.models import Group, Organisation, Role, Subscriber, rank_of
from subscriptions.office.models import SearchWord, Word
from subscriptions.states import SubscriberState, in_state

STEPS = (100, *[800] * 12)
"""How many entries are walked at a time: few where much fits, at most these where little does."""
NARROW = 2_000
"""Walks are compared by their length up to this: it costs a millisecond to count so far."""
LAST = "\U0010ffff"
"""No word has a character after this one."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Who is looked for: whoever fits all that is given. `words` are beginnings of words (`words.asked_for`)."""

    words: tuple[str, ...] = ()
    audience: Audience | None = None
    municipality: str = ""
    state: SubscriberState | None = None
    organisation_id: UUID | None = None
    group_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ended: after this person, and by words after this word."""

    subscriber_id: UUID
    word: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """One page, and after which place the next one begins; `None` on the last."""

    people: Sequence[Subscriber]
    after: Place | None


@dataclass(frozen=True, slots=True)
class ByPerson:
    """A walk along an index of ids, the newest first."""

    ids: Select[Any]
    key: InstrumentedAttribute[UUID]

    def step(self, after: Place | None, length: int) -> Select[Any]:
        further = self.ids if after is None else self.ids.where(self.key < after.subscriber_id)
        return further.order_by(self.key.desc()).limit(length)


@dataclass(frozen=True, slots=True)
class ByWord:
    """A walk along the words that begin alike. Who has several of them stands at the first."""

    begins: str

    @property
    def ids(self) -> Any:
        earlier = aliased(SearchWord)
        mine = and_(earlier.subscriber_id == SearchWord.subscriber_id, earlier.word < SearchWord.word)
        first = ~exists().where(mine, earlier.word >= self.begins)
        return select(SearchWord.subscriber_id, SearchWord.word).where(_begins(self.begins), first)

    def step(self, after: Place | None, length: int) -> Any:
        further, key = self.ids, tuple_(SearchWord.word, SearchWord.subscriber_id)
        if after is not None:
            further = further.where(key > tuple_(literal(after.word, Word), literal(after.subscriber_id, Uuid())))
        return further.order_by(SearchWord.word, SearchWord.subscriber_id).limit(length)


Walk = ByPerson | ByWord


async def find(session: AsyncSession, wanted: Wanted, after: Place | None, limit: int, at: datetime) -> Found:
    """The next `limit` people who fit."""
    walk = await _narrowest(session, wanted, at)
    fits = _conditions(wanted, at)
    people: list[Subscriber] = []
    places: list[Place] = []
    for length in STEPS:
        entries = [Place(*entry) for entry in await session.execute(walk.step(after, length))]
        rows = await _rows(session, entries, fits)
        reached = [entry for entry in entries if entry.subscriber_id in rows]
        places += reached
        people += [rows[entry.subscriber_id] for entry in reached]
        if len(people) > limit:
            return Found(people[:limit], places[limit - 1])
        if len(entries) < length:
            return Found(people, None)
        after = entries[-1]
    return Found(people, after)


async def _rows(
    session: AsyncSession, entries: Sequence[Place], fits: Sequence[ColumnElement[bool]]
) -> dict[UUID, Subscriber]:
    ids = [entry.subscriber_id for entry in entries]
    return {
        row.id: row
        for row in await session.scalars(select(Subscriber).where(among(session, Subscriber.id, ids), *fits))
    }


async def _narrowest(session: AsyncSession, wanted: Wanted, at: datetime) -> Walk:
    walks = list(_walks(wanted, at))
    if len(walks) < 2:
        return walks[0] if walks else ByPerson(select(Subscriber.id), Subscriber.id)
    lengths = [await _length(session, walk) for walk in walks]
    return walks[lengths.index(min(lengths))]


async def _length(session: AsyncSession, walk: Walk) -> int:
    return await session.scalar(select(func.count()).select_from(walk.ids.limit(NARROW).subquery())) or 0


def _walks(wanted: Wanted, at: datetime) -> Sequence[Walk]:
    held = select(Role.subscriber_id).distinct()
    walks: list[Walk] = [ByWord(word) for word in wanted.words]
    if wanted.organisation_id is not None:
        walks.append(ByPerson(held.where(Role.organisation_id == wanted.organisation_id), Role.subscriber_id))
    if wanted.group_id is not None:
        walks.append(ByPerson(held.where(Role.group_id == wanted.group_id), Role.subscriber_id))
    if wanted.state not in (None, SubscriberState.ACTIVE):
        walks.append(ByPerson(select(Subscriber.id).where(in_state(wanted.state, at)), Subscriber.id))
    if wanted.audience is not None:
        walks.append(ByPerson(held.where(Role.audience_rank == rank_of(wanted.audience)), Role.subscriber_id))
    return walks


def _conditions(wanted: Wanted, at: datetime) -> list[ColumnElement[bool]]:
    mine = Role.subscriber_id == Subscriber.id
    known = SearchWord.subscriber_id == Subscriber.id
    fits: list[ColumnElement[bool]] = [exists().where(known, _begins(word)) for word in wanted.words]
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


def _begins(word: str) -> ColumnElement[bool]:
    return and_(SearchWord.word >= word, SearchWord.word < word + LAST)
