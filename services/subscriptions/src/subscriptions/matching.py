"""The questions that find an audience, asked of the database: set-based, a page at a time by subscriber id.

The area, the mandate and the strongest audience are decided in SQL, so that nobody who does not match is ever
carried over; choices are judged on the page's rows (`audience.why_left_out`), because whoever is left out by a choice
must be accounted for.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Text,
    Uuid,
    and_,
    bindparam,
    case,
    distinct,
    func,
    or_,
    select,
    true,
    type_coerce,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from shared.contracts.news import STRONGEST_FIRST, Audience, Locale
from shared.database import from_index_to_row
from subscriptions.audience import Match, Target
from subscriptions.frequencies import Frequency, chosen_by, frequency_of, read_chosen
from subscriptions.models import Departure, Group, Organisation, Role, Subscriber, codes_of, meets, rank_of

NOBODY = UUID(int=0)
NEWSROOM = rank_of(Audience.NEWSROOM)
LOCALES = {str(locale): locale for locale in Locale}


async def audience_page(
    session: AsyncSession, target: Target, audience: Audience, *, after: UUID | None, limit: int
) -> tuple[list[Match], UUID | None]:
    """Of the next `limit` roles that match in `audience`, by rising id, the people who count under it, and the id to go
    on after (`None`: there are no more). A person who has several roles in one audience is told of the first.
    """
    connection = await session.connection()
    await from_index_to_row(connection)
    rows = (await connection.execute(_page(target, audience), {"after": after or NOBODY, "most": limit})).all()
    matches: list[Match] = []
    for row in rows:
        if row[-1] and (not matches or row[0] != matches[-1].subscriber_id):
            matches.append(_match(row, audience, target))
    return matches, rows[-1].id if len(rows) == limit else None


async def overlaps(session: AsyncSession, target: Target) -> list[tuple[frozenset[Audience], int]]:
    """How many people match in several audiences at once, by combination; choices are not asked."""
    bit = case(*((Role.audience_rank == rank, 1 << rank) for rank in range(len(STRONGEST_FIRST))), else_=0)
    combination = func.sum(distinct(bit)).label("combination")
    people = (
        select(combination)
        .where(_matches(Role, target))
        .group_by(Role.subscriber_id)
        .having(func.count(distinct(Role.audience_rank)) > 1)
        .subquery()
    )
    rows = await session.execute(select(people.c.combination, func.count()).group_by(people.c.combination))
    return sorted(((_audiences(int(bits)), count) for bits, count in rows), key=lambda found: -found[1])


@lru_cache(maxsize=256)
def _page(target: Target, audience: Audience) -> Select[*tuple[Any, ...]]:
    """The question for one audience, made once for all its pages: making it takes longer than asking it.

    Each table is told where the page begins. PostgreSQL does not conclude it from the joins, and read them from their
    beginning for every page. Who counts elsewhere is told and not left out: as a condition it was asked twice of
    everybody, and towards the end of the register of everybody who was left.
    """
    rank, after = rank_of(audience), bindparam("after", type_=Uuid())
    left = Departure.left_at.is_not(None)
    theirs = (Departure.subscriber_id == Role.subscriber_id, Departure.audience_rank == rank)
    return (
        select(
            Subscriber.id,
            Subscriber.address,
            Subscriber.locale,
            Subscriber.generation,
            type_coerce(Subscriber.topics, Text),
            type_coerce(Subscriber.municipalities, Text),
            Subscriber.paused_until,
            Subscriber.unsubscribed_at.is_not(None),
            Subscriber.suppressed_at.is_not(None),
            func.coalesce(Organisation.name, Group.name, ""),
            type_coerce(Organisation.municipalities if audience is Audience.NEWSROOM else Role.municipalities, Text),
            left,
            chosen_by(Role.subscriber_id),
            _counts_here(target, audience, left),
        )
        .select_from(Role)
        .join(Subscriber, and_(Subscriber.id == Role.subscriber_id, Subscriber.id > after))
        .outerjoin(Departure, and_(*theirs, Departure.subscriber_id > after))
        .outerjoin(Organisation, Organisation.id == Role.organisation_id)
        .outerjoin(Group, Group.id == Role.group_id)
        .where(Role.subscriber_id > after, Role.audience_rank == rank)
        .where(_matches(Role, target))
        .order_by(Role.subscriber_id, Role.id)
        .limit(bindparam("most", type_=Integer()))
    )


def _counts_here(target: Target, audience: Audience, left: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether this is the strongest audience that the person has not left, or the strongest of those all left.

    The offset of none keeps PostgreSQL from reading every stronger role into a hash, again for every page.
    """
    if len(target.audiences) == 1:
        return true()
    rank = rank_of(audience)
    other, departure = aliased(Role), aliased(Departure)
    departed = and_(departure.subscriber_id == other.subscriber_id, departure.audience_rank == other.audience_rank)
    elsewhere = (
        select(other.id)
        .outerjoin(departure, departed)
        .where(other.subscriber_id == Role.subscriber_id, _matches(other, target))
        .offset(0)
    )
    stays = departure.left_at.is_(None)
    stronger = other.audience_rank < rank
    weaker_stays = and_(other.audience_rank > rank, stays)
    return case(
        (left, ~elsewhere.where(or_(stronger, weaker_stays)).exists()),
        else_=~elsewhere.where(stronger, stays).exists(),
    )


def _matches(role: Any, target: Target) -> ColumnElement[bool]:
    """Whether a role matches. Only what can tell roles of this target apart is asked: it is asked of every row."""
    found = [
        role.audience_rank.in_(sorted(rank_of(audience) for audience in target.audiences)),
        or_(role.mandate_from.is_(None), role.mandate_from <= target.day),
        or_(role.mandate_until.is_(None), role.mandate_until >= target.day),
    ]
    if target.municipalities:
        found.append(meets(role.municipalities, target.municipalities))
        if Audience.NEWSROOM in target.audiences:
            covering = select(Organisation.id).where(meets(Organisation.municipalities, target.municipalities))
            found.append(or_(role.audience_rank != NEWSROOM, role.organisation_id.in_(covering)))
        if Audience.COLLABORATION_GROUP in target.audiences:
            local = select(Group.id).where(meets(Group.municipalities, target.municipalities))
            found.append(or_(role.group_id.is_(None), role.group_id.in_(local)))
    return and_(*found)


def _match(row: Any, audience: Audience, target: Target) -> Match:
    """By position, and with the sets of codes read here: this is done for every person, and each call counts."""
    (
        key,
        address,
        locale,
        generation,
        topics,
        places,
        paused_until,
        unsubscribed,
        suppressed,
        name,
        area,
        left,
        chosen,
        _,
    ) = row
    topics = codes_of(topics)
    often = frequency_of(read_chosen(chosen), audience, target.topics, topics) if chosen else Frequency.IMMEDIATE
    return Match(
        key,
        address,
        LOCALES[locale],
        generation,
        audience,
        name,
        codes_of(area or ""),
        topics,
        codes_of(places),
        paused_until,
        unsubscribed,
        suppressed,
        left,
        often,
    )


def _audiences(bits: int) -> frozenset[Audience]:
    return frozenset(audience for rank, audience in enumerate(STRONGEST_FIRST) if bits & (1 << rank))


def in_strength(audiences: Sequence[Audience] | frozenset[Audience]) -> list[Audience]:
    """Strongest first."""
    return sorted(audiences, key=rank_of)
