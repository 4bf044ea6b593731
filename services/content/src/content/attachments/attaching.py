"""What editors do with an item's files: attach and detach. Both change the working copy alone.

A file is known by its bytes. The same file sent again changes the words about it, so a retry does no harm. What a
revision has stays for as long as the revision; a file that only the working copy had goes when it is detached.
"""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from content import publishing
from content.attachments import repository
from content.fields import ItemFields
from content.models import Item
from content.publishing import Act
from content.repository import revisions
from shared.contracts.news import AttachedFile
from shared.problems import Problem, invalid

MAX_FILES = 20
TOO_MANY = (f"An item has at most {MAX_FILES} files.", f"En nyhet kan ha högst {MAX_FILES} filer.")


async def attach(session: AsyncSession, item_id: UUID, file: AttachedFile, content: bytes, act: Act) -> Item:
    """Add a file to the working copy, or change the words about one that is there."""
    await repository.hold_item(session, item_id)
    item = await publishing.rework(session, item_id, lambda fields: _with(fields, file), act)
    await repository.keep(session, item_id, file.sha256, content, act.at)
    return item


async def detach(session: AsyncSession, item_id: UUID, sha256: str, act: Act) -> Item:
    """Take a file out of the working copy. What was public with it keeps it."""
    await repository.hold_item(session, item_id)
    item = await publishing.rework(session, item_id, lambda fields: _without(fields, sha256), act)
    if not await _was_public(session, item_id, sha256):
        await repository.let_go(session, item_id, sha256)
    return item


def _with(fields: ItemFields, file: AttachedFile) -> ItemFields:
    files = {known.sha256: known for known in fields.attachments} | {file.sha256: file}
    if len(files) > MAX_FILES:
        raise invalid("/file", "too_many_files", *TOO_MANY)
    return fields.changed({"attachments": tuple(files.values())})


def _without(fields: ItemFields, sha256: str) -> ItemFields:
    kept = tuple(file for file in fields.attachments if file.sha256 != sha256)
    if len(kept) == len(fields.attachments):
        raise Problem(404)
    return fields.changed({"attachments": kept})


async def _was_public(session: AsyncSession, item_id: UUID, sha256: str) -> bool:
    made = [ItemFields.model_validate(revision.fields) for revision in await revisions(session, item_id)]
    return any(file.sha256 == sha256 for fields in made for file in fields.attachments)
