"""
The outbox: an event is written in the transaction that it tells of, and published after the commit.

Publication is at least once and in no promised order. The event's id is the outbox row's and stays the same however
often it is published.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Index, Integer, LargeBinary, String, Table, Uuid, delete, or_, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncSession

from shared import correlation
from shared.contracts.envelope import Envelope, Event
from shared.database import Database, Instant, insert_ignoring, plumbing
from shared.ids import new_id
from shared.messaging.bus import DIRECT, Message
from shared.messaging.topology import exchange_of

outbox = Table(
    "outbox",
    plumbing,
    Column("id", Uuid, primary_key=True),
    Column("exchange", String(50), nullable=False),
    Column("routing_key", String(100), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("leased_until", Instant),
    Column("attempts", Integer, nullable=False, default=0),
    Column("published_at", Instant),
)
Index(
    "ix_outbox_waiting",
    outbox.c.created_at,
    postgresql_where=outbox.c.published_at.is_(None),
    sqlite_where=outbox.c.published_at.is_(None),
)


async def emit(
    session: AsyncSession,
    event: Event,
    *,
    source: str,
    subject: object,
    at: datetime,
    event_id: UUID | None = None,
) -> UUID:
    """
    Write `event` into the outbox of the transaction at hand; returns its id.

    `source` is the emitting service's name. Give a derived `event_id` where doing the work twice must emit it once:
    a second emission under the same id is ignored.
    """
    key = event_id or new_id()
    trail = correlation.current()
    envelope = Envelope.wrap(
        event,
        event_id=key,
        source=f"/budkavle/{source}",
        subject=str(subject),
        time=at,
        correlation_id=trail.correlation_id,
        traceparent=trail.traceparent,
    )
    await _insert(
        session, key, exchange_of(event.event_name), event.routing_key, envelope.model_dump_json().encode(), at
    )
    return key


async def redirect(session: AsyncSession, queue: str, body: bytes, at: datetime) -> None:
    """Send a message that was parked straight to its queue again."""
    await _insert(session, new_id(), DIRECT, queue, body, at)


async def _insert(session: AsyncSession, key: UUID, exchange: str, routing_key: str, body: bytes, at: datetime) -> None:
    row = {"id": key, "exchange": exchange, "routing_key": routing_key, "body": body, "created_at": at, "attempts": 0}
    await session.execute(insert_ignoring(session, outbox).values(row))


async def claim(session: AsyncSession, database: Database, *, limit: int, lease: timedelta) -> list[Message]:
    """Lease the oldest waiting rows, skipping those that another relay holds."""
    now = database.now()
    free = or_(outbox.c.leased_until.is_(None), outbox.c.leased_until <= now)
    waiting = (
        select(outbox.c.id)
        .where(outbox.c.published_at.is_(None), free)
        .order_by(outbox.c.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = list(await session.scalars(waiting))
    if not ids:
        return []
    until = await session.scalar(select(now)) + lease  # type: ignore[operator]
    await session.execute(
        update(outbox).where(outbox.c.id.in_(ids)).values(leased_until=until, attempts=outbox.c.attempts + 1)
    )
    rows = await session.execute(select(outbox).where(outbox.c.id.in_(ids)).order_by(outbox.c.created_at))
    return [Message(str(row.id), row.exchange, row.routing_key, row.body) for row in rows]


async def settle(session: AsyncSession, *, published: list[str], released: list[str], at: datetime) -> None:
    """Record what the broker confirmed, and give back what it did not."""
    if published:
        done = outbox.c.id.in_([UUID(key) for key in published])
        await session.execute(update(outbox).where(done).values(published_at=at, leased_until=None))
    if released:
        back = outbox.c.id.in_([UUID(key) for key in released])
        await session.execute(update(outbox).where(back).values(leased_until=None))


async def purge(session: AsyncSession, before: datetime) -> int:
    """Delete what was published before `before`: until then it can be published again after a broker's loss."""
    result: CursorResult[Any] = await session.execute(delete(outbox).where(outbox.c.published_at < before))  # type: ignore[assignment]
    return result.rowcount
