"""What is asked of the database about files.

A file that an item begins to need and another ceases to need at the same moment is decided by the lock of its row: each
of the two looks for who else needs it only when it holds that.
"""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, exists, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from content.attachments.models import FilePart, ItemFile, StoredFile
from content.models import Item
from shared.database import Database, insert_ignoring, upsert
from shared.tasks import to_its_end

PART_BYTES = 256 * 1024


async def hold_item(session: AsyncSession, item_id: UUID) -> None:
    """Wait for whoever is changing the item: files that come at once all get in."""
    await session.execute(select(Item.id).where(Item.id == item_id).with_for_update())


async def keep(session: AsyncSession, item_id: UUID, sha256: str, content: bytes, at: datetime) -> None:
    """Store the file, unless it is stored, for the item."""
    row = upsert(session, _table(StoredFile)).values(sha256=sha256, stored_at=at)
    await session.execute(row.on_conflict_do_update(index_elements=["sha256"], set_={"sha256": row.excluded.sha256}))
    if not await session.scalar(select(exists().where(FilePart.sha256 == sha256))):
        starts = range(0, len(content), PART_BYTES)
        parts = [
            {"sha256": sha256, "number": number, "content": content[start : start + PART_BYTES]}
            for number, start in enumerate(starts)
        ]
        await session.execute(insert(FilePart), parts)
    await session.execute(insert_ignoring(session, _table(ItemFile)).values(item_id=item_id, sha256=sha256))


async def let_go(session: AsyncSession, item_id: UUID, sha256: str) -> None:
    """The item has the file no more; without any item, it goes."""
    await session.execute(select(StoredFile.sha256).where(StoredFile.sha256 == sha256).with_for_update())
    await session.execute(delete(ItemFile).where(ItemFile.item_id == item_id, ItemFile.sha256 == sha256))
    if not await session.scalar(select(exists().where(ItemFile.sha256 == sha256))):
        await session.execute(delete(FilePart).where(FilePart.sha256 == sha256))
        await session.execute(delete(StoredFile).where(StoredFile.sha256 == sha256))


async def parts(database: Database, sha256: str, size: int) -> AsyncIterator[bytes]:
    """The file of so many bytes, part by part; no connection is held while a part is on its way to a reader, who may
    hang up at any time, and does when the last byte is there.
    """
    for number in range(-(-size // PART_BYTES)):
        part = await to_its_end(_part(database, sha256, number))
        if part is None:
            return  # taken out of the item meanwhile
        yield part


async def _part(database: Database, sha256: str, number: int) -> bytes | None:
    wanted = select(FilePart.content).where(FilePart.sha256 == sha256, FilePart.number == number)
    async with database.reading() as session:
        return await session.scalar(wanted)


def _table(model: type[StoredFile | ItemFile]) -> Any:
    return model.__table__
