"""The outbox: an event is written in the transaction that it tells of, and published after the commit.

Publication is at least once and in no promised order. The event's id is the outbox row's and stays the same however
often it is published.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    Index,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    Uuid,
    case,
    delete,
    exists,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncSession

from shared import correlation
from shared.contracts.envelope import Envelope, Event
from shared.database import Database, Instant, insert_ignoring, plumbing
from shared.ids import new_id
from shared.messaging.bus import DIRECT, Message, Unroutable
from shared.messaging.topology import BULK, exchange_of

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
Index(
    "ix_outbox_published",
    outbox.c.published_at,
    postgresql_where=outbox.c.published_at.is_not(None),
    sqlite_where=outbox.c.published_at.is_not(None),
)


WAITING = outbox.c.published_at.is_(None)
IN_ORDER = (outbox.c.created_at, outbox.c.id)
IN_BULK = case((outbox.c.routing_key.in_(BULK), 1), else_=0)
BULK_TOGETHER = 4
"""Two thousand recipients, about a megabyte."""
MESSAGE = (outbox.c.id, outbox.c.exchange, outbox.c.routing_key, outbox.c.body)
PATIENT_ATTEMPTS = 4
"""So often an unroutable event is offered without a pause: the transport puts a lost queue back in the meantime."""
REFUSED_PAUSE = timedelta(seconds=30)
KEPT = timedelta(hours=24)
"""How long after its publication an event can be published again."""


async def emit(
    session: AsyncSession,
    event: Event,
    *,
    source: str,
    subject: object,
    at: datetime,
    event_id: UUID | None = None,
) -> UUID:
    """Write `event` into the outbox of the transaction at hand; returns its id.

    `source` is the emitting service's name. Give a derived `event_id` where doing the work twice must emit it once:
    a second emission under the same id is ignored.
    """
    row = outbox_row(event, source=source, subject=subject, at=at, event_id=event_id)
    await session.execute(insert_ignoring(session, outbox).values(row))
    key: UUID = row["id"]
    return key


def outbox_row(
    event: Event, *, source: str, subject: object, at: datetime, event_id: UUID | None = None
) -> dict[str, Any]:
    """The row that `emit` writes, for whoever writes many at once."""
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
    return _row(key, exchange_of(event.event_name), event.routing_key, envelope.model_dump_json().encode(), at)


async def redirect(session: AsyncSession, queue: str, body: bytes, at: datetime) -> None:
    """Send a message that was parked straight to its queue again."""
    await session.execute(insert_ignoring(session, outbox).values(_row(new_id(), DIRECT, queue, body, at)))


async def redirected(session: AsyncSession, key: UUID) -> AsyncIterator[Row[Any, Any]]:
    """Id and body of each message that was put back on its queue and has `key` in it; kept like all others."""
    mine = select(outbox.c.id).where(outbox.c.exchange == DIRECT)
    for row_id in (await session.scalars(mine)).all():
        row = (await session.execute(select(outbox.c.id, outbox.c.body).where(outbox.c.id == row_id))).one_or_none()
        if row is not None and str(key).encode() in row.body:
            yield row


async def rewrite(session: AsyncSession, row_id: UUID, body: bytes) -> None:
    """Say `body` instead."""
    await session.execute(update(outbox).where(outbox.c.id == row_id).values(body=body))


def _row(key: UUID, exchange: str, routing_key: str, body: bytes, at: datetime) -> dict[str, Any]:
    return {"id": key, "exchange": exchange, "routing_key": routing_key, "body": body, "created_at": at, "attempts": 0}


@dataclass(frozen=True, slots=True)
class Pending:
    """What waits to be published: since when the oldest, and whether any of it is free to be claimed."""

    oldest_at: datetime | None
    claimable: bool


async def pending(session: AsyncSession, database: Database) -> Pending:
    """Look without claiming."""
    oldest = select(outbox.c.created_at).where(WAITING).order_by(outbox.c.created_at).limit(1).scalar_subquery()
    claimable = exists().where(WAITING, _free(database))
    return Pending(*(await session.execute(select(oldest, claimable))).one())


async def claim(session: AsyncSession, database: Database, *, limit: int, lease: timedelta) -> list[Message]:
    """Lease the rows whose turn it is, skipping those that another relay holds. Of what comes in bulk only a few at
    once: until they are confirmed, a press release would wait behind them, and they are held in memory.
    """
    waiting = (
        select(outbox.c.id, IN_BULK.label("bulk"))
        .where(WAITING, _free(database))
        .order_by(IN_BULK, *IN_ORDER)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    found = (await session.execute(waiting)).all()
    first = [row.id for row in found if not row.bulk]
    ids = first + [row.id for row in found if row.bulk][: max(BULK_TOGETHER - len(first), 1)]
    if not found:
        return []
    values = {"leased_until": database.later(lease), "attempts": outbox.c.attempts + 1}
    leased = update(outbox).where(outbox.c.id.in_(ids)).values(values).returning(*MESSAGE)
    rows = {row.id: row for row in await session.execute(leased)}
    return [Message(str(row.id), row.exchange, row.routing_key, row.body) for row in map(rows.__getitem__, ids)]


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of a batch: confirmed, not confirmed, or refused because no queue is bound for it."""

    published: list[UUID] = field(default_factory=list)
    released: list[UUID] = field(default_factory=list)
    refused: list[UUID] = field(default_factory=list)

    def add(self, message_id: str, failure: Exception | None) -> None:
        """Note the answer to one message."""
        home = self.refused if isinstance(failure, Unroutable) else self.released
        (home if failure else self.published).append(UUID(message_id))


async def settle(session: AsyncSession, database: Database, settlement: Settlement, *, at: datetime) -> None:
    """Record what the broker confirmed, and give back what it did not. What it refused again and again waits a while
    each time, so that events without a queue do not keep the others from leaving.
    """
    if settlement.published:
        done = update(outbox).where(outbox.c.id.in_(settlement.published))
        await session.execute(done.values(published_at=at, leased_until=None))
    if settlement.released:
        back = update(outbox).where(outbox.c.id.in_(settlement.released))
        await session.execute(back.values(leased_until=None))
    if settlement.refused:
        waits = case((outbox.c.attempts < PATIENT_ATTEMPTS, null()), else_=database.later(REFUSED_PAUSE))
        await session.execute(update(outbox).where(outbox.c.id.in_(settlement.refused)).values(leased_until=waits))


def _free(database: Database) -> ColumnElement[bool]:
    return or_(outbox.c.leased_until.is_(None), outbox.c.leased_until <= database.now())


async def republish(session: AsyncSession, since: datetime) -> int:
    """Have everything that was published at `since` or later published once more, under the ids that it had; returns
    how many events that is. For a broker that has lost its data: who got an event before knows it again.
    """
    again = update(outbox).where(outbox.c.published_at >= since)
    result: CursorResult[Any] = await session.execute(  # type: ignore[assignment]
        again.values(published_at=None, leased_until=None, attempts=0)
    )
    return result.rowcount


async def purge(session: AsyncSession, before: datetime, limit: int) -> int:
    """Delete some that were published before `before`, the oldest first; returns how many. Until then they can be
    published again after a broker's loss.
    """
    old = select(outbox.c.id).where(outbox.c.published_at < before).order_by(outbox.c.published_at).limit(limit)
    result: CursorResult[Any] = await session.execute(delete(outbox).where(outbox.c.id.in_(old)))  # type: ignore[assignment]
    return result.rowcount
