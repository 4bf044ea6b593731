"""Dead letters: messages that could not be handled, kept for a person to look at, mend and replay.

They live in the database of the service that could not handle them, whichever transport brought them. Replaying one
puts it back on its queue through the outbox; a second replay of the same letter is refused.
"""

import json
from collections.abc import AsyncIterator
from datetime import datetime
from hashlib import sha256
from uuid import UUID

from sqlalchemy import Column, Integer, LargeBinary, RowMapping, String, Table, Text, Uuid, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database import Instant, insert_ignoring, plumbing
from shared.ids import derived_id
from shared.logging import without_addresses
from shared.messaging import outbox
from shared.messaging.bus import DeadLetter, Incoming

dead_letters = Table(
    "dead_letters",
    plumbing,
    Column("id", Uuid, primary_key=True),
    Column("queue", String(100), nullable=False, index=True),
    Column("message_id", String(64), nullable=False),
    Column("event_type", String(100), nullable=False, default=""),
    Column("reason", String(50), nullable=False),
    Column("detail", Text, nullable=False, default=""),
    Column("attempts", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("body_sha256", String(64), nullable=False),
    Column("dead_at", Instant, nullable=False, index=True),
    Column("replayed_at", Instant),
)

PAGE = 50
"""Bodies that are in memory at once."""


class UnknownDeadLetter(Exception):
    """There is no dead letter with this id."""


class AlreadyReplayed(Exception):
    """It went back to its queue before; a second replay could do its work twice."""


async def park(
    session: AsyncSession, queue: str, incoming: Incoming, verdict: DeadLetter, event_type: str, at: datetime
) -> UUID:
    """Keep `incoming`. Parking the same message of the same queue twice keeps one: it may have come twice."""
    digest = sha256(incoming.body).hexdigest()
    key = derived_id("dead-letter", queue, incoming.message_id, digest)
    row = {
        "id": key,
        "queue": queue,
        "message_id": _storable(incoming.message_id)[:64],
        "event_type": _storable(event_type)[:100],
        "reason": verdict.reason,
        "detail": without_addresses(_storable(verdict.detail))[:4000],
        "attempts": incoming.attempt,
        "body": incoming.body,
        "body_sha256": digest,
        "dead_at": at,
    }
    await session.execute(insert_ignoring(session, dead_letters).values(row))
    return key


def _storable(text: str) -> str:
    """PostgreSQL takes no NUL, and what cannot be parked comes again for ever. The body keeps what was sent."""
    return text.replace("\0", "")


async def listing(session: AsyncSession, *, limit: int = 100) -> list[RowMapping]:
    """The dead letters that wait for somebody, newest first, without their bodies."""
    columns = [column for column in dead_letters.c if column.name != "body"]
    query = (
        select(*columns)
        .where(dead_letters.c.replayed_at.is_(None))
        .order_by(dead_letters.c.dead_at.desc())
        .limit(limit)
    )
    return list((await session.execute(query)).mappings())


async def find(session: AsyncSession, key: UUID) -> RowMapping:
    """One dead letter, with its body."""
    row = (await session.execute(select(dead_letters).where(dead_letters.c.id == key))).mappings().first()
    if row is None:
        raise UnknownDeadLetter(str(key))
    return row


async def replay(session: AsyncSession, key: UUID, at: datetime, *, body: bytes | None = None) -> None:
    """Put it back on its queue, mended where a `body` is given."""
    letter = await find(session, key)
    mark = update(dead_letters).where(dead_letters.c.id == key, dead_letters.c.replayed_at.is_(None))
    marked = await session.scalars(mark.values(replayed_at=at).returning(dead_letters.c.id))
    if marked.first() is None:
        raise AlreadyReplayed(str(key))
    await outbox.redirect(session, letter["queue"], _replayed(body or letter["body"], at), at)


def _replayed(body: bytes, at: datetime) -> bytes:
    """The event says when it was put back, so that its age counts from now; what is none stays as it is."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return body
    return json.dumps(event | {"replayedtime": at.isoformat()}).encode() if isinstance(event, dict) else body


async def mentioning(session: AsyncSession, key: UUID, *, event_type: str) -> AsyncIterator[RowMapping]:
    """The dead letters of a kind of event, or of none that can be told, whose body has `key` in it, page by page."""
    after, needle = UUID(int=0), str(key).encode()
    kind = or_(dead_letters.c.event_type.contains(event_type, autoescape=True), dead_letters.c.event_type == "")
    while True:
        query = select(dead_letters).where(kind, dead_letters.c.id > after).order_by(dead_letters.c.id).limit(PAGE)
        page = (await session.execute(query)).mappings().all()
        for letter in page:
            if needle in letter["body"]:
                yield letter
        if len(page) < PAGE:
            return
        after = page[-1]["id"]


async def rewrite(session: AsyncSession, key: UUID, body: bytes) -> None:
    """Keep `body` instead of what came, and nothing of what was said of it: an error may quote what came."""
    told = {"body": body, "body_sha256": sha256(body).hexdigest(), "detail": ""}
    await session.execute(update(dead_letters).where(dead_letters.c.id == key).values(told))


async def purge(session: AsyncSession, before: datetime, limit: int) -> int:
    """Delete some that died before `before`, whether or not anybody looked; returns how many."""
    old = select(dead_letters.c.id).where(dead_letters.c.dead_at < before).order_by(dead_letters.c.dead_at).limit(limit)
    gone = await session.scalars(delete(dead_letters).where(dead_letters.c.id.in_(old)).returning(dead_letters.c.id))
    return len(gone.all())
