"""Who is reached where: newsrooms, councils and groups by municipality, and the holes.

Somebody is reached when mail to them flows: not suppressed, not unsubscribed, and the audience not left. A newsroom or
council without municipalities of its own is the whole county's: it stands in every municipality, marked so. A council
is known from its roles, and from every roll that was ever imported: one whose term ended without a successor is a
hole, also when its last members have been weeded.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request
from pydantic import BaseModel, Field
from sqlalchemy import Select, and_, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from shared.contracts.news import Audience
from shared.contracts.vocabulary import MUNICIPALITIES
from shared.http import Reading
from shared.keys import Reader
from shared.problems import documented
from shared.routes import Router
from shared.web.dates import STOCKHOLM
from shared.written import Day
from subscriptions.models import Departure, Group, Organisation, OrganisationKind, Role, Subscriber, rank_of
from subscriptions.rolls.models import Council
from subscriptions.schemas import Municipality

router = Router(prefix="/api/subscriptions/v1", responses=documented(401, 403, 422))


class Hole(StrEnum):
    """What a municipality lacks."""

    NEWSROOM = "newsroom"
    LOCAL_NEWSROOM = "local_newsroom"
    COUNCIL = "council"
    COUNCIL_WITHOUT_MEMBERS = "council_without_members"
    GROUP = "group"


class PlaceCovered(BaseModel):
    """A newsroom or a group, and how many there are reached."""

    id: UUID
    name: str
    is_countywide: bool = Field(description="has no municipalities of its own")
    members: int = Field(description="people and desks with a role in it")
    reached: int = Field(description="of them, those to whom mail flows")


class CouncilCovered(PlaceCovered):
    """A council or board on the day asked about."""

    mandate_until: date | None = Field(description="the last day of the term in force")
    next_from: date | None = Field(description="the first day of the next term, where its roll is in")


class MunicipalityCoverage(BaseModel):
    municipality: str = Field(examples=["0880"])
    name: str
    newsrooms: list[PlaceCovered]
    councils: list[CouncilCovered]
    groups: list[PlaceCovered]
    holes: list[Hole]


class CoverageOut(BaseModel):
    day: date
    municipalities: list[MunicipalityCoverage]


@dataclass(frozen=True, slots=True)
class _Place:
    id: UUID
    name: str
    area: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Count:
    members: int = 0
    reached: int = 0
    until: date | None = None
    next_from: date | None = None


@router.get("/coverage")
async def show_coverage(
    request: Request,
    session: Reading,
    _: Reader,
    municipality: Annotated[list[Municipality] | None, Query(description="only these; all of the county")] = None,
    on: Annotated[Day | None, Query(description="the day asked about; today")] = None,
) -> CoverageOut:
    """Which newsrooms, councils and groups are reached in each municipality, and what is missing."""
    day = on or request.app.state.clock.now().astimezone(STOCKHOLM).date()
    return CoverageOut(day=day, municipalities=await covered(session, municipality or list(MUNICIPALITIES), day))


async def covered(session: AsyncSession, municipalities: Sequence[str], day: date) -> list[MunicipalityCoverage]:
    """The coverage of each of these municipalities, by name."""
    newsrooms, groups = await _newsrooms(session, day), await _groups(session, day)
    councils = await _councils(session, day)
    by_name = sorted(set(municipalities), key=lambda code: MUNICIPALITIES[code])
    return [_municipality(code, _in(newsrooms, code), _in(councils, code), _in(groups, code)) for code in by_name]


def _municipality(
    code: str,
    newsrooms: list[tuple[_Place, _Count]],
    councils: list[tuple[_Place, _Count]],
    groups: list[tuple[_Place, _Count]],
) -> MunicipalityCoverage:
    return MunicipalityCoverage(
        municipality=code,
        name=MUNICIPALITIES[code],
        newsrooms=[PlaceCovered(**_shown(*entry)) for entry in newsrooms],
        councils=[
            CouncilCovered(**_shown(place, count), mandate_until=count.until, next_from=count.next_from)
            for place, count in councils
        ],
        groups=[PlaceCovered(**_shown(*entry)) for entry in groups],
        holes=list(_holes(newsrooms, councils, groups)),
    )


def _holes(
    newsrooms: list[tuple[_Place, _Count]], councils: list[tuple[_Place, _Count]], groups: list[tuple[_Place, _Count]]
) -> Iterable[Hole]:
    if not any(count.reached for _, count in newsrooms):
        yield Hole.NEWSROOM
    elif not any(count.reached and place.area for place, count in newsrooms):
        yield Hole.LOCAL_NEWSROOM
    own = [(place, count) for place, count in councils if place.area]
    if not any(count.reached for _, count in own):
        yield Hole.COUNCIL
    if any(not count.reached for _, count in own):
        yield Hole.COUNCIL_WITHOUT_MEMBERS
    if not any(count.reached for _, count in groups):
        yield Hole.GROUP


def _shown(place: _Place, count: _Count) -> dict[str, object]:
    return {
        "id": place.id,
        "name": place.name,
        "is_countywide": not place.area,
        "members": count.members,
        "reached": count.reached,
    }


def _in(places: Iterable[tuple[_Place, _Count]], code: str) -> list[tuple[_Place, _Count]]:
    found = [(place, count) for place, count in places if not place.area or code in place.area]
    return sorted(found, key=lambda entry: (entry[0].name.casefold(), entry[0].id))


async def _newsrooms(session: AsyncSession, day: date) -> list[tuple[_Place, _Count]]:
    columns = select(Organisation.id, Organisation.name, Organisation.municipalities)
    rows = await session.execute(columns.where(Organisation.kind == OrganisationKind.NEWSROOM))
    counts = await _counts(session, Audience.NEWSROOM, Role.organisation_id, day)
    return [(_Place(*row), counts.get(row[0], _Count())) for row in rows]


async def _groups(session: AsyncSession, day: date) -> list[tuple[_Place, _Count]]:
    rows = await session.execute(select(Group.id, Group.name, Group.municipalities))
    counts = await _counts(session, Audience.COLLABORATION_GROUP, Role.group_id, day)
    return [(_Place(*row), counts.get(row[0], _Count())) for row in rows]


async def _counts(
    session: AsyncSession, audience: Audience, place: InstrumentedAttribute[UUID | None], day: date
) -> Mapping[UUID, _Count]:
    statement = _roles(audience, day, place).group_by(place)
    return {row[0]: _Count(row.members or 0, row.reached or 0) for row in await session.execute(statement)}


async def _councils(session: AsyncSession, day: date) -> list[tuple[_Place, _Count]]:
    """Each (organisation, area) that has a role now or later, or had a roll."""
    statement = _roles(Audience.POLITICIAN, day, Role.organisation_id, Role.municipalities)
    counts: dict[tuple[UUID, frozenset[str]], _Count] = {}
    for row in await session.execute(statement.group_by(Role.organisation_id, Role.municipalities)):
        counts[row[0], row[1]] = _Count(row.members or 0, row.reached or 0, row.until, row.next_from)
    known = set(counts)
    for organisation_id, area in await session.execute(select(Council.organisation_id, Council.municipalities)):
        known.add((organisation_id, area))
    named = select(Organisation.id, Organisation.name).where(Organisation.kind == OrganisationKind.COUNCIL)
    names = {row[0]: row[1] for row in await session.execute(named)}
    return [(_Place(key, names.get(key, ""), area), counts.get((key, area), _Count())) for key, area in known]


def _roles(audience: Audience, day: date, *by: InstrumentedAttribute[Any]) -> Select[Any]:
    """How many hold a role on `day`, how many of them are reached, when the term ends and when the next begins."""
    in_force = and_(
        or_(Role.mandate_from.is_(None), Role.mandate_from <= day),
        or_(Role.mandate_until.is_(None), Role.mandate_until >= day),
    )
    reached = and_(
        in_force,
        Subscriber.suppressed_at.is_(None),
        Subscriber.unsubscribed_at.is_(None),
        Departure.left_at.is_(None),
    )
    left = and_(Departure.subscriber_id == Role.subscriber_id, Departure.audience_rank == Role.audience_rank)
    return (
        select(
            *by,
            func.sum(case((in_force, 1), else_=0)).label("members"),
            func.sum(case((reached, 1), else_=0)).label("reached"),
            func.max(case((in_force, Role.mandate_until))).label("until"),
            func.min(case((Role.mandate_from > day, Role.mandate_from))).label("next_from"),
        )
        .select_from(Role)
        .join(Subscriber, Subscriber.id == Role.subscriber_id)
        .outerjoin(Departure, left)
        .where(Role.audience_rank == rank_of(audience))
    )
