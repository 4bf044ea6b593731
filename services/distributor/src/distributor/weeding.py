"""What of the ledger is dropped, and when: the statements of the retention job.

Two dates in a delivery's life after it has ended. When personal data is no longer kept, it is *forgotten*: address,
reason and links go, and the words of servers, which may quote the address; state, codes and instants stay. When the
ledger itself is no longer kept, it is *weeded*: its row, its attempts, its bounce reports and its arrival are deleted,
and its tally says that it was. A webhook's row has nothing personal and stays, so that an intranet that has an old item
can still be told; its attempts go.

Both walk subject by subject, the oldest first, in chunks of one short transaction each; the place that a walk has come
to is kept with the subject's content, so that a job that dies goes on where it was. A subject with something not yet
ended, or with follow-ups to be planned, is left for another day.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Row, and_, delete, exists, literal, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from distributor import tallies
from distributor.erasing import forget_words
from distributor.ledger import (
    PERSONAL,
    arrivals,
    attempts,
    bounce_reports,
    contents,
    deliveries,
    exclusions,
    items,
    stops,
)
from distributor.states import LEASED
from shared.contracts.delivery import Channel
from shared.contracts.mail import SubjectKind
from shared.database import among

CHUNK = 500
LEFT = "left "
"""Begins a place when something that was passed could not be dropped yet."""

Start = tuple[datetime, UUID, int]


@dataclass(frozen=True, slots=True)
class Rule:
    """One of the walks: the column that is set when a subject is through, what is done to deliveries, and whether only
    subjects of one kind are walked through.
    """

    name: str
    done: Column[Any]
    drop: Callable[[AsyncSession, Sequence[Row[Any]]], Awaitable[int]]
    only: SubjectKind | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What one chunk came to: how many were dropped, and the subject to go on after, when it is through or left."""

    dropped: int
    passed: Start | None


async def step(
    session: AsyncSession, rule: Rule, *, after: Start | None, before: datetime, at: datetime
) -> Step | None:
    """Do one chunk of the oldest subject from before `before` that waits; `None` when none does."""
    content = await _next(session, rule, after, before)
    if content is None:
        return None
    passed = (content.created_at, content.subject_id, content.revision)
    if await _is_followed_up(session, content.subject_id):
        return Step(0, passed)
    rows = await _chunk(session, content)
    ended = [row for row in rows if row.state != LEASED and row.next_attempt_at is None and row.changed_at < before]
    dropped = await rule.drop(session, ended) if ended else 0
    left = content.weeding_place.startswith(LEFT) or len(ended) < len(rows)
    if len(rows) == CHUNK:
        place = f"{LEFT if left else ''}{rows[-1].channel}:{rows[-1].recipient_id}"
        await _mark(session, content, weeding_place=place)
        return Step(dropped, None)
    if left:
        await _mark(session, content, weeding_place="")
        return Step(dropped, passed)
    return Step(dropped, passed if await _finish(session, rule, content, at) else None)


async def _next(session: AsyncSession, rule: Rule, after: Start | None, before: datetime) -> Row[Any] | None:
    order = (contents.c.created_at, contents.c.subject_id, contents.c.revision)
    columns: list[Column[Any]] = [*order, contents.c.subject_kind, contents.c.weeding_place]
    query = select(*columns).where(rule.done.is_(None), contents.c.created_at < before)
    if after is not None:
        last = (literal(value, column.type) for value, column in zip(after, order, strict=True))
        query = query.where(contents.c.created_at >= after[0], tuple_(*order) > tuple_(*last))
    if rule.only is not None:
        query = query.where(contents.c.subject_kind == rule.only)
    if rule is WEED:  # first things first: both walks keep their place in the same column
        query = query.where(contents.c.forgotten_at.is_not(None))
    return (await session.execute(query.order_by(*order).limit(1).with_for_update(skip_locked=True))).first()


async def _is_followed_up(session: AsyncSession, subject_id: UUID) -> bool:
    due = exists().where(items.c.id == subject_id, items.c.follow_ups_due_at.is_not(None))
    return bool(await session.scalar(select(due)))


