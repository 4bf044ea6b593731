"""What the database knows of items and fan-outs: the newest revision of each, the checkpoint, and what is confirmed."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ScalarSelect, Select, func, or_, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.mail import AudienceTotal
from shared.contracts.news import STRONGEST_FIRST, Audience, ItemSnapshot
from shared.correlation import Correlation
from shared.database import insert_ignoring, upsert
from shared.messaging.outbox import outbox
from subscriptions.models import Fanout, FanoutBatch, FanoutState, Item, rank_of

LONGEST_PUT_OFF = timedelta(minutes=1)


class CheckpointMoved(Exception):
    """Somebody else moved the fan-out's checkpoint: this batch is theirs."""


async def keep_newest(session: AsyncSession, item: ItemSnapshot) -> None:
    """Keep the revision unless a newer one is known."""
    values = {
        "id": item.item_id,
        "revision": item.revision,
        "state": str(item.state),
        "snapshot": item.model_dump(mode="json"),
    }
    insert = upsert(session, Item.__table__).values(values)  # type: ignore[arg-type]
    newer = {name: insert.excluded[name] for name in ("revision", "state", "snapshot")}
    await session.execute(
        insert.on_conflict_do_update(index_elements=["id"], set_=newer, where=Item.revision < insert.excluded.revision)
    )


async def newest(session: AsyncSession, item_id: UUID) -> ItemSnapshot:
    """The newest revision seen."""
    snapshot = await session.scalar(select(Item.snapshot).where(Item.id == item_id))
    return ItemSnapshot.model_validate(snapshot)


async def begin(session: AsyncSession, item_id: UUID, trail: Correlation, at: datetime) -> None:
    """Record the item's fan-out unless it has one."""
    values = {
        "item_id": item_id,
        "state": str(FanoutState.PLANNING),
        "audience_rank": 0,
        "cut_short": False,
        "correlation_id": trail.correlation_id,
        "traceparent": trail.traceparent,
        "started_at": at,
        "failures": 0,
    }
    await session.execute(insert_ignoring(session, Fanout.__table__).values(values))  # type: ignore[arg-type]


def correlation_of(fanout: Fanout) -> Correlation:
    """The correlation that the item was published under."""
    return Correlation(fanout.correlation_id, fanout.traceparent)


async def unconfirmed(session: AsyncSession, *, limit: int) -> int:
    """How many events of this service wait for the broker, counted up to `limit`; an index answers it."""
    return await session.scalar(select(_waiting(limit))) or 0


async def outlook(session: AsyncSession, at: datetime, *, limit: int) -> "Outlook":
    """What there is to do, in one question: it is asked after every commit."""
    asked = select(_waiting(limit), _plannable(at).exists(), _concludable().exists())
    return Outlook(*(await session.execute(asked)).one())


class Outlook(NamedTuple):
    """How many events wait for the broker, up to a limit; whether a batch can be planned, a fan-out concluded."""

    waiting: int
    plannable: bool
    concludable: bool


def _waiting(limit: int) -> ScalarSelect[int]:
    waiting = select(outbox.c.created_at).where(outbox.c.published_at.is_(None)).limit(limit)
    return select(func.count()).select_from(waiting.subquery()).scalar_subquery()


async def take_plannable(session: AsyncSession, at: datetime) -> Fanout | None:
    """Lock the fan-out whose turn it is, skipping those in other hands: strongest audience first, then the oldest."""
    return await session.scalar(_plannable(at).limit(1).with_for_update(skip_locked=True))


async def take_concludable(session: AsyncSession) -> Fanout | None:
    """Lock a fan-out whose every batch the broker has confirmed."""
    return await session.scalar(_concludable().limit(1).with_for_update(skip_locked=True))


