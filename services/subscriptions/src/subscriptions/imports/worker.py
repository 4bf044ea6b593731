"""Carries imports: checks what was stored, writes what was agreed to.

A stretch of a list and the checkpoint behind it are one transaction, and a roll is one: whatever dies on the way, the
next worker goes on where the database says, and writes nothing twice. A worker that is stopped gives its lease back.
What fails is tried again, a few times, and then ends with what was written so far.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from typing import BinaryIO
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from shared.clock import Clock
from shared.contracts.news import Audience
from shared.database import Database
from shared.tasks import pause
from subscriptions import csv_reading
from subscriptions.importing import Writing, check, next_chunk
from subscriptions.imports import imports
from subscriptions.imports.leasing import Hand, LostLease, claim
from subscriptions.imports.models import Import, ImportState
from subscriptions.rolls import importing as rolls
from subscriptions.rolls.importing import RollChanged
from subscriptions.rolls.schemas import RollReport
from subscriptions.schemas import ImportReport
from subscriptions.weeding_log import Weeded, note

log = structlog.get_logger()

POLL_S = 1.0
WEED_S = 60.0
LEASE = timedelta(seconds=15)
"""Several renewals may fail before somebody else goes on; after a crash the import stands still for this long."""
RETRY_AFTER = timedelta(seconds=10)
MOST_FAILURES = 5


class ImportWorker:
    """Looks once a second. Any number of replicas may run."""

    name = "imports"

    def __init__(self, database: Database, clock: Clock, *, lease: timedelta = LEASE) -> None:
        self._database = database
        self._clock = clock
        self._lease = lease
        self._stop = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        self._stop = stop
        weeded_s = WEED_S
        while not stop.is_set():
            if await self.advance():
                continue
            if weeded_s >= WEED_S:
                await self.weed()
                weeded_s = 0.0
            await pause(stop, POLL_S)
            weeded_s += POLL_S

    async def advance(self) -> bool:
        """Carry one import through its next step; whether there was one."""
        hand = await claim(self._database, self._clock, self._lease)
        if hand is None:
            return False
        try:
            async with hand.held(), self._file(hand.id) as source:
                await self._carry(hand, source)
        except LostLease:
            log.info("import_lease_lost", import_id=str(hand.id))
        except Exception as error:
            log.error("import_failed", import_id=str(hand.id), failures=hand.found.failures + 1, exc_info=error)
            with contextlib.suppress(LostLease):
                await self._put_off(hand)
        return True

    async def weed(self) -> None:
        """End and drop what has had its time."""
        now = self._clock.now()
        async with self._database.reading() as session:
            if not await imports.has_weeds(session, now):
                return
        async with self._database.transaction(quiet=True) as session:
            count = await imports.weed(session, now)
            await note(session, Weeded.IMPORTS, now, count)
        log.info("imports_weeded", count=count)

    @asynccontextmanager
    async def _file(self, import_id: UUID) -> AsyncIterator[BinaryIO]:
        """The file, on a disk where nobody else finds it."""
        async with self._database.reading() as session:
            content = await imports.content_of(session, import_id)
        with tempfile.TemporaryFile() as source:
            await asyncio.to_thread(imports.unpack, content, source)
            del content
            yield source

    async def _carry(self, hand: Hand, source: BinaryIO) -> None:
        if hand.found.state == ImportState.STORED:
            await (self._compare if hand.found.is_roll else self._check)(hand, source)
        else:
            await (self._apply if hand.found.is_roll else self._write)(hand, source)

    async def _check(self, hand: Hand, source: BinaryIO) -> None:
        async def tell(rows: int) -> None:
            hand.rows = rows
            await self._ask_to_stop(hand)

        audience, compares = Audience(hand.found.audience), not hand.found.is_agreed
        report = await check(self._database, source, audience, self._clock.now(), compares=compares, tell=tell)
        await self._checked(hand, report, version="")

    async def _compare(self, hand: Hand, source: BinaryIO) -> None:
        report = await rolls.compare_file(self._database, source, self._clock.now())
        await self._checked(hand, report, version=report.version)

    async def _checked(self, hand: Hand, report: ImportReport | RollReport, version: str) -> None:
        told, now, following = report.model_dump(mode="json"), self._clock.now(), ImportState.CHECKED
        if hand.found.is_agreed:
            following = ImportState.WRITING
        async with self._database.transaction(quiet=True) as session:
            await hand.move(session, rows=report.rows)
            if report.errors:
                await hand.end(session, ImportState.REFUSED, told, now)
            else:
                await hand.give_back(session, state=following, report=told, version=version, failures=0)
        log.info("import_checked", import_id=str(hand.id), rows=report.rows, faults=len(report.errors))

    async def _write(self, hand: Hand, source: BinaryIO) -> None:
        report = _so_far(hand.found)
        writing, done = Writing(self._database, report.audience, report, self._clock.now()), hand.found.rows_done
        with closing(csv_reading.checked_rows(source, report.audience, after=hand.found.line)) as rows:
            while chunk := await asyncio.to_thread(next_chunk, rows):
                done += len(chunk)
                async with self._database.transaction(quiet=True) as session:
                    await writing.write(session, chunk)
                    told = report.model_dump(mode="json")
                    await hand.move(session, line=chunk[-1].line, rows_done=done, report=told, failures=0)
                await self._ask_to_stop(hand)
        async with self._database.transaction(quiet=True) as session:
            await hand.end(session, ImportState.DONE, report.model_dump(mode="json"), self._clock.now())
        log.info("import_done", import_id=str(hand.id), rows=done)

    async def _apply(self, hand: Hand, source: BinaryIO) -> None:
        async def finish(session: AsyncSession, report: RollReport) -> None:
            await hand.move(session, rows_done=report.rows)
            await hand.end(session, ImportState.DONE, report.model_dump(mode="json"), self._clock.now())

        def is_shown(version: str) -> bool:
            return version == hand.found.version

        try:
            await rolls.apply_file(self._database, source, is_shown, self._clock.now(), finish)
        except RollChanged:
            async with self._database.transaction(quiet=True) as session:
                await hand.give_back(session, state=ImportState.STORED, is_agreed=False, is_compared_again=True)
            log.info("import_compared_again", import_id=str(hand.id))
        else:
            log.info("import_done", import_id=str(hand.id), rows=hand.found.rows)

    async def _ask_to_stop(self, hand: Hand) -> None:
        """Where the process is told to end, somebody else goes on."""
        if self._stop.is_set():
            async with self._database.transaction(quiet=True) as session:
                await hand.give_back(session)
            raise LostLease

    async def _put_off(self, hand: Hand) -> None:
        """Try again in a while, or end it: what failed so often would fail again."""
        failures = hand.found.failures + 1
        async with self._database.transaction(quiet=True) as session:
            newest = await imports.look(session, hand.id)
            if newest is None or failures < MOST_FAILURES:
                await hand.put_off(session, RETRY_AFTER, failures=failures)
            else:
                await hand.end(session, ImportState.FAILED, newest.report, self._clock.now())


def _so_far(found: Import) -> ImportReport:
    """What is written already; a list that is begun has counted nothing."""
    if found.line:
        return ImportReport.model_validate(found.report)
    return ImportReport(dry_run=False, audience=Audience(found.audience), rows=found.rows)
