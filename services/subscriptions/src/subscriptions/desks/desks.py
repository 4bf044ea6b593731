"""Which address is a newsroom's desk, and what is done when its question is answered.

A newsroom with one address has that as its desk; among several it is the one that is no person's (that has no name).
Where that is not clear, the editor is asked by a task, and names it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.news import Audience
from shared.database import upsert
from subscriptions.desks.models import Desk, Step
from subscriptions.models import Organisation, Role, Subscriber, rank_of
from subscriptions.tasks.tasks import About, TaskKind, raise_task

NEWSROOM = rank_of(Audience.NEWSROOM)
SCANNED_WITHIN = timedelta(minutes=5)
"""A yes that comes so soon after its mail may be that of a program that opens links: nobody would ever be reminded."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often a desk is asked, and how long an answer is waited for: once before the reminder, once after it."""

    between: timedelta
    answer_within: timedelta


@dataclass(frozen=True, slots=True)
class Held:
    """A desk with its newsroom and its subscriber."""

    desk: Desk
    newsroom: Organisation
    subscriber: Subscriber


@dataclass(frozen=True, slots=True)
class Wish:
    """What a desk says should change."""

    address: str
    municipalities: frozenset[str]
    topics: frozenset[str]
    message: str


class UnknownDesk(Exception):
    """There is no such desk, or it has no address (any more)."""


async def holders(session: AsyncSession, organisation_id: UUID) -> list[Subscriber]:
    """Whoever has a role in the newsroom, the oldest first."""
    held = select(Role.subscriber_id).where(Role.organisation_id == organisation_id, Role.audience_rank == NEWSROOM)
    return list(await session.scalars(select(Subscriber).where(Subscriber.id.in_(held)).order_by(Subscriber.id)))


def obvious(found: list[Subscriber]) -> Subscriber | None:
    """The one that can only be the desk."""
    nameless = [subscriber for subscriber in found if not subscriber.name]
    if len(found) == 1:
        return found[0]
    return nameless[0] if len(nameless) == 1 else None


async def name_desk(
    session: AsyncSession, organisation_id: UUID, subscriber: Subscriber | None, at: datetime, rhythm: Rhythm
) -> None:
    """Make this address the newsroom's desk; without one, the editor is asked for it. Another address than before ends
    the old links, and is asked half a year from now like a new one.
    """
    values: dict[str, Any] = {
        "subscriber_id": subscriber.id if subscriber else None,
        "step": str(Step.ASK if subscriber else Step.ADDRESS),
        "due_at": at + rhythm.between,
    }
    insert = upsert(session, Desk.__table__).values(  # type: ignore[arg-type]
        organisation_id=organisation_id, generation=1, **values
    )
    grown = {**values, "generation": Desk.__table__.c.generation + 1}
    moved = Desk.__table__.c.subscriber_id.is_distinct_from(insert.excluded.subscriber_id)
    await session.execute(insert.on_conflict_do_update(index_elements=["organisation_id"], set_=grown, where=moved))
    if subscriber is None:
        await raise_task(session, TaskKind.DESK_MISSING, About(organisation_id=organisation_id), at)


async def desk(session: AsyncSession, organisation_id: UUID) -> Desk | None:
    return await session.get(Desk, organisation_id, populate_existing=True)


async def held(session: AsyncSession, organisation_id: UUID, generation: int) -> Held:
    """The desk that a link leads to; `UnknownDesk` where it has another address by now, or none."""
    found = await desk(session, organisation_id)
    subscriber = await session.get(Subscriber, found.subscriber_id) if found and found.subscriber_id else None
    newsroom = await session.get(Organisation, organisation_id)
    if found is None or subscriber is None or newsroom is None or found.generation != generation:
        raise UnknownDesk
    return Held(found, newsroom, subscriber)


def may_be_a_program(desk: Desk, at: datetime, rhythm: Rhythm) -> bool:
    """Whether the desk was mailed just now."""
    was_mailed = desk.step in (Step.REMIND, Step.GIVE_UP)
    return was_mailed and at < desk.due_at - rhythm.answer_within + SCANNED_WITHIN


async def answer(session: AsyncSession, held: Held, wish: Wish | None, at: datetime, rhythm: Rhythm) -> None:
    """It is right, or `wish` says what should be instead. Either ends the waiting; a wish becomes the editor's task."""
    mine = update(Desk).where(Desk.organisation_id == held.newsroom.id, Desk.generation == held.desk.generation)
    answered = mine.values(step=str(Step.ASK), due_at=at + rhythm.between, answered_at=at)
    await session.execute(answered.execution_options(synchronize_session=False))
    if wish is not None:
        details = {
            "address": wish.address,
            "municipalities": sorted(wish.municipalities),
            "topics": sorted(wish.topics),
            "message": wish.message,
        }
        about = About(organisation_id=held.newsroom.id, subscriber_id=held.subscriber.id)
        await raise_task(session, TaskKind.DESK_WISH, about, at, details)


async def raise_for(session: AsyncSession, subscriber_id: UUID, kind: TaskKind, status: str, at: datetime) -> bool:
    """A task for each newsroom that this address belongs to; whether there is one."""
    mine = select(Role.organisation_id).where(Role.subscriber_id == subscriber_id, Role.audience_rank == NEWSROOM)
    newsrooms = (await session.scalars(mine)).all()
    for organisation_id in newsrooms:
        found = await desk(session, organisation_id) if organisation_id else None
        is_desk = found is not None and found.subscriber_id == subscriber_id
        about = About(organisation_id=organisation_id, subscriber_id=subscriber_id)
        await raise_task(session, kind, about, at, {"status": status, "is_desk": is_desk})
    return bool(newsrooms)
