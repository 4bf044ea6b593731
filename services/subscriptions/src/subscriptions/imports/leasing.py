"""Who has an import in hand: one of any number of workers, for as long as it renews its lease.

Everything that is written names the lease, so that a worker that slept through it and wakes writes nothing any more.
Instants come from the database server, since machines' clocks differ.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.clock import Clock
from shared.database import Database, instant
from shared.ids import new_id
from shared.tasks import end as end_tasks
from subscriptions.imports.imports import AT_WORK, ending, forget_file, turn
from subscriptions.imports.models import Import, ImportState

RENEW_EVERY_S = 2.0


class LostLease(Exception):
    """Somebody else has it in hand, or it has been ended: whoever hears this writes nothing."""


@dataclass(slots=True)
class Hand:
    """An import in a worker's hand. `rows` is how far the reading is; it is told with each renewal."""

    database: Database
    clock: Clock
    lasting: timedelta
    found: Import
    lease: UUID
    rows: int = 0

    @property
    def id(self) -> UUID:
        return self.found.id

    async def move(self, session: AsyncSession, **values: Any) -> None:
        """Write how far it is; `LostLease` where it is not ours any more."""
        mine = (Import.lease_id == self.lease, Import.state.in_(AT_WORK))
        if not await turn(session, self.id, *mine, **values):
            raise LostLease

    async def give_back(self, session: AsyncSession, **values: Any) -> None:
        """Let anybody go on with it."""
        await self.move(session, lease_id=None, leased_until=None, **values)

    async def put_off(self, session: AsyncSession, until: timedelta, **values: Any) -> None:
        """Let nobody go on with it before `until` has passed."""
        later = await instant(session, self.clock) + until
        await self.move(session, leased_until=later, **values)

    async def end(self, session: AsyncSession, state: ImportState, report: dict[str, Any], at: datetime) -> None:
        """End it; the file goes, and of a roll's report the counts alone stay."""
        counts = {**report, "rolls": [_counted(roll) for roll in report["rolls"]]} if "rolls" in report else report
        await self.move(session, report=counts, **ending(state, at))
        await forget_file(session, [self.id])

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Renew the lease for as long as the block takes."""
        renewing = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            await end_tasks([renewing])

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(min(RENEW_EVERY_S, self.lasting.total_seconds() / 3))
            async with self.database.transaction(quiet=True) as session:
                told = {"rows": self.rows} if self.found.state == ImportState.STORED else {}
                await self.put_off(session, self.lasting, **told)


async def claim(database: Database, clock: Clock, lasting: timedelta) -> Hand | None:
    """Take the oldest import that nobody works at."""
    async with database.reading() as session:
        if not await session.scalar(select(exists().where(_is_free(await instant(session, clock))))):
            return None
    async with database.transaction(quiet=True) as session:
        now, lease = await instant(session, clock), new_id()
        free = select(Import).where(_is_free(now)).order_by(Import.id).limit(1).with_for_update(skip_locked=True)
        found = await session.scalar(free)
        if found is None:
            return None
        await turn(session, found.id, lease_id=lease, leased_until=now + lasting)
        return Hand(database, clock, lasting, found, lease)


async def succeed(database: Database) -> None:
    """Go on at once with what a process that died had in hand. Only for who has the database to himself."""
    async with database.transaction(quiet=True) as session:
        held = update(Import).where(Import.state.in_(AT_WORK), Import.leased_until.is_not(None))
        await session.execute(held.values(lease_id=None, leased_until=None))


def _is_free(now: datetime) -> ColumnElement[bool]:
    return and_(Import.state.in_(AT_WORK), or_(Import.leased_until.is_(None), Import.leased_until <= now))


def _counted(roll: dict[str, Any]) -> dict[str, Any]:
    named = ("joining", "leaving", "changing")
    return {**roll, **{name: len(roll[name]) if isinstance(roll[name], list) else roll[name] for name in named}}