async def move_on(session: AsyncSession, fanout: Fanout, wanted: Iterable[Audience], last: UUID | None) -> None:
    """Move the checkpoint: to `last` in the audience at hand, or (`None`) to the next audience, or to the end."""
    if last is not None:
        await _checkpoint(session, fanout, last_subscriber_id=last)
        return
    left = [rank_of(audience) for audience in wanted if rank_of(audience) > fanout.audience_rank]
    if left:
        await _checkpoint(session, fanout, audience_rank=min(left), last_subscriber_id=None)
    else:
        await end_planning(session, fanout)


async def end_planning(session: AsyncSession, fanout: Fanout, *, cut_short: bool = False) -> None:
    """Nobody is left to be planned, or (`cut_short`) nobody more shall be."""
    await _checkpoint(session, fanout, state=str(FanoutState.PLANNED), cut_short=cut_short)


async def complete(session: AsyncSession, fanout: Fanout, at: datetime) -> None:
    """It has been told of."""
    mine = (Fanout.item_id == fanout.item_id, Fanout.state == FanoutState.PLANNED)
    await session.execute(update(Fanout).where(*mine).values(state=str(FanoutState.COMPLETED), completed_at=at))


async def totals(session: AsyncSession, item_id: UUID, wanted: Iterable[Audience]) -> tuple[AudienceTotal, ...]:
    """What the batches held, per audience of the item."""
    sums = select(FanoutBatch.audience_rank, func.sum(FanoutBatch.planned), func.sum(FanoutBatch.excluded))
    mine = sums.where(FanoutBatch.item_id == item_id).group_by(FanoutBatch.audience_rank)
    found = {
        STRONGEST_FIRST[rank]: (int(planned), int(excluded)) for rank, planned, excluded in await session.execute(mine)
    }
    return tuple(
        AudienceTotal(audience=audience, planned=planned, excluded=excluded)
        for audience in sorted(wanted, key=rank_of)
        for planned, excluded in [found.get(audience, (0, 0))]
    )


async def put_off(session: AsyncSession, item_id: UUID, at: datetime) -> int:
    """Try the fan-out again later, and later each time; returns the failures in a row."""
    fanout = await session.scalar(select(Fanout).where(Fanout.item_id == item_id).with_for_update())
    if fanout is None:
        return 0
    fanout.failures += 1
    fanout.retry_at = at + min(timedelta(seconds=2 ** min(fanout.failures, 10)), LONGEST_PUT_OFF)
    await session.flush()
    return fanout.failures


async def _checkpoint(session: AsyncSession, fanout: Fanout, **values: Any) -> None:
    """Write the fence as well as the values: the row must stand where this worker found it."""
    await session.flush()
    where_it_was = (
        Fanout.item_id == fanout.item_id,
        Fanout.state == FanoutState.PLANNING,
        Fanout.audience_rank == fanout.audience_rank,
        Fanout.last_subscriber_id.is_not_distinct_from(fanout.last_subscriber_id),
    )
    moved = update(Fanout).where(*where_it_was).values(failures=0, retry_at=None, **values)
    result: CursorResult[Any] = await session.execute(  # type: ignore[assignment]
        moved.execution_options(synchronize_session=False)
    )
    if result.rowcount != 1:
        raise CheckpointMoved


def _plannable(at: datetime) -> Select[Fanout]:
    due = or_(Fanout.retry_at.is_(None), Fanout.retry_at <= at)
    waiting = select(Fanout).where(Fanout.state == FanoutState.PLANNING, due)
    return waiting.order_by(Fanout.audience_rank, Fanout.started_at)


def _concludable() -> Select[Fanout]:
    """Planned, and no batch waits for the broker. A confirmed row that the relay has purged (after a day) is confirmed
    all the same: only waiting rows count. They are asked for first, being few: a row is large.
    """
    waiting = select(outbox.c.id).where(outbox.c.published_at.is_(None))
    unconfirmed_items = select(FanoutBatch.item_id).where(FanoutBatch.event_id.in_(waiting))
    return select(Fanout).where(Fanout.state == FanoutState.PLANNED, Fanout.item_id.not_in(unconfirmed_items))