async def _chunk(session: AsyncSession, content: Row[Any]) -> Sequence[Row[Any]]:
    place = (deliveries.c.channel, deliveries.c.recipient_id)
    query = select(deliveries).where(deliveries.c.subject_id == content.subject_id)
    query = query.where(deliveries.c.revision == content.revision)
    if come := content.weeding_place.removeprefix(LEFT):
        channel, _, recipient = come.partition(":")
        query = query.where(tuple_(*place) > tuple_(literal(channel), literal(UUID(recipient), place[1].type)))
    return (await session.execute(query.order_by(*place).limit(CHUNK).with_for_update())).all()


async def _finish(session: AsyncSession, rule: Rule, content: Row[Any], at: datetime) -> bool:
    """Everything has been dropped from the subject's deliveries; False where more is left of who was excluded."""
    if rule.done is contents.c.forgotten_at:
        # A mail of its own (a sign-in link, say) has its words with the subject.
        own = {"request": None} if content.subject_kind == SubjectKind.REQUEST else {}
        await _mark(session, content, forgotten_at=at, weeding_place="", **own)
        return True
    if await _weed_exclusions(session, content.subject_id) == CHUNK:
        return False
    if content.subject_kind == SubjectKind.REQUEST:
        await session.execute(delete(contents).where(_is(content)))
    else:
        await _mark(session, content, weeded_at=at, weeding_place="")
    return True


async def _mark(session: AsyncSession, content: Row[Any], **values: Any) -> None:
    await session.execute(update(contents).where(_is(content)).values(values))


def _is(content: Row[Any]) -> ColumnElement[bool]:
    return and_(contents.c.subject_id == content.subject_id, contents.c.revision == content.revision)


async def _weed_exclusions(session: AsyncSession, item_id: UUID) -> int:
    chunk = select(exclusions.c.recipient_id).where(exclusions.c.item_id == item_id).limit(CHUNK)
    ids = list(await session.scalars(chunk))
    theirs = delete(exclusions).where(exclusions.c.item_id == item_id, among(session, exclusions.c.recipient_id, ids))
    if ids:
        await session.execute(theirs)
    return len(ids)


async def _forget(session: AsyncSession, rows: Sequence[Row[Any]]) -> int:
    known = [row.id for row in rows if any(getattr(row, name) is not None for name in PERSONAL)]
    if known:
        await session.execute(
            update(deliveries).where(among(session, deliveries.c.id, known)).values(dict.fromkeys(PERSONAL))
        )
    await forget_words(session, [row.id for row in rows])
    return len(known)


async def _weed(session: AsyncSession, rows: Sequence[Row[Any]]) -> int:
    ids = [row.id for row in rows]
    for table in (attempts, bounce_reports, arrivals):
        await session.execute(delete(table).where(among(session, table.c.delivery_id, ids)))
    gone = [row for row in rows if row.channel == Channel.MAIL]
    await session.execute(delete(deliveries).where(among(session, deliveries.c.id, (row.id for row in gone))))
    standings = (tallies.standing_of(row._asdict()) for row in gone)
    await tallies.note(session, {}, weeded=Counter(standing for standing in standings if standing))
    return len(gone)


FORGET = Rule("forgotten", contents.c.forgotten_at, _forget)
FORGET_REQUESTS = Rule("requests_forgotten", contents.c.forgotten_at, _forget, SubjectKind.REQUEST)
"""Mails of their own go sooner: nobody is told of a correction to a receipt, and its words may name somebody else."""
WEED = Rule("weeded", contents.c.weeded_at, _weed)


async def weed_stops(session: AsyncSession, before: datetime, limit: int) -> int:
    """Drop words on recipients that say nothing any more: a resume, a pause that is over. What is in force stays, and
    so does an erasure.
    """
    over = (~stops.c.stopped) | (stops.c.until < before)
    key = (stops.c.recipient_id, stops.c.audience)
    old = (
        select(*key).where(stops.c.changed_at < before, over, ~stops.c.erased).order_by(stops.c.changed_at).limit(limit)
    )
    gone = [tuple(row) for row in await session.execute(old.with_for_update(skip_locked=True))]
    if gone:
        await session.execute(delete(stops).where(tuple_(*key).in_(gone)))
    return len(gone)
