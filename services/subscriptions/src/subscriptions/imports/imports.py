"""An import from its file to its end: stored, checked, agreed to, written. Who has it in hand is `worker`'s business.

Each step is one short transaction. What an import is told to become names the states it may come from, so that a second
click, a second worker or a late one finds nothing to do. The transaction that ends an import deletes its file and what
the report holds of people.
"""

import zlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, BinaryIO
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.news import Audience
from shared.ids import new_id
from subscriptions.csv_text import MAX_BYTES, PIECE, too_large
from subscriptions.imports.models import FILE_NAME_LENGTH, Import, ImportFile, ImportState

WAITS_FOR_YES = timedelta(hours=24)
KEPT = timedelta(days=90)
AT_WORK = (ImportState.STORED, ImportState.WRITING)
OPEN = (*AT_WORK, ImportState.CHECKED)


def compressed(source: BinaryIO) -> bytes:
    """The file as it is kept; `Unreadable` where it is too large."""
    packer, parts, size = zlib.compressobj(level=1), [], 0
    source.seek(0)
    while piece := source.read(PIECE):
        size += len(piece)
        if size > MAX_BYTES:
            raise too_large()
        parts.append(packer.compress(piece))
    return b"".join([*parts, packer.flush()])


def unpack(content: bytes, target: BinaryIO) -> None:
    """The file again, a piece at a time."""
    unpacker = zlib.decompressobj()
    while content:
        target.write(unpacker.decompress(content, PIECE))
        content = unpacker.unconsumed_tail
    target.seek(0)


async def store(
    session: AsyncSession,
    content: bytes,
    audience: Audience,
    at: datetime,
    *,
    file_name: str,
    is_roll: bool = False,
    is_agreed: bool = False,
) -> UUID:
    """Take a file in (`compressed`); with `is_agreed` it is written as soon as it is found to be faultless."""
    import_id = new_id()
    name = "".join(character for character in file_name if character.isprintable())[:FILE_NAME_LENGTH]
    session.add(
        Import(
            id=import_id,
            audience=audience,
            is_roll=is_roll,
            is_agreed=is_agreed,
            file_name=name,
            state=ImportState.STORED,
            report={},
            created_at=at,
        )
    )
    await session.flush()
    session.add(ImportFile(import_id=import_id, content=content))
    await session.flush()
    return import_id


async def look(session: AsyncSession, import_id: UUID) -> Import | None:
    return await session.get(Import, import_id, populate_existing=True)


async def content_of(session: AsyncSession, import_id: UUID) -> bytes:
    found = await session.get_one(ImportFile, import_id)
    return found.content


async def listing(session: AsyncSession, *, after: UUID | None, limit: int) -> Sequence[Import]:
    """The newest first; `after` is the last one seen."""
    statement = select(Import).order_by(Import.id.desc()).limit(limit)
    if after is not None:
        statement = statement.where(Import.id < after)
    return (await session.scalars(statement)).all()


async def in_state(session: AsyncSession, states: Sequence[ImportState], *, limit: int) -> Sequence[Import]:
    """The newest of those that are in one of these states."""
    statement = select(Import).where(Import.state.in_(states)).order_by(Import.id.desc()).limit(limit)
    return (await session.scalars(statement)).all()


async def agree(session: AsyncSession, import_id: UUID, version: str) -> bool:
    """Say yes to what was shown; whether that changed anything. A roll that was compared again since is left alone."""
    shown = (Import.state == ImportState.CHECKED, Import.version == version)
    return await turn(session, import_id, *shown, state=ImportState.WRITING, is_agreed=True, is_compared_again=False)


async def cancel(session: AsyncSession, import_id: UUID, at: datetime) -> bool:
    """End it before all of it is in; what is written already stays."""
    if not await turn(session, import_id, Import.state.in_(OPEN), **ending(ImportState.CANCELLED, at)):
        return False
    await _forget(session, [import_id])
    return True


async def cancel_all(session: AsyncSession, at: datetime) -> int:
    """End all that are not written yet; how many."""
    ended = (
        update(Import).where(Import.state.in_(OPEN)).values(**ending(ImportState.CANCELLED, at)).returning(Import.id)
    )
    ids = (await session.scalars(ended.execution_options(synchronize_session=False))).all()
    await _forget(session, ids)
    return len(ids)


async def weed(session: AsyncSession, at: datetime) -> int:
    """End those that nobody has said yes to for a day, and drop those that ended long ago; how many."""
    waiting = update(Import).where(_waits_in_vain(at)).values(**ending(ImportState.CANCELLED, at)).returning(Import.id)
    ended = (await session.scalars(waiting.execution_options(synchronize_session=False))).all()
    await _forget(session, ended)
    old = delete(Import).where(_is_old(at)).returning(Import.id).execution_options(synchronize_session=False)
    return len(ended) + len((await session.scalars(old)).all())


async def has_weeds(session: AsyncSession, at: datetime) -> bool:
    return bool(await session.scalar(select(exists().where(or_(_waits_in_vain(at), _is_old(at))))))


def _waits_in_vain(at: datetime) -> ColumnElement[bool]:
    return and_(Import.state == ImportState.CHECKED, Import.created_at <= at - WAITS_FOR_YES)


def _is_old(at: datetime) -> ColumnElement[bool]:
    return Import.ended_at <= at - KEPT


def ending(state: ImportState, at: datetime) -> dict[str, Any]:
    return {"state": state, "ended_at": at, "lease_id": None, "leased_until": None}


async def turn(session: AsyncSession, import_id: UUID, *conditions: ColumnElement[bool], **values: Any) -> bool:
    """Write `values` where the conditions hold; whether they did."""
    turned = update(Import).where(Import.id == import_id, *conditions).values(**values).returning(Import.id)
    return (await session.scalar(turned.execution_options(synchronize_session=False))) is not None


async def _forget(session: AsyncSession, import_ids: Sequence[UUID]) -> None:
    """The files, and the people in the reports, of imports that come to nothing."""
    blank = update(Import).where(Import.id.in_(import_ids)).values(report={})
    await session.execute(blank.execution_options(synchronize_session=False))
    await forget_file(session, import_ids)


async def forget_file(session: AsyncSession, import_ids: Sequence[UUID]) -> None:
    gone = delete(ImportFile).where(ImportFile.import_id.in_(import_ids))
    await session.execute(gone.execution_options(synchronize_session=False))
