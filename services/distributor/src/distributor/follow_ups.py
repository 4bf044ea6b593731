"""Taking back follows the original: whoever has an older revision is told, whoever was about to get it is not.

A correction or a withdrawal raises the item's newest revision; from that commit on nothing older begins. This worker
then walks through the item's older rows in small transactions:

- not begun: called off. After a correction it is planned anew in the newest revision, in its original form; what was
  itself a follow-up is replaced by one of the newest revision.
- sent, or uncertain: gets a follow-up, a correction or a withdrawal, in the recipient's form and thread. A doubtful
  row is not repeated any more.
- a digest that carries it: brought up to the newest revision, or freed of it, while it has not begun; whoever has got
  it is told in the thread of the digest.
- on its way out right now: looked at again in a moment, so that a row that ends as sent after the correction is told
  as well.

It may die anywhere and start again: a follow-up row is unique on the newest revision.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, and_, exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from distributor import digests, ledger
from distributor.ledger import (
    PERSONAL,
    contents,
    covers,
    deliveries,
    delivery_id,
    items,
    not_begun,
    progress_due,
    released,
    stops,
)
from distributor.states import CANCELLED, LEASED, MAY_HAVE_IT, PLANNED, UNCERTAIN
from shared.clock import Clock
from shared.contracts.mail import Form
from shared.database import Database, insert_ignoring, instant

log = structlog.get_logger()

CHUNK = 500
LOOK_AGAIN = timedelta(seconds=1)
POLL_S = 1.0
FOLLOW_UPS = (Form.CORRECTION, Form.WITHDRAWAL)


@dataclass(frozen=True, slots=True)
class DueItem:
    """An item whose older rows are to be walked through."""

    id: UUID
    revision: int
    withdrawn: bool

    @property
    def form(self) -> Form:
        return Form.WITHDRAWAL if self.withdrawn else Form.CORRECTION


class FollowUpWorker:
    """Walks through the older rows of items that were corrected or withdrawn."""

    name = "follow-ups"

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._woken = asyncio.Event()
        database.on_commit(self._woken.set)

    async def run(self, stop: asyncio.Event) -> None:
        """Follow up until `stop`."""
        while not stop.is_set():
            self._woken.clear()
            if not await self.step():
                await _either(self._woken, stop, POLL_S)

    async def step(self) -> bool:
        """One chunk of one item; False when nothing is due."""
        async with self._database.transaction(quiet=True) as session:
            item = await self._due(session)
            if item is None:
                return False
            now = await instant(session, self._clock)
            touched = await self._look(session, item, now)
            busy = not touched and await self._under_way(session, item)
            if not touched and not busy:  # what was on its way at the first look may have arrived before the question
                touched = await self._look(session, item, now)
            if touched:
                await progress_due(session, [item.id], now)
            else:
                await self._settle(session, item, now + LOOK_AGAIN if busy else None)
        if touched:
            self._database.wake()
            log.info("item_followed_up", item_id=str(item.id), revision=item.revision, deliveries=touched)
        return True

    async def _due(self, session: AsyncSession) -> DueItem | None:
        # A batch may tell of a revision before the news does; what was wrong with the last one, only the news says.
        newest = (contents.c.subject_id == items.c.id, contents.c.revision == items.c.newest_revision)
        heard = exists().where(*newest, contents.c.heard)
        query = (
            select(items.c.id, items.c.newest_revision, items.c.withdrawn)
            .where(items.c.follow_ups_due_at <= self._database.now(), heard)
            .order_by(items.c.follow_ups_due_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        row = (await session.execute(query)).first()
        return DueItem(*row) if row else None

    async def _look(self, session: AsyncSession, item: DueItem, now: datetime) -> int:
        touched = await self._call_off(session, item, now) + await self._tell(session, item, now)
        return touched or await self._look_at_digests(session, item, now)

    async def _look_at_digests(self, session: AsyncSession, item: DueItem, now: datetime) -> int:
        """After the item's own rows: who has been told of an earlier correction goes on in that thread."""
        newest = ledger.Newest(item.revision, item.withdrawn)
        moved = await digests.carry_newest(session, item.id, newest, now, CHUNK)
        return moved + await digests.tell_carriers(session, item.id, item.revision, item.form, now, CHUNK)

    async def _call_off(self, session: AsyncSession, item: DueItem, now: datetime) -> int:
        """Cancel what has not begun; plan it anew after a correction."""
        older = and_(deliveries.c.subject_id == item.id, deliveries.c.revision < item.revision)
        chunk = select(deliveries.c.id).where(older, not_begun()).limit(CHUNK).with_for_update()
        ids = list(await session.scalars(chunk))
        if not ids:
            return 0
        off = (
            update(deliveries)
            .where(deliveries.c.id.in_(ids), not_begun())
            .values(
                released(now) | {"state": CANCELLED, "ended_reason": "withdrawn" if item.withdrawn else "superseded"}
            )
            .returning(deliveries)
        )
        rows = (await session.execute(off)).all()
        if not item.withdrawn:
            anew = [self._replanned(row, item, now) for row in rows if row.form not in FOLLOW_UPS]
            await self._insert(session, anew)
        return len(rows)

    async def _tell(self, session: AsyncSession, item: DueItem, now: datetime) -> int:
        """Plan a follow-up for those who may have an older revision and have none of the newest."""
        newest = deliveries.alias("newest")
        told = exists().where(
            newest.c.subject_id == item.id,
            newest.c.revision == item.revision,
            newest.c.channel == deliveries.c.channel,
            newest.c.recipient_id == deliveries.c.recipient_id,
        )
        older = and_(deliveries.c.subject_id == item.id, deliveries.c.revision < item.revision)
        # The newest first, over all chunks: a follow-up belongs in the thread of everything that its reader has.
        query = select(deliveries).where(older, deliveries.c.state.in_(MAY_HAVE_IT), ~told)
        rows = (await session.execute(query.order_by(deliveries.c.revision.desc()).limit(CHUNK))).all()
        if not rows:
            return 0
        doubtful = [row.id for row in rows if row.state == UNCERTAIN]
        await session.execute(
            update(deliveries)
            .where(deliveries.c.id.in_(doubtful), deliveries.c.state == UNCERTAIN)
            .values(next_attempt_at=None, ended_reason="superseded")
        )
        stopped = await self._stopped(session, rows, now)
        await self._insert(session, [self._follow_up(row, item, now, stopped) for row in _once_each(rows)])
        return len(rows)

    async def _insert(self, session: AsyncSession, rows: Sequence[dict[str, Any]]) -> None:
        if rows:
            await session.execute(insert_ignoring(session, deliveries), rows)

    async def _stopped(self, session: AsyncSession, rows: Sequence[Row[Any]], now: datetime) -> set[UUID]:
        audience_of = {row.recipient_id: row.audience or "" for row in rows}
        query = select(stops).where(stops.c.recipient_id.in_(audience_of), stops.c.stopped)
        found = await session.execute(query)
        return {stop.recipient_id for stop in found if covers(stop, audience_of[stop.recipient_id], now)}

    def _replanned(self, row: Row[Any], item: DueItem, now: datetime) -> dict[str, Any]:
        return self._copy(row, item, now) | {"form": row.form, "thread_of": row.thread_of}

    def _follow_up(self, row: Row[Any], item: DueItem, now: datetime, stopped: set[UUID]) -> dict[str, Any]:
        thread = ",".join(part for part in (row.thread_of, str(row.revision)) if part)
        barred = row.recipient_id in stopped
        ended = {"state": CANCELLED, "ended_reason": "stopped", "next_attempt_at": None} if barred else {}
        return self._copy(row, item, now) | {"form": item.form, "thread_of": thread} | ended

    def _copy(self, row: Row[Any], item: DueItem, now: datetime) -> dict[str, Any]:
        kept = ("subject_kind", "subject_id", "channel", "recipient_id", "audience", "lane", "locale", *PERSONAL)
        return {name: getattr(row, name) for name in kept} | {
            "id": delivery_id(item.id, item.revision, row.channel, row.recipient_id),
            "revision": item.revision,
            "planned_at": now,
            "state": PLANNED,
            "ended_reason": "",
            "next_attempt_at": now,
            "leased_from": "",
            "tries": 0,
            "attempts": 0,
            "repeats": 0,
            "created_at": now,
            "changed_at": now,
        }

    async def _under_way(self, session: AsyncSession, item: DueItem) -> bool:
        """Whether something older is on its way out, or may come to be."""
        older = and_(deliveries.c.subject_id == item.id, deliveries.c.revision < item.revision)
        under_way = or_(deliveries.c.state == LEASED, deliveries.c.next_attempt_at.is_not(None))
        if await session.scalar(select(exists().where(older, under_way))):
            return True
        return await digests.under_way(session, item.id, item.revision)

    async def _settle(self, session: AsyncSession, item: DueItem, due_at: datetime | None) -> None:
        """Nothing to do at the moment: look again at `due_at`, or be done."""
        await session.execute(update(items).where(items.c.id == item.id).values(follow_ups_due_at=due_at))


def _once_each(rows: Sequence[Row[Any]]) -> list[Row[Any]]:
    """Each recipient's newest row: somebody who has revisions 1 and 2 gets one follow-up, in the thread of both."""
    newest: dict[tuple[str, UUID], Row[Any]] = {}
    for row in sorted(rows, key=lambda row: row.revision):
        newest[row.channel, row.recipient_id] = row
    return list(newest.values())


async def _either(first: asyncio.Event, second: asyncio.Event, timeout_s: float) -> None:
    waits = [asyncio.create_task(event.wait()) for event in (first, second)]
    await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
