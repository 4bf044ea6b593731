"""Reads what a subject's revision says."""

from uuid import UUID

from sqlalchemy import select

from distributor.channels import Content
from distributor.ledger import contents
from shared.contracts.mail import RequestContent, SubjectKind
from shared.contracts.news import ItemSnapshot
from shared.database import Database


async def load_content(database: Database, subject_id: UUID, revision: int) -> Content:
    """The content of one revision; every accepted delivery has it."""
    query = select(contents).where(contents.c.subject_id == subject_id, contents.c.revision == revision)
    async with database.reading() as session:
        row = (await session.execute(query)).one()
    return Content(
        subject_kind=SubjectKind(row.subject_kind),
        subject_id=subject_id,
        revision=revision,
        item=ItemSnapshot.model_validate(row.item) if row.item else None,
        note=row.note,
        request=RequestContent.model_validate(row.request) if row.request else None,
        correlation_id=row.correlation_id,
        traceparent=row.traceparent,
    )
