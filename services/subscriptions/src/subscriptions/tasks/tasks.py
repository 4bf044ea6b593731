"""Raising, listing and closing tasks.

Raising is safe to repeat: while a task about the same thing is open, a second one only brings newer details. What a
task holds beside ids (a wish with a new address, say) is forgotten when it is closed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database import insert_ignoring
from shared.ids import new_id
from subscriptions.tasks.models import OPEN, Task

log = structlog.get_logger()


class TaskKind(StrEnum):
    """What there is to settle."""

    NEWSROOM_BOUNCED = "newsroom_bounced"
    NEWSROOM_COMPLAINED = "newsroom_complained"
    DESK_MISSING = "desk_missing"
    DESK_UNREACHABLE = "desk_unreachable"
    DESK_UNANSWERED = "desk_unanswered"
    DESK_WISH = "desk_wish"
    GROUP_RETURN = "group_return"
    GROUP_CONTACT_BOUNCED = "group_contact_bounced"


class TaskState(StrEnum):
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class About:
    """What a task is about, by id."""

    organisation_id: UUID | None = None
    group_id: UUID | None = None
    subscriber_id: UUID | None = None


class TaskClosed(Exception):
    """It was closed before."""


async def raise_task(
    session: AsyncSession, kind: TaskKind, about: About, at: datetime, details: Mapping[str, Any] | None = None
) -> bool:
    """Raise it, or bring newer details to the one that is open; whether it is new."""
    topic = f"{kind}:{about.organisation_id or about.group_id}:{about.subscriber_id or ''}"
    values = {
        "id": new_id(),
        "kind": str(kind),
        "topic": topic,
        "organisation_id": about.organisation_id,
        "group_id": about.group_id,
        "subscriber_id": about.subscriber_id,
        "details": dict(details or {}),
        "raised_at": at,
        "closed_because": "",
    }
    insert = insert_ignoring(session, Task.__table__).values(values)  # type: ignore[arg-type]
    raised = await session.scalar(insert.returning(Task.id))
    if raised is None:
        newer = update(Task).where(Task.topic == topic, OPEN).values(details=dict(details or {}))
        await session.execute(newer.execution_options(synchronize_session=False))
        return False
    place = about.organisation_id or about.group_id
    log.info("task_raised", task_id=str(raised), kind=str(kind), place_id=str(place))
    return True


async def listing(
    session: AsyncSession, *, after: UUID | None, limit: int, state: TaskState | None, kind: TaskKind | None
) -> Sequence[Task]:
    """In the order in which they were raised."""
    statement = select(Task).order_by(Task.id).limit(limit)
    if after is not None:
        statement = statement.where(Task.id > after)
    if state is not None:
        statement = statement.where(OPEN if state is TaskState.OPEN else ~OPEN)
    if kind is not None:
        statement = statement.where(Task.kind == kind)
    return (await session.scalars(statement)).all()


async def task(session: AsyncSession, task_id: UUID) -> Task | None:
    return await session.get(Task, task_id, populate_existing=True)


async def close(session: AsyncSession, task_id: UUID, reason: str, at: datetime) -> Task | None:
    """Close it with the reason; `None` where there is no such task, `TaskClosed` where it is closed."""
    mine = update(Task).where(Task.id == task_id, OPEN)
    closing = mine.values(closed_at=at, closed_because=reason, details={}).returning(Task.id)
    closed = await session.scalar(closing.execution_options(synchronize_session=False))
    found = await task(session, task_id)
    if closed is None and found is not None:
        raise TaskClosed
    return found


async def forget_wishes(session: AsyncSession, subscriber_id: UUID) -> None:
    """Drop what tasks hold of somebody who is erased; the tasks stay."""
    theirs = update(Task).where(Task.subscriber_id == subscriber_id).values(details={})
    await session.execute(theirs.execution_options(synchronize_session=False))
