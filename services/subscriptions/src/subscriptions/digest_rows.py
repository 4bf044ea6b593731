"""What the database knows of digests: what waits for whom, and how far each digest run has come."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Select, delete, exists, func, or_, select, tuple_, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.mail import Exclusion, ExclusionReason
from shared.contracts.news import ItemSnapshot
from shared.database import among, insert_ignoring
from shared.rows import as_table, put_rows
from subscriptions.fanouts import LONGEST_PUT_OFF, CheckpointMoved
from subscriptions.models import DigestEntry, DigestRun, Fanout, FanoutState, Item, Subscriber, rank_of

NOBODY = UUID(int=0)


class Entry(NamedTuple):
    """An item that waits for somebody. One is made per item and person: a row of the ORM's takes ten times as long."""

    subscriber_id: UUID
    item_id: UUID
    audience_rank: int


async def wait_for_digest(
    session: AsyncSession, item_id: UUID, left_out: Iterable[Exclusion], published_at: datetime
) -> None:
    """Put the item by for those who are left out because they get digests."""
    rows = [
        {
            "subscriber_id": exclusion.recipient_id,
            "item_id": item_id,
            "audience_rank": rank_of(exclusion.audience),
            "published_at": published_at,
        }
        for exclusion in left_out
        if exclusion.reason is ExclusionReason.FREQUENCY
    ]
    await put_rows(session, insert_ignoring(session, DigestEntry.__table__), rows)  # type: ignore[arg-type]


async def anything_on_its_way(session: AsyncSession, before: datetime) -> bool:
    """Whether a fan-out that began before then has not come to everybody yet."""
    planning = exists().where(Fanout.state == FanoutState.PLANNING, Fanout.started_at < before)
    return bool(await session.scalar(select(planning)))


async def begin(session: AsyncSession, run_id: UUID, slot_at: datetime, at: datetime, *, weekly: bool) -> bool:
    """Record the run; False where there is one of that id."""
    row = {
        "id": run_id,
        "slot_at": slot_at,
        "weekly": weekly,
        "state": str(FanoutState.PLANNING),
        "mails": 0,
        "excluded": 0,
        "started_at": at,
        "failures": 0,
    }
    insert = insert_ignoring(session, DigestRun.__table__).values(row)  # type: ignore[arg-type]
    return await session.scalar(insert.returning(DigestRun.id)) is not None


async def run(session: AsyncSession, run_id: UUID) -> DigestRun | None:
    return await session.get(DigestRun, run_id)


async def runs(session: AsyncSession, *, limit: int) -> Sequence[DigestRun]:
    """The newest first."""
    query = select(DigestRun).order_by(DigestRun.slot_at.desc(), DigestRun.id).limit(limit)
    return (await session.scalars(query)).all()


async def last_slot_at(session: AsyncSession) -> datetime | None:
    """The slot of the newest run."""
    return await session.scalar(select(func.max(DigestRun.slot_at)))


async def has_plannable(session: AsyncSession, at: datetime) -> bool:
    return await session.scalar(_plannable(at)) is not None


async def take_plannable(session: AsyncSession, at: datetime) -> DigestRun | None:
    """Lock the run whose turn it is, skipping one in other hands."""
    return await session.scalar(_plannable(at).with_for_update(skip_locked=True))


async def page(session: AsyncSession, current: DigestRun, limit: int) -> list[Subscriber]:
    """The next people for whom something waits, by rising id."""
    waiting = exists().where(DigestEntry.subscriber_id == Subscriber.id, DigestEntry.published_at < current.slot_at)
    mine = select(Subscriber).where(Subscriber.id > (current.last_subscriber_id or NOBODY), waiting)
    return list(await session.scalars(mine.order_by(Subscriber.id).limit(limit)))


async def entries_of(
    session: AsyncSession, subscriber_ids: Iterable[UUID], before: datetime
) -> dict[UUID, list[Entry]]:
    """What waits for each, locked: two runs at once never take the same."""
    theirs = (among(session, DigestEntry.subscriber_id, subscriber_ids), DigestEntry.published_at < before)
    waiting = select(DigestEntry.subscriber_id, DigestEntry.item_id, DigestEntry.audience_rank).where(*theirs)
    found: dict[UUID, list[Entry]] = {}
    for row in await session.execute(waiting.with_for_update()):
        entry = Entry(*row)
        found.setdefault(entry.subscriber_id, []).append(entry)
    return found


async def newest_of(session: AsyncSession, item_ids: Iterable[UUID]) -> dict[UUID, ItemSnapshot]:
    """The newest revision seen of each item."""
    query = select(Item.snapshot).where(Item.id.in_(sorted(set(item_ids))))
    found = [ItemSnapshot.model_validate(snapshot) for snapshot in await session.scalars(query)]
    return {item.item_id: item for item in found}


async def take(session: AsyncSession, entries: Sequence[Entry]) -> None:
    """These wait no longer."""
    if not entries:
        return
    keys = [{"subscriber_id": entry.subscriber_id, "item_id": entry.item_id} for entry in entries]
    told = as_table(session, DigestEntry.__table__, keys)  # type: ignore[arg-type]
    mine = tuple_(DigestEntry.subscriber_id, DigestEntry.item_id).in_(select(told))
    await session.execute(delete(DigestEntry).where(mine).execution_options(synchronize_session=False))


async def move_on(session: AsyncSession, current: DigestRun, last: UUID | None, at: datetime, **counted: int) -> None:
    """Move the checkpoint to `last`, or (`None`) to the end."""
    ended = {"state": str(FanoutState.COMPLETED), "completed_at": at}
    values = {"last_subscriber_id": last} if last is not None else ended
    where_it_was = (
        DigestRun.id == current.id,
        DigestRun.state == FanoutState.PLANNING,
        DigestRun.last_subscriber_id.is_not_distinct_from(current.last_subscriber_id),
    )
    counts = {name: getattr(DigestRun, name) + number for name, number in counted.items()}
    moved = update(DigestRun).where(*where_it_was).values(failures=0, retry_at=None, **values, **counts)
    result: CursorResult[Any] = await session.execute(  # type: ignore[assignment]
        moved.execution_options(synchronize_session=False)
    )
    if result.rowcount != 1:
        raise CheckpointMoved


async def put_off(session: AsyncSession, run_id: UUID, at: datetime) -> int:
    """Try the run again later, and later each time; returns the failures in a row."""
    found = await session.scalar(select(DigestRun).where(DigestRun.id == run_id).with_for_update())
    if found is None:
        return 0
    found.failures += 1
    found.retry_at = at + min(timedelta(seconds=2 ** min(found.failures, 10)), LONGEST_PUT_OFF)
    await session.flush()
    return found.failures


def _plannable(at: datetime) -> Select[DigestRun]:
    due = or_(DigestRun.retry_at.is_(None), DigestRun.retry_at <= at)
    waiting = select(DigestRun).where(DigestRun.state == FanoutState.PLANNING, due)
    return waiting.order_by(DigestRun.slot_at).limit(1)
