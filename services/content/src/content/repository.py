"""What content asks its database."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, insert, literal, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from content.models import IS_SCHEDULED, FanoutTotals, Item, ItemRevision, ReachSnapshot, Schedule
from shared.contracts.delivery import DeliveryProgress
from shared.contracts.mail import FanoutCompleted
from shared.contracts.news import ItemState, Kind
from shared.database import Instant, upsert

PUBLIC_STATES = (ItemState.PUBLISHED, ItemState.CORRECTED)

Published = tuple[Item, ItemRevision]
"""An item with its newest revision."""


async def add(session: AsyncSession, table: type[Item | ItemRevision], **values: Any) -> None:
    """Insert one row."""
    await session.execute(insert(table).values(values))


async def item(session: AsyncSession, item_id: UUID) -> Item | None:
    """The item as it stands, never a copy that this session read before."""
    query = select(Item).where(Item.id == item_id).execution_options(populate_existing=True)
    return await session.scalar(query)


async def change(session: AsyncSession, seen: Item, **values: Any) -> bool:
    """Change the item, unless somebody else did since it was read; says whether it did."""
    unchanged = (Item.id == seen.id) & (Item.version == seen.version)
    changed = await session.execute(
        update(Item)
        .where(unchanged)
        .values(version=seen.version + 1, **values)
        .returning(Item.id)
        .execution_options(synchronize_session=False)
    )
    return changed.first() is not None


async def take_slug(session: AsyncSession, item_id: UUID, slug: str) -> bool:
    """Give the item this address; False where another has it. The unique index decides."""
    try:
        async with session.begin_nested():
            await session.execute(
                update(Item).where(Item.id == item_id).values(slug=slug).execution_options(synchronize_session=False)
            )
    except IntegrityError:
        return False
    return True


async def due(session: AsyncSession, now: ColumnElement[datetime], *, limit: int) -> Sequence[UUID]:
    """The scheduled items whose time has come, the earliest first."""
    query = select(Item.id).where(Item.publish_at <= now).order_by(Item.publish_at, Item.id).limit(limit)
    return (await session.scalars(query)).all()


async def take_due(session: AsyncSession, item_id: UUID, now: ColumnElement[datetime]) -> Item | None:
    """The item, held until the transaction ends, if its time has come and nobody else holds it."""
    query = select(Item).where(Item.id == item_id, Item.publish_at <= now).with_for_update(skip_locked=True)
    return await session.scalar(query.execution_options(populate_existing=True))


async def items(
    session: AsyncSession,
    *,
    after: UUID | None,
    limit: int,
    state: ItemState | None,
    kind: Kind | None,
    schedule: Schedule | None,
) -> Sequence[Item]:
    """Items, newest first, after the one that ended the page before."""
    query = select(Item).order_by(Item.id.desc()).limit(limit)
    if after is not None:
        query = query.where(Item.id < after)
    if state is not None:
        query = query.where(Item.state == state)
    if kind is not None:
        query = query.where(Item.kind == kind)
    if schedule is not None:
        query = query.where(IS_SCHEDULED if schedule is Schedule.WAITING else Item.missed_at.is_not(None))
    return (await session.scalars(query)).all()


async def revisions(session: AsyncSession, item_id: UUID) -> Sequence[ItemRevision]:
    """All revisions of an item, the first first."""
    query = select(ItemRevision).where(ItemRevision.item_id == item_id).order_by(ItemRevision.revision)
    return (await session.scalars(query)).all()


async def by_slug(session: AsyncSession, slug: str) -> Published | None:
    """The item at an address of the site, withdrawn or not, with its newest revision."""
    row = (await session.execute(_published().where(Item.slug == slug))).first()
    return None if row is None else (row[0], row[1])


async def newest_published(
    session: AsyncSession,
    *,
    limit: int,
    kinds: Sequence[Kind] = (),
    before: tuple[datetime, UUID] | None = None,
) -> Sequence[Published]:
    """Public items in the order they were published, the newest first; `before` is the last of the page before."""
    query = _published().where(Item.state.in_(PUBLIC_STATES))
    if kinds:
        query = query.where(Item.kind.in_(kinds))
    if before is not None:
        query = query.where(_older(*before))
    query = query.order_by(Item.published_at.desc(), Item.id.desc()).limit(limit)
    return [(row[0], row[1]) for row in await session.execute(query)]


async def newest_withdrawn(session: AsyncSession, *, limit: int) -> Sequence[Published]:
    """Items that were taken back last."""
    query = _published().where(Item.state == ItemState.WITHDRAWN).order_by(Item.revised_at.desc()).limit(limit)
    return [(row[0], row[1]) for row in await session.execute(query)]


async def keep_progress(session: AsyncSession, progress: DeliveryProgress) -> None:
    """Keep the counts, unless newer ones are kept already."""
    told = progress.model_dump(mode="json")
    build = upsert(session, _table(ReachSnapshot)).values(
        item_id=progress.item_id,
        sequence=progress.sequence,
        counted_at=progress.counted_at,
        deliveries=told["deliveries"],
        exclusions=told["exclusions"],
    )
    newer = build.on_conflict_do_update(
        index_elements=["item_id"],
        set_={name: build.excluded[name] for name in ("sequence", "counted_at", "deliveries", "exclusions")},
        where=ReachSnapshot.sequence < build.excluded.sequence,
    )
    await session.execute(newer)


async def keep_totals(session: AsyncSession, completed: FanoutCompleted, at: datetime) -> None:
    """Keep what the fan-out found, unless a later revision's is kept already."""
    build = upsert(session, _table(FanoutTotals)).values(
        item_id=completed.item_id,
        revision=completed.revision,
        totals=completed.model_dump(mode="json")["totals"],
        cut_short=completed.cut_short,
        received_at=at,
    )
    newer = build.on_conflict_do_update(
        index_elements=["item_id"],
        set_={name: build.excluded[name] for name in ("revision", "totals", "cut_short", "received_at")},
        where=FanoutTotals.revision <= build.excluded.revision,
    )
    await session.execute(newer)


async def progress_of(session: AsyncSession, item_id: UUID) -> ReachSnapshot | None:
    """The newest counts of an item."""
    return await session.get(ReachSnapshot, item_id)


async def totals_of(session: AsyncSession, item_id: UUID) -> FanoutTotals | None:
    """What the item's fan-out found; nothing until it is complete."""
    return await session.get(FanoutTotals, item_id)


def _published() -> Any:
    newest = (ItemRevision.item_id == Item.id) & (ItemRevision.revision == Item.revision)
    return select(Item, ItemRevision).join(ItemRevision, newest)


def _older(published_at: datetime, item_id: UUID) -> ColumnElement[bool]:
    last = tuple_(literal(published_at, Instant()), literal(item_id))
    return tuple_(Item.published_at, Item.id) < last


def _table(model: type[ReachSnapshot | FanoutTotals]) -> Any:
    return model.__table__
