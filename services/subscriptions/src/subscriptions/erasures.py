"""Who was erased stays erased, also when the database is put back from a backup.

An erasure is a row here, by id alone, and a moment later a line of the list of the erased, a file outside the
databases. Whoever stands in the file and not in the table was erased after the backup that the database was put back
from: they are erased again, and the distributor is told again. That is looked for at the start, before a line is added,
and as long as the process runs. It may be done twice and by two at once: who is gone is gone. What the backup was still
importing ends: it may name somebody who was imported by it, and erased.

A file that is lost is written anew from the table.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy import Table, exists, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.clock import Clock
from shared.database import Database, among
from shared.tasks import pause
from subscriptions import address_changes, forgetting
from subscriptions.erased_file import PAGE, ErasedFile
from subscriptions.erasing import blank_outbox, erase
from subscriptions.groups.models import Invitation
from subscriptions.history import Source
from subscriptions.imports import imports
from subscriptions.models import AddressChange, Erasure, SignUp, Subscriber

log = structlog.get_logger()

LOOK_EVERY_S = 2.0
AFTER_FAILURE_S = 60.0

erasures: Table = Erasure.__table__  # type: ignore[assignment]


class ErasureKeeper:
    """Holds the database against the list, and the list against the database. Any number of replicas may run."""

    name = "erasures"

    def __init__(self, database: Database, clock: Clock, file: ErasedFile | None) -> None:
        self._database = database
        self._clock = clock
        self._file = file

    async def run(self, stop: asyncio.Event) -> None:
        if self._file is None:
            await stop.wait()
            return
        held = False
        while not stop.is_set():
            try:
                if not held:
                    await hold(self._database, self._clock, self._file)
                held = True
                await self.look()
            except OSError as error:  # the disk is full, or somebody has taken the directory away
                log.warning("erasures_not_listed", error=type(error).__name__)
                await pause(stop, AFTER_FAILURE_S)
            await pause(stop, LOOK_EVERY_S)

    async def look(self) -> None:
        """One round. The newest line tells of a database that is older than the list."""
        assert self._file is not None
        newest = await asyncio.to_thread(self._file.last)
        if newest is not None and await _unknown(self._database, [newest]):
            await hold(self._database, self._clock, self._file)
        await note(self._database, self._file)


async def hold(database: Database, clock: Clock, file: ErasedFile) -> int:
    """Erase again whoever stands in the list and is not known to have been erased; how many people that were."""
    pages = await asyncio.to_thread(lambda: list(file.pages()))
    lost = [recipient_id for page in pages for recipient_id in await _unknown(database, page)]
    if not lost:
        return 0
    async with database.transaction() as session:
        ended = await imports.cancel_all(session, clock.now())
    people = 0
    for recipient_id in lost:
        async with database.transaction() as session:
            people += await _erase_again(session, recipient_id, clock.now())
    log.warning("erased_again", ids=len(lost), people=people, imports_ended=ended)
    return people


async def note(database: Database, file: ErasedFile) -> None:
    """Add to the list what is not in it. Whoever dies before the table says so adds it twice, which is no harm."""
    if not file.exists():
        await _begin_anew(database)
    while True:
        async with database.reading() as session:
            waiting = select(erasures.c.recipient_id, erasures.c.at).where(erasures.c.noted_at.is_(None))
            rows = (await session.execute(waiting.order_by(erasures.c.at).limit(PAGE))).all()
        if not rows:
            return
        erased = [(row.recipient_id, row.at) for row in rows]
        await asyncio.to_thread(file.add, erased)
        async with database.transaction(quiet=True) as session:
            added = among(session, erasures.c.recipient_id, [row.recipient_id for row in rows])
            await session.execute(update(erasures).where(added).values(noted_at=database.now()))


async def _begin_anew(database: Database) -> None:
    """The list is lost, or was never begun: then this is looked at each time, and must not write."""
    listed = erasures.c.noted_at.is_not(None)
    async with database.reading() as session:
        if not await session.scalar(select(exists().where(listed))):
            return
    async with database.transaction(quiet=True) as session:
        await session.execute(update(erasures).where(listed).values(noted_at=None))


async def known(database: Database, file: ErasedFile | None) -> AsyncIterator[list[UUID]]:
    """Everybody who was ever erased, by the table and by the list, some hundred at a time."""
    if file is not None:
        for page in await asyncio.to_thread(lambda: list(file.pages())):
            yield page
    after = UUID(int=0)
    while True:
        async with database.reading() as session:
            more = select(erasures.c.recipient_id).where(erasures.c.recipient_id > after)
            page = list(await session.scalars(more.order_by(erasures.c.recipient_id).limit(PAGE)))
        if not page:
            return
        yield page
        after = page[-1]


async def _unknown(database: Database, ids: Collection[UUID]) -> list[UUID]:
    """Those of them of whose erasure the database knows nothing."""
    async with database.reading() as session:
        found = select(erasures.c.recipient_id).where(among(session, erasures.c.recipient_id, ids))
        told = set(await session.scalars(found))
    return [one for one in dict.fromkeys(ids) if one not in told]


async def _erase_again(session: AsyncSession, recipient_id: UUID, at: datetime) -> bool:
    """Whether it was a subscriber. An id may also be that of a sign-up, an invitation or a change of address."""
    if await session.scalar(select(exists().where(Subscriber.id == recipient_id))):
        await erase(session, recipient_id, at, Source.RESTORE)
        return True
    for table in (SignUp, Invitation):
        row = await session.get(table, recipient_id)
        if row is not None:
            await session.delete(row)
    change = await session.get(AddressChange, recipient_id)
    if change is not None:
        await address_changes.drop(session, [change.subscriber_id], at)
    await blank_outbox(session, [recipient_id])
    await forgetting.tell(session, recipient_id, at)
    return False
