"""Taking back follows the original: whoever has an older revision is told, whoever was about to get it is not.

A correction or a withdrawal raises the item's newest revision; from that commit on nothing older begins. This worker
then walks once through the item's rows, recipient by recipient, in small transactions that keep how far it has come:

- not begun: called off. After a correction it is planned anew in the newest revision, in its original form; what was
  itself a follow-up is replaced by one of the newest revision.
- sent, or uncertain: gets a follow-up, a correction or a withdrawal, in the recipient's form and thread. A doubtful
  row is not repeated any more. Whose address is no longer kept cannot be told: that row says so, cancelled.
- a digest that carries it: brought up to the newest revision, or freed of it, while it has not begun; whoever has got
  it is told in the thread of the digest.
- on its way out right now: noted as a late arrival, and looked at again until it has ended, so that a row that ends as
  sent after the correction is told as well.

It may die anywhere and start again: a follow-up row is unique on the newest revision.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, Row, Table, delete, exists, literal, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from distributor import digests, ledger, tallies
from distributor.ledger import (
    PERSONAL,
    contents,
    covers,
    deliveries,
    items,
    not_begun,
    plant,
    released,
    stops,
)
from distributor.models import LateArrival
from distributor.planning import delivery_id
from distributor.states import CANCELLED, LEASED, MAY_HAVE_IT, PLANNED, UNCERTAIN, UNSENT
from distributor.tallies import UNREACHABLE, Moved, Standing
from shared.clock import Clock
from shared.contracts.delivery import Channel
from shared.contracts.mail import Form
from shared.database import Database, among, insert_ignoring, instant

log = structlog.get_logger()

late_arrivals: Table = LateArrival.__table__  # type: ignore[assignment]

CHUNK = 500
LOOK_AGAIN = timedelta(seconds=1)
POLL_S = 1.0
FOLLOW_UPS = (Form.CORRECTION, Form.WITHDRAWAL)
START, DIGESTS, END = "", "digests", "end"
UNDER_WAY = (*UNSENT, LEASED)


@dataclass(frozen=True, slots=True)
class DueItem:
    """An item whose older rows are to be walked through, and how far the walk has come."""

    id: UUID
    revision: int
    withdrawn: bool
    followed_to: str

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
            if item.followed_to == END:
                touched = await self._meet_late(session, item, now)
            else:
                touched = await self._walk(session, item, now)
        if touched:
            self._database.wake()
            log.info("item_followed_up", item_id=str(item.id), revision=item.revision, deliveries=touched)
        return True

    async def _due(self, session: AsyncSession) -> DueItem | None:
        # A batch may tell of a revision before the news does; what was wrong with the last one, only the news says.
        newest = (contents.c.subject_id == items.c.id, contents.c.revision == items.c.newest_revision)
        heard = exists().where(*newest, contents.c.heard)
        query = (
            select(items.c.id, items.c.newest_revision, items.c.withdrawn, items.c.followed_to)
            .where(items.c.follow_ups_due_at <= self._database.now(), heard)
            .order_by(items.c.follow_ups_due_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        row = (await session.execute(query)).first()
        return DueItem(*row) if row else None

    async def _walk(self, session: AsyncSession, item: DueItem, now: datetime) -> int:
        """The next recipients' rows."""
        if item.followed_to == START:
            await _count_unreachable(session, item)
        if item.followed_to.startswith(DIGESTS):
            rows, last = await self._carriers(session, item)
        else:
            rows, last = await self._stretch(session, item)
        touched, under_way = await self._look(session, item, rows, now)
        if under_way:
            late = [{"item_id": item.id, "delivery_id": row.id} for row in under_way]
            await session.execute(insert_ignoring(session, late_arrivals), late)
        await session.execute(update(items).where(items.c.id == item.id).values(followed_to=last))
        return touched

    async def _stretch(self, session: AsyncSession, item: DueItem) -> tuple[Sequence[Row[Any]], str]:
        """The item's own rows first: who has been told of an earlier correction goes on in that thread."""
        place = (deliveries.c.channel, deliveries.c.recipient_id, deliveries.c.revision)
        query = select(deliveries).where(deliveries.c.subject_id == item.id, deliveries.c.revision < item.revision)
        if item.followed_to != START:
            query = query.where(tuple_(*place[:2]) > _key(item.followed_to))
        rows = (await session.execute(query.order_by(*place).limit(CHUNK))).all()
        if len(rows) < CHUNK:
            return rows, DIGESTS
        last = _place(rows[-1])
        if _place(rows[0]) != last:  # the last recipient may have more rows than we saw
            rows = [row for row in rows if _place(row) != last]
        return rows, _place(rows[-1])

    async def _carriers(self, session: AsyncSession, item: DueItem) -> tuple[Sequence[Row[Any]], str]:
        """Then the digests that carry it."""
        _, *ids = item.followed_to.split(":")
        after = (UUID(ids[0]), UUID(ids[1])) if ids else None
        rows, place = await digests.carriers(session, item.id, item.revision, after, CHUNK)
        return rows, ":".join((DIGESTS, *map(str, place))) if place else END

    async def _meet_late(self, session: AsyncSession, item: DueItem, now: datetime) -> int:
        """Those that were on their way when we passed; done when all have arrived."""
        mine = late_arrivals.c.item_id == item.id
        ids = select(late_arrivals.c.delivery_id).where(mine)
        rows = (await session.execute(select(deliveries).where(deliveries.c.id.in_(ids)))).all()
        touched, under_way = await self._look(session, item, rows, now)
        left = [row.id for row in under_way]
        await session.execute(delete(late_arrivals).where(mine, late_arrivals.c.delivery_id.not_in(left)))
        due_at = now + LOOK_AGAIN if left else None
        await session.execute(update(items).where(items.c.id == item.id).values(follow_ups_due_at=due_at))
        return touched

    async def _look(
        self, session: AsyncSession, item: DueItem, rows: Sequence[Row[Any]], now: datetime
    ) -> tuple[int, list[Row[Any]]]:
        """Call off and tell; returns how many, and the rows that are on their way out."""
        own = [row for row in rows if row.edition_id is None]
        by_digest = [row for row in rows if row.edition_id is not None]
        off = await self._call_off(session, item, _waiting(own), now)
        told = await self._tell(session, item, _arrived(own), now)
        newest = ledger.Newest(item.revision, item.withdrawn)
        off |= await digests.carry_newest(session, item.id, newest, now, _waiting(by_digest))
        told += await digests.tell_carriers(session, item.id, item.revision, item.form, now, _arrived(by_digest))
        return len(off) + told, [row for row in rows if row.state in UNDER_WAY and row.id not in off]

    async def _call_off(self, session: AsyncSession, item: DueItem, ids: Sequence[UUID], now: datetime) -> set[UUID]:
        """Cancel what has not begun; plan it anew after a correction."""
        query = select(deliveries).where(among(session, deliveries.c.id, ids), not_begun()).order_by(deliveries.c.id)
        rows = (await session.execute(query.with_for_update())).all() if ids else []
        if rows:
            reason = "withdrawn" if item.withdrawn else "superseded"
            off = update(deliveries).where(among(session, deliveries.c.id, (row.id for row in rows)))
            await session.execute(off.values(released(now) | {"state": CANCELLED, "ended_reason": reason}))
            await tallies.moved(session, (Moved.of(row, CANCELLED, reason) for row in rows))
        if not item.withdrawn:
            await plant(session, [self._replanned(row, item, now) for row in rows if row.form not in FOLLOW_UPS])
        return {row.id for row in rows}

    async def _tell(self, session: AsyncSession, item: DueItem, rows: Sequence[Row[Any]], now: datetime) -> int:
        """Plan a follow-up for those who may have an older revision, unless they have a row of the newest."""
        if not rows:
            return 0
        doubtful = [row.id for row in rows if row.state == UNCERTAIN]
        await session.execute(
            update(deliveries)
            .where(among(session, deliveries.c.id, doubtful), deliveries.c.state == UNCERTAIN)
            .values(next_attempt_at=None, ended_reason="superseded")
        )
        stopped = await self._stopped(session, rows, now)
        await plant(session, [self._follow_up(row, item, now, stopped) for row in _once_each(rows)])
        return len(rows)

    async def _stopped(self, session: AsyncSession, rows: Sequence[Row[Any]], now: datetime) -> set[UUID]:
        audience_of = {row.recipient_id: row.audience or "" for row in rows}
        query = select(stops).where(among(session, stops.c.recipient_id, audience_of), stops.c.stopped)
        found = await session.execute(query)
        return {stop.recipient_id for stop in found if covers(stop, audience_of[stop.recipient_id], now)}

    def _replanned(self, row: Row[Any], item: DueItem, now: datetime) -> dict[str, Any]:
        return self._copy(row, item, now) | {"form": row.form, "thread_of": row.thread_of}

    def _follow_up(self, row: Row[Any], item: DueItem, now: datetime, stopped: set[UUID]) -> dict[str, Any]:
        thread = ",".join(part for part in (row.thread_of, str(row.revision)) if part)
        told = self._copy(row, item, now) | {"form": item.form, "thread_of": thread}
        forgotten = row.channel == Channel.MAIL and row.address is None
        if row.recipient_id not in stopped and not forgotten:
            return told
        reason = "stopped" if row.recipient_id in stopped else UNREACHABLE
        return told | {"state": CANCELLED, "ended_reason": reason, "next_attempt_at": None}

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


