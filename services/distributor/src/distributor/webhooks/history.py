"""What became of an endpoint's webhooks: the last attempts, and sending again what it missed."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, exists, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from distributor import tallies
from distributor.ledger import attempts as tried
from distributor.ledger import deliveries, items, released
from distributor.states import DEFERRED, FAILED, PLANNED
from distributor.tallies import Moved
from shared import paging
from shared.contracts.delivery import Channel

Place = tuple[UUID, int]
"""An attempt's key: its delivery and its number."""

MISSED = (FAILED, DEFERRED)
MAX_NUMBER_DIGITS = 9


def encode(row: Row[Any]) -> str:
    """The cursor of the page after this attempt."""
    return f"{paging.encode(row.delivery_id)}.{row.number}"


def decode(cursor: str | None) -> Place | None:
    """The attempt behind a cursor; 422 where it is none of ours."""
    if cursor is None:
        return None
    delivery, _, number = cursor.partition(".")
    key = paging.decode(delivery)
    if key is None or not (number.isascii() and number.isdecimal() and len(number) <= MAX_NUMBER_DIGITS):
        raise paging.unknown_cursor()
    return key, int(number)


async def attempts(session: AsyncSession, endpoint_id: UUID, *, before: Place | None, limit: int) -> Sequence[Row[Any]]:
    """An endpoint's attempts, newest first; `before` begins the next page."""
    place = (tried.c.ended_at, tried.c.delivery_id, tried.c.number)
    query = (
        select(tried, deliveries.c.subject_id.label("item_id"), deliveries.c.revision, deliveries.c.form)
        .join(deliveries, deliveries.c.id == tried.c.delivery_id)
        .where(deliveries.c.recipient_id == endpoint_id, deliveries.c.channel == Channel.WEBHOOK)
        .order_by(*(column.desc() for column in place))
        .limit(limit)
    )
    if before is not None:
        last = select(*place).where(tried.c.delivery_id == before[0], tried.c.number == before[1])
        query = query.where(tuple_(*place) < last.scalar_subquery())
    return (await session.execute(query)).all()


async def recover(session: AsyncSession, endpoint_id: UUID, since: datetime, at: datetime) -> int:
    """Plan once more, at once and with the schedule begun anew, what ended badly or was put off after `since`."""
    theirs = (deliveries.c.recipient_id == endpoint_id, deliveries.c.channel == Channel.WEBHOOK)
    missed = (*theirs, deliveries.c.state.in_(MISSED), deliveries.c.changed_at >= since)
    subjects = set(await session.scalars(select(deliveries.c.subject_id).where(*missed)))
    # Under a share lock no correction passes between the question which revision is the newest and the answer.
    held = select(items.c.id).where(items.c.id.in_(subjects)).order_by(items.c.id).with_for_update(read=True)
    await session.execute(held)
    older = exists().where(items.c.id == deliveries.c.subject_id, items.c.newest_revision > deliveries.c.revision)
    again = released(at) | {"state": PLANNED, "next_attempt_at": at, "attempts": 0, "ended_reason": ""}
    rows = (await session.execute(select(deliveries).where(*missed, ~older).with_for_update())).all()
    if rows:
        await session.execute(update(deliveries).where(deliveries.c.id.in_([row.id for row in rows])).values(again))
        await tallies.moved(session, (Moved.of(row, PLANNED) for row in rows))
    return len(rows)
