"""Organisations and groups as the office keeps them: found by name, counted, changed.

There are some hundred of them, and a page walks along the unique index of their names. How many belong to those of one
page is counted along the index of the roles.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import func, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from subscriptions import people
from subscriptions.models import Group, Organisation, OrganisationKind, Role
from subscriptions.people import name_key


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
    session: AsyncSession,
    kind: OrganisationKind | None,
    words: str,
    area: str,
    after: tuple[str, str] | None,
    limit: int,
) -> Sequence[Organisation]:
    """By kind and name, after this kind and name."""
    found = select(Organisation).order_by(Organisation.kind, Organisation.name_key).limit(limit)
    if kind is not None:
        found = found.where(Organisation.kind == str(kind))
    if words:
        found = found.where(Organisation.name_key.contains(name_key(words), autoescape=True))
    if area:
        found = found.where(Organisation.municipalities.like(f"%|{area}|%"))
    if after is not None:
        found = found.where(tuple_(Organisation.kind, Organisation.name_key) > after)
    return (await session.scalars(found)).all()


async def groups(session: AsyncSession, words: str, area: str, after: str, limit: int) -> Sequence[Group]:
    """By name, after this name."""
    found = select(Group).order_by(Group.name_key).limit(limit)
    if words:
        found = found.where(Group.name_key.contains(name_key(words), autoescape=True))
    if area:
        found = found.where(Group.municipalities.like(f"%|{area}|%"))
    if after:
        found = found.where(Group.name_key > after)
    return (await session.scalars(found)).all()


async def members_of(
    session: AsyncSession, place: InstrumentedAttribute[UUID | None], ids: Collection[UUID]
) -> dict[UUID, int]:
    """How many belong to each of these."""
    counted = select(place, func.count(Role.subscriber_id.distinct())).where(place.in_(ids)).group_by(place)
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
