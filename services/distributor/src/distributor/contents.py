"""Reads what a subject's revision says."""

from uuid import UUID

from sqlalchemy import select

from distributor import editions
from distributor.channels import Content
from distributor.ledger import contents
from shared.contracts.mail import DigestItem, RequestContent, SubjectKind
from shared.contracts.news import ItemSnapshot, Kind
from shared.database import Database


async def load_content(database: Database, subject_id: UUID, revision: int, edition_id: UUID | None = None) -> Content:
    """The content of one revision, or of one edition of a digest run; every accepted delivery has it."""
    query = select(contents).where(contents.c.subject_id == subject_id, contents.c.revision == revision)
    async with database.reading() as session:
        row = (await session.execute(query)).one()
        digest = await editions.words_of(session, edition_id) if edition_id else ()
        planned_at = await editions.planned_at(session, edition_id) if edition_id else None
    return Content(
        subject_kind=SubjectKind(row.subject_kind),
        subject_id=subject_id,
        revision=revision,
        item=ItemSnapshot.model_validate(row.item) if row.item else None,
        note=row.note,
        request=RequestContent.model_validate(row.request) if row.request else None,
        digest=tuple(sorted(digest, key=_in_order)),
        planned_at=planned_at,
        correlation_id=row.correlation_id,
        traceparent=row.traceparent,
    )


def _in_order(item: DigestItem) -> tuple[int, float, UUID]:
    """By kind, the newest first."""
    return list(Kind).index(item.kind), -item.published_at.timestamp(), item.item_id
