"""Organisations and groups as the office keeps them: found by name, counted, changed.

There are some hundred of them. A page walks along the unique index of their names, a stretch at a time, and asks of
each stretch what fits; as with people, it ends early where little does, and says where the next one goes on. So a
million cost no more than the stretches of one page. How many belong to those of one page is counted along the index of
the roles.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, aliased

from shared.database import among, from_index_to_row
from subscriptions import people
from subscriptions.models import Group, Organisation, OrganisationKind, Role
from subscriptions.people import name_key

STEPS = (100, 1_000, *[10_000] * 7)
"""How many names are walked at a time: few where much fits, at most these where little does."""
MOST_NAMED = 5

Place = TypeVar("Place", Organisation, Group)
Key = tuple[str, ...]
"""Where a page ended: a group's name, or an organisation's kind and name."""


@dataclass(frozen=True, slots=True)
class Found(Generic[Place]):
    """One page, and after which key the next one begins; `None` on the last."""

    places: Sequence[Place]
    after: Key | None


@dataclass(frozen=True, slots=True)
class Walk(Generic[Place]):
    """Along the unique index of the names of all, or of those of one kind."""

    table: type[Place]
    key: tuple[InstrumentedAttribute[str], ...]
    of_kind: tuple[ColumnElement[bool], ...] = ()

    def step(self, after: Key | None, length: int) -> Select[Place]:
        further = select(self.table).where(*self.of_kind).order_by(*self.key).limit(length)
        return further if after is None else further.where(tuple_(*self.key) > after)

    def key_of(self, place: Any) -> Any:
        """Of a row, or in a question: what it is found by."""
        return tuple(getattr(place, column.key) for column in self.key)


@dataclass(frozen=True, slots=True)
class Term:
    """Who sits in one area for one term."""

    municipalities: frozenset[str]
    mandate_from: date | None
    mandate_until: date | None
    members: int


class NameTaken(Exception):
    """There is another one of that name."""


async def organisations(
    session: AsyncSession, kind: OrganisationKind | None, words: str, area: str, after: Key | None, limit: int
) -> Found[Organisation]:
    """By kind and name, after this kind and name."""
    of_kind = (Organisation.kind == str(kind),) if kind is not None else ()
    walk = Walk(Organisation, (Organisation.kind, Organisation.name_key), of_kind)
    return await _find(session, walk, words, area, after, limit)


async def groups(session: AsyncSession, words: str, area: str, after: Key | None, limit: int) -> Found[Group]:
    """By name, after this name."""
    return await _find(session, Walk(Group, (Group.name_key,)), words, area, after, limit)


async def named(session: AsyncSession, words: str) -> Sequence[Organisation | Group]:
    """The first few whose name holds these words."""
    first = await organisations(session, None, words, "", None, MOST_NAMED)
    second = await groups(session, words, "", None, MOST_NAMED)
    both: list[Organisation | Group] = [*first.places, *second.places]
    return both[:MOST_NAMED]


async def _find(
    session: AsyncSession, walk: Walk[Place], words: str, area: str, after: Key | None, limit: int
) -> Found[Place]:
    await from_index_to_row(await session.connection())
    found: list[Place] = []
    for length in STEPS:
        stretch = aliased(walk.table, walk.step(after, length).subquery())
        fitting = select(stretch).where(*_fits(stretch, words, area)).order_by(*walk.key_of(stretch))
        found += (await session.scalars(fitting.limit(limit + 1 - len(found)))).all()
        if len(found) > limit:
            return Found(found[:limit], walk.key_of(found[limit - 1]))
        last = walk.step(after, 1).with_only_columns(*walk.key).offset(length - 1)
        reached = (await session.execute(last)).first()
        if reached is None:
            return Found(found, None)
        after = tuple(reached)
    return Found(found, after)


def _fits(place: Any, words: str, area: str) -> list[ColumnElement[bool]]:
    fits = []
    if words:
        fits.append(place.name_key.contains(name_key(words), autoescape=True))
    if area:
        fits.append(place.municipalities.like(f"%|{area}|%"))
    return fits


async def members_of(
    session: AsyncSession, place: InstrumentedAttribute[UUID | None], ids: Collection[UUID]
) -> dict[UUID, int]:
    """How many belong to each of these."""
    mine = among(session, place, ids)
    counted = select(place, func.count(Role.subscriber_id.distinct())).where(mine).group_by(place)
    return {row[0]: row[1] for row in await session.execute(counted) if row[0] is not None}


async def terms_of(session: AsyncSession, organisation_id: UUID) -> Sequence[Term]:
    """A council's areas and terms, the latest first."""
    columns = (Role.municipalities, Role.mandate_from, Role.mandate_until)
    counted = select(*columns, func.count()).where(Role.organisation_id == organisation_id).group_by(*columns)
    found = [Term(*row) for row in await session.execute(counted)]
    return sorted(found, key=lambda term: (sorted(term.municipalities), term.mandate_from or date.min), reverse=True)


async def add_organisation(
    session: AsyncSession, kind: OrganisationKind, name: str, area: Collection[str], at: datetime
) -> UUID:
    """The new one's id, or `NameTaken`."""
    row = await people.insert_organisation(session, kind, name, area, at)
    if row is None:
        raise NameTaken
    return row.id


async def add_group(session: AsyncSession, name: str, area: Collection[str], at: datetime) -> UUID:
    """The new one's id, or `NameTaken`."""
    row = await people.insert_group(session, name, area, at)
    if row is None:
        raise NameTaken
    return row.id


async def change(session: AsyncSession, place: Organisation | Group, name: str, area: Collection[str]) -> None:
    """Give it this name and area; `NameTaken`, and the transaction is over."""
    place.name, place.name_key, place.municipalities = name, name_key(name), frozenset(area)
    try:
        await session.flush()
    except IntegrityError as error:
        raise NameTaken from error
