"""Questions that the API asks of the ledger."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncSession

from distributor.ledger import attempts, bounce_reports, deliveries, exclusions
from shared.contracts.delivery import DeliveryState


async def find_deliveries(
    session: AsyncSession,
    *,
    item: UUID | None,
    recipient: UUID | None,
    state: DeliveryState | None,
    after: UUID | None,
    limit: int,
) -> Sequence[Row[Any]]:
    """Deliveries by any of item, recipient and state, in the order of their ids; `after` begins the next page."""
    query = select(deliveries).order_by(deliveries.c.id).limit(limit)
    if item is not None:
        query = query.where(deliveries.c.subject_id == item)
    if recipient is not None:
        query = query.where(deliveries.c.recipient_id == recipient)
    if state is not None:
        query = query.where(deliveries.c.state == state)
    if after is not None:
        query = query.where(deliveries.c.id > after)
    return (await session.execute(query)).all()


async def find_delivery(session: AsyncSession, key: UUID) -> Row[Any] | None:
    """One delivery."""
    return (await session.execute(select(deliveries).where(deliveries.c.id == key))).first()


async def attempts_of(session: AsyncSession, key: UUID) -> Sequence[Row[Any]]:
    """A delivery's attempts, oldest first."""
    query = select(attempts).where(attempts.c.delivery_id == key).order_by(attempts.c.number)
    return (await session.execute(query)).all()


async def bounces_of(session: AsyncSession, key: UUID) -> Sequence[Row[Any]]:
    """What came back of a delivery, oldest first."""
    query = select(bounce_reports).where(bounce_reports.c.delivery_id == key)
    ordered = query.order_by(bounce_reports.c.received_at, bounce_reports.c.digest)
    return (await session.execute(ordered)).all()


async def find_exclusions(session: AsyncSession, *, item: UUID, after: UUID | None, limit: int) -> Sequence[Row[Any]]:
    """Who of an item's audience was left out, and why."""
    query = select(exclusions).where(exclusions.c.item_id == item).order_by(exclusions.c.recipient_id).limit(limit)
    if after is not None:
        query = query.where(exclusions.c.recipient_id > after)
    return (await session.execute(query)).all()