async def _count_unreachable(session: AsyncSession, item: DueItem) -> None:
    """Those who got it so long ago that not even their rows are kept are counted: nobody can tell them. Once."""
    while not await tallies.fold(session, item.id):
        pass
    known = [row for row in await tallies.of_item(session, item.id) if row.weeded]
    if any((row.revision, row.mark) == (item.revision, UNREACHABLE) for row in known):
        return
    lost: dict[Standing, int] = {}
    for row in known:
        if row.form not in FOLLOW_UPS and row.state in MAY_HAVE_IT:
            told = Standing(item.id, item.revision, row.channel, row.audience, item.form, CANCELLED, UNREACHABLE)
            lost[told] = lost.get(told, 0) + int(row.weeded)
    await tallies.note(session, lost, weeded=lost)


def _waiting(rows: Sequence[Row[Any]]) -> list[UUID]:
    return [row.id for row in rows if row.state in UNDER_WAY]


def _arrived(rows: Sequence[Row[Any]]) -> list[Row[Any]]:
    return [row for row in rows if row.state in MAY_HAVE_IT]


def _place(row: Row[Any]) -> str:
    return f"{row.channel}:{row.recipient_id}"


def _key(place: str) -> ColumnElement[Any]:
    channel, _, recipient = place.partition(":")
    return tuple_(literal(channel), literal(UUID(recipient), deliveries.c.recipient_id.type))


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
