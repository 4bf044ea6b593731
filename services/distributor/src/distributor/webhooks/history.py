"""What became of an endpoint's webhooks: the last attempts, and sending again what it missed."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, exists, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from distributor import tallies
from distributor.ledger import attempts as tried
from distributor.ledger import contents, deliveries, items, plant, released, webhook_row
from distributor.states import DEFERRED, FAILED, LEASED, PLANNED, SENT, UNCERTAIN
from distributor.tallies import Moved
from distributor.webhooks.endpoints import is_for
from distributor.webhooks.models import Endpoint
from shared import paging
from shared.contracts.delivery import Channel
from shared.contracts.mail import Form
from shared.contracts.news import ItemSnapshot
from shared.database import among

CURSOR = rf"{paging.CURSOR}\.[0-9]{{1,9}}"

Place = tuple[UUID, int]
"""An attempt's key: its delivery and its number."""

MISSED = (FAILED, DEFERRED)
HAS_OR_GETS = (PLANNED, LEASED, DEFERRED, SENT, UNCERTAIN)


def encode(row: Row[Any]) -> str:
    """The cursor of the page after this attempt."""
    return f"{paging.encode(row.delivery_id)}.{row.number}"


def decode(cursor: str | None) -> Place | None:
    """The attempt behind a cursor; 422 where it is none of ours."""
    if cursor is None:
        return None
    if not re.fullmatch(CURSOR, cursor):
        raise paging.unknown_cursor()
    delivery, _, number = cursor.partition(".")
    return paging.key_of(delivery), int(number)


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


async def recover(session: AsyncSession, endpoint: Endpoint, since: datetime, at: datetime) -> int:
    """Plan once more, at once and with the schedule begun anew, what ended badly or was put off after `since`; and what
    was never planned in its newest revision, since the endpoint was disabled, or had failed to take an older one.
    """
    theirs = (deliveries.c.recipient_id == endpoint.id, deliveries.c.channel == Channel.WEBHOOK)
    missed = (*theirs, deliveries.c.state.in_(MISSED), deliveries.c.changed_at >= since)
    subjects = set(await session.scalars(select(deliveries.c.subject_id).where(*missed)))
    # Under a share lock no correction passes between the question which revision is the newest and the answer.
    held = (
        select(items.c.id).where(among(session, items.c.id, subjects)).order_by(items.c.id).with_for_update(read=True)
    )
    await session.execute(held)
    older = exists().where(items.c.id == deliveries.c.subject_id, items.c.newest_revision > deliveries.c.revision)
    again = released(at) | {"state": PLANNED, "next_attempt_at": at, "attempts": 0, "ended_reason": ""}
    rows = (await session.execute(select(deliveries).where(*missed, ~older).with_for_update())).all()
    if rows:
        await session.execute(
            update(deliveries).where(among(session, deliveries.c.id, (row.id for row in rows))).values(again)
        )
        await tallies.moved(session, (Moved.of(row, PLANNED) for row in rows))
    return len(rows) + await _plan_unplanned(session, endpoint, since, at)


async def _plan_unplanned(session: AsyncSession, endpoint: Endpoint, since: datetime, at: datetime) -> int:
    """Plan the items since then that the endpoint neither has nor is about to get. What is older than the endpoint it
    did not miss.
    """
    newest = (contents.c.subject_id == items.c.id) & (contents.c.revision == items.c.newest_revision)
    has = exists().where(
        deliveries.c.subject_id == items.c.id,
        deliveries.c.recipient_id == endpoint.id,
        deliveries.c.channel == Channel.WEBHOOK,
        or_(deliveries.c.revision >= items.c.newest_revision, deliveries.c.state.in_(HAS_OR_GETS)),
    )
    query = (
        select(contents.c.item)
        .select_from(items.join(contents, newest))
        .where(~items.c.withdrawn, contents.c.heard, ~has, contents.c.created_at >= max(since, endpoint.created_at))
        .order_by(items.c.id)
        .with_for_update(read=True, of=items)
    )
    told = [ItemSnapshot.model_validate(item) for item in await session.scalars(query)]
    rows = [
        webhook_row(item.item_id, item.revision, endpoint.id, Form.NEWS, item.revised_at, at)
        for item in told
        if is_for(endpoint, item)
    ]
    await plant(session, rows)
    return len(rows)
