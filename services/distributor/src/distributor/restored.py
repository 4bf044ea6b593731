"""A ledger that was put back from a backup does not know what it has sent since. It sends nothing until a person says
what it may.

The ledger knows its place (which database on which server, which file) and when it was last seen there, to a few
seconds. Found in another place, and not seen for ten minutes, it is a copy of an older state: senders wait, and an
alarm is raised. A standby that takes over is another place too, but was seen a moment ago.

`budkavle restored` lets it go on. What was planned before and had not gone when the backup was made, and what is
accepted again of that time, is then held as `uncertain`: its receiver may have it. With `--send` it goes out.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from prometheus_client import Gauge
from sqlalchemy import ColumnElement, Table, and_, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from distributor import tallies
from distributor.models import Delivery, LedgerHome
from distributor.states import LEASED, UNCERTAIN, UNSENT
from distributor.tallies import Moved
from shared.contracts.delivery import Channel
from shared.database import Database, among, insert_ignoring
from shared.tasks import pause

log = structlog.get_logger()

ABSENCE_BORNE = timedelta(minutes=10)
"""Longer than a standby takes to be promoted, and than a server to be moved to another machine in one go."""
LOOK_EVERY_S = 5.0
CHUNK = 500

homes: Table = LedgerHome.__table__  # type: ignore[assignment]
deliveries: Table = Delivery.__table__  # type: ignore[assignment]
waits = Gauge("budkavle_ledger_restored", "1 while senders wait for a word on a ledger that was put back from a backup")

ON_POSTGRESQL = text(
    "SELECT s.system_identifier || '/' || c.timeline_id || '/' || d.oid || '/' || 'deliveries'::regclass::oid"
    " FROM pg_control_system() s, pg_control_checkpoint() c, pg_database d WHERE d.datname = current_database()"
)


class NotRestored(Exception):
    """Nobody waits for a word: the ledger is where it was."""


@dataclass(frozen=True, slots=True)
class Gap:
    """From when the ledger was last seen until it was found elsewhere: what happened then it does not know."""

    since: datetime
    until: datetime


async def may_send(session: AsyncSession, database: Database) -> bool:
    """Look where the ledger is, and note that it was seen there."""
    place, now = await _place(session, database), (await session.execute(select(database.now()))).scalar_one()
    await session.execute(insert_ignoring(session, homes).values(id=1, place=place, seen_at=now))
    home = (await session.execute(select(homes).with_for_update())).one()
    if home.restored_at is None and home.place != place and now - home.seen_at > ABSENCE_BORNE:
        log.error("ledger_restored", seen_at=home.seen_at.isoformat(), found_at=now.isoformat())
        await session.execute(update(homes).values(place=place, restored_at=now))
        return False
    if home.restored_at is None:
        await session.execute(update(homes).values(place=place, seen_at=now))
    return home.restored_at is None


async def until_it_may(database: Database, stop: asyncio.Event) -> None:
    """Return when senders may begin, or shall end."""
    while not stop.is_set():
        async with database.transaction(quiet=True) as session:
            allowed = await may_send(session, database)
        waits.set(not allowed)
        if allowed:
            return
        await pause(stop, LOOK_EVERY_S)


async def _place(session: AsyncSession, database: Database) -> str:
    if not database.is_sqlite:
        return str(await session.scalar(ON_POSTGRESQL))
    known = await asyncio.to_thread(Path(database.engine.url.database or "").stat)
    return f"{known.st_dev}/{known.st_ino}"


async def gap(session: AsyncSession) -> Gap:
    """What the ledger does not know of, while senders wait for a word on it."""
    home = (await session.execute(select(homes).with_for_update())).first()
    if home is None or home.restored_at is None:
        raise NotRestored
    return Gap(home.seen_at, home.restored_at)


async def go_on(database: Database, *, send: bool) -> tuple[Gap, int]:
    """Let senders begin, and say how many mails are held. Unless `send`, whatever is accepted of the time before is
    held as well.
    """
    async with database.transaction() as session:
        unknown = await gap(session)
    held = 0
    while not send:
        async with database.transaction() as session:
            some = await hold(session, unknown.until, unknown.until)
        held += some
        if not some:
            break
    async with database.transaction() as session:
        await gap(session)  # nobody else was faster
        until = {"restored_at": None, "seen_at": database.now(), "held_before": None if send else unknown.until}
        await session.execute(update(homes).values(until))
    return unknown, held


async def hold(session: AsyncSession, before: datetime, at: datetime, subject_id: UUID | None = None) -> int:
    """Hold some mails that were planned before then and may have gone; returns how many, 0 when that was all."""
    open_again = and_(deliveries.c.state == UNCERTAIN, deliveries.c.next_attempt_at.is_not(None))
    which: list[ColumnElement[bool]] = [
        deliveries.c.channel == Channel.MAIL,
        deliveries.c.planned_at < before,
        or_(deliveries.c.state.in_((*UNSENT, LEASED)), open_again),
    ]
    if subject_id is not None:
        which.append(deliveries.c.subject_id == subject_id)
    query = select(deliveries).where(*which).order_by(deliveries.c.id).limit(CHUNK).with_for_update()
    rows = list(await session.execute(query))
    free = {"lease_owner": None, "leased_from": "", "begun_at": None, "changed_at": at}
    held: dict[str, Any] = {**free, "state": UNCERTAIN.value, "next_attempt_at": None, "ended_reason": "held"}
    await session.execute(
        update(deliveries).where(among(session, deliveries.c.id, (row.id for row in rows))).values(held)
    )
    await tallies.moved(session, [Moved.of(row, UNCERTAIN, "held") for row in rows])
    return len(rows)


async def hold_if_told_again(session: AsyncSession, subject_id: UUID, planned_at: datetime, at: datetime) -> None:
    """A batch of the time that the ledger does not know of comes again: its receivers may have it."""
    before = await session.scalar(select(homes.c.held_before))
    if before is not None and planned_at < before:
        while await hold(session, before, at, subject_id):
            pass
