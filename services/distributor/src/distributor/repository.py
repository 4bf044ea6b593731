"""Questions that the API asks of the ledger.

Each answers from an index and looks at a bounded number of rows, however large the ledger is. Where no index has just
what is asked for, a page looks through the next `WINDOW` rows and may hold fewer than it could.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Row, and_, literal_column, select, true, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from distributor.ledger import attempts, bounce_reports, deliveries, exclusions
from distributor.states import APART
from shared.contracts.delivery import DeliveryState

WINDOW = 5_000


@dataclass(frozen=True, slots=True)
class Found:
    """A page of deliveries, and the one to go on after; `None` when there are no more."""

    rows: Sequence[Row[Any]]
    following: UUID | None


async def find_deliveries(
    session: AsyncSession,
    *,
    item: UUID | None,
    recipient: UUID | None,
    state: DeliveryState | None,
    after: UUID | None,
    limit: int,
) -> Found:
    """Deliveries by any of item, recipient and state; `after` begins the next page."""
    wanted = {"subject_id": item, "recipient_id": recipient, "state": state}
    asked = {name: value for name, value in wanted.items() if value is not None}
    given, order = _path(asked)
    along: ColumnElement[bool] = and_(true(), *(deliveries.c[name] == asked.pop(name) for name in given))
    if "state" in given:
        along = and_(along, _apart())
    if after is not None:
        last = select(*order).where(deliveries.c.id == after).scalar_subquery()
        along = and_(along, tuple_(*order) > last if len(order) > 1 else deliveries.c.id > after)
    window = WINDOW if asked else limit + 1
    rows = (await session.execute(select(deliveries).where(along).order_by(*order).limit(window))).all()
    found = [row for row in rows if all(getattr(row, name) == value for name, value in asked.items())]
    if len(found) > limit:
        return Found(found[:limit], found[limit - 1].id)
    return Found(found, rows[-1].id if len(rows) == window else None)


def _path(asked: dict[str, Any]) -> tuple[tuple[str, ...], tuple[Column[Any], ...]]:
    """The index to go along: the columns that it has as they were asked for, and its order."""
    by_id = (deliveries.c.id,)
    if "recipient_id" in asked:
        return ("recipient_id",), by_id
    apart = asked.get("state") in APART
    if "subject_id" in asked:
        beside = (deliveries.c.channel, deliveries.c.recipient_id, deliveries.c.revision)
        return (("subject_id", "state"), by_id) if apart else (("subject_id",), beside)
    return (("state",) if apart else ()), by_id


def _apart() -> ColumnElement[bool]:
    """In the index's own words: SQLite uses one of a part of the rows only for a query that says them."""
    return deliveries.c.state.in_([literal_column(f"'{state}'") for state in APART])


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
