"""What has happened to each subscription: one row per change, never altered, never taken away while the person is here.

A row tells what differed before and after, by whose hand and when, and which earlier change it undoes. It holds ids and
choices, never an address or a name, so that it can stay as proof when a person has been erased (see docs/privacy.md).
The database itself refuses to update a row, and to delete one whose subscriber exists.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import exists, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.news import Audience
from shared.database import among
from shared.ids import new_id
from shared.rows import put_rows
from subscriptions.frequencies import frequencies_of
from subscriptions.models import HistoryRow, Subscriber
from subscriptions.people import audiences_of

Standing = Mapping[str, Any]
"""How a person stands, by field, as JSON keeps it. `audience:<audience>` is `gets` or `left`."""

GETS, LEFT = "gets", "left"
AUDIENCE = "audience:"


class Act(StrEnum):
    """What happened."""

    JOINED = "joined"
    CHANGED = "changed"
    UNDONE = "undone"
    MOVED = "moved"
    ERASED = "erased"


class Source(StrEnum):
    """By whose hand."""

    SIGN_UP = "sign_up"
    PAGE = "page"
    UNSUBSCRIBE_LINK = "unsubscribe_link"
    UNDO = "undo"
    OFFICE = "office"
    IMPORT = "import"
    BOUNCE = "bounce"
    COMPLAINT = "complaint"
    WEEDING = "weeding"
    INVITATION = "invitation"
    GROUP = "group"
    RESTORE = "restore"
    """A backup that was put back had brought them back."""


@dataclass(frozen=True, slots=True)
class Change:
    """One row: what differed, before and after, by field; `None` is what there was not. `text_shown` names the text
    that the person consented to, if they did (see `consent`).
    """

    id: UUID
    subscriber_id: UUID
    at: datetime
    act: Act
    source: Source
    before: Standing
    after: Standing
    text_shown: str = ""


async def standing_of(session: AsyncSession, subscriber: Subscriber, left: Iterable[Audience]) -> Standing:
    """How the person stands in this transaction."""
    gone = set(left)
    held = sorted(await audiences_of(session, subscriber.id))
    chosen = (await frequencies_of(session, [subscriber.id])).get(subscriber.id, {})
    return {
        **{f"{AUDIENCE}{audience}": LEFT if audience in gone else GETS for audience in held},
        "topics": sorted(subscriber.topics),
        "municipalities": sorted(subscriber.municipalities),
        "frequencies": {topic: str(frequency) for topic, frequency in sorted(chosen.items())},
        "locale": str(subscriber.locale),
        "paused_until": subscriber.paused_until.isoformat() if subscriber.paused_until else None,
        "unsubscribed": subscriber.unsubscribed_at is not None,
        "suppressed": subscriber.suppressed_at is not None,
    }


def differing(before: Standing, after: Standing) -> tuple[Standing, Standing]:
    """The fields that differ, as they were and as they are."""
    fields = [field for field in {**before, **after} if before.get(field) != after.get(field)]
    return {field: before.get(field) for field in fields}, {field: after.get(field) for field in fields}


async def record(
    session: AsyncSession,
    subscriber_id: UUID,
    at: datetime,
    *,
    act: Act,
    source: Source,
    before: Standing,
    after: Standing,
    undoes_id: UUID | None = None,
    text_shown: str = "",
) -> Change:
    """Write one row."""
    change = Change(new_id(), subscriber_id, at, act, source, before, after, text_shown)
    await session.execute(insert(HistoryRow).values(**_values(change), undoes_id=undoes_id))
    return change


async def put_changes(session: AsyncSession, changes: Sequence[Change]) -> None:
    """Write many rows at once."""
    await put_rows(session, insert(HistoryRow.__table__), [_values(each) for each in changes])  # type: ignore[arg-type]


def _values(change: Change) -> dict[str, Any]:
    return {
        "id": change.id,
        "subscriber_id": change.subscriber_id,
        "at": change.at,
        "act": str(change.act),
        "source": str(change.source),
        "before": dict(change.before),
        "after": dict(change.after),
        "text_shown": change.text_shown,
    }


async def change(session: AsyncSession, change_id: UUID) -> Change | None:
    """One change."""
    row = await session.get(HistoryRow, change_id)
    return _change(row) if row is not None else None


async def newest_changes(
    session: AsyncSession, subscriber_id: UUID, *, limit: int, before: UUID | None = None
) -> list[Change]:
    """A person's changes, the newest first; `before` goes on where a page ended."""
    mine = select(HistoryRow).where(HistoryRow.subscriber_id == subscriber_id)
    if before is not None:
        mine = mine.where(HistoryRow.id < before)
    return [_change(row) for row in await session.scalars(mine.order_by(HistoryRow.id.desc()).limit(limit))]


async def changes_of(session: AsyncSession, subscriber_ids: Iterable[UUID]) -> dict[UUID, list[Change]]:
    """The whole history of each."""
    found: dict[UUID, list[Change]] = {}
    theirs = select(HistoryRow).where(among(session, HistoryRow.subscriber_id, subscriber_ids))
    for row in await session.scalars(theirs):
        found.setdefault(row.subscriber_id, []).append(_change(row))
    return found


async def is_undone(session: AsyncSession, change_id: UUID) -> bool:
    """Whether another change has undone this one."""
    return bool(await session.scalar(select(exists().where(HistoryRow.undoes_id == change_id))))


def _change(row: HistoryRow) -> Change:
    return Change(
        row.id, row.subscriber_id, row.at, Act(row.act), Source(row.source), row.before, row.after, row.text_shown
    )
