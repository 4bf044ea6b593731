"""Every mail to one recipient, as the ledger has it: what it was, why, when, and what the receiving server said.

Read along the index of recipients, the newest first, so that a page is as quick in a ledger of any size.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from distributor.editions import digest_items, edition_items
from distributor.ledger import attempts, bounce_reports, contents, deliveries, exclusions
from shared.contracts.delivery import Channel
from shared.database import among

PAGE = 500
Told = Mapping[UUID, Sequence[Row[Any]]]


@dataclass(frozen=True, slots=True)
class OwnMail:
    """One mail. `titles` are several in a digest, and none where its words are no longer kept."""

    row: Row[Any]
    titles: Sequence[str]
    attempts: Sequence[Row[Any]]
    bounces: Sequence[Row[Any]]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An item that the recipient did not get by itself, and why."""

    title: str
    row: Row[Any]


async def page_of(session: AsyncSession, recipient_id: UUID, *, before: UUID | None, limit: int) -> list[OwnMail]:
    """The newest mails, or those before one."""
    mine = and_(deliveries.c.recipient_id == recipient_id, deliveries.c.channel == Channel.MAIL)
    wanted = select(deliveries).where(mine).order_by(deliveries.c.id.desc()).limit(limit)
    rows = (await session.execute(wanted if before is None else wanted.where(deliveries.c.id < before))).all()
    ids = [row.id for row in rows]
    said = await _by_delivery(session, attempts, attempts.c.number, ids)
    back = await _by_delivery(session, bounce_reports, bounce_reports.c.received_at, ids)
    single = await _titles(session, {(row.subject_id, row.revision) for row in rows})
    several = await _titles_of_editions(session, {row.edition_id for row in rows if row.edition_id})
    return [
        OwnMail(
            row,
            several.get(row.edition_id, []) if row.edition_id else single.get((row.subject_id, row.revision), []),
            said.get(row.id, []),
            back.get(row.id, []),
        )
        for row in rows
    ]


async def all_of(session: AsyncSession, recipient_id: UUID) -> list[OwnMail]:
    """All of them, a stretch at a time."""
    found: list[OwnMail] = []
    while True:
        page = await page_of(session, recipient_id, before=found[-1].row.id if found else None, limit=PAGE)
        found += page
        if len(page) < PAGE:
            return found


async def left_out_of(session: AsyncSession, recipient_id: UUID) -> list[LeftOut]:
    """What the recipient was in the audience of and did not get, the newest first."""
    mine = select(exclusions).where(exclusions.c.recipient_id == recipient_id)
    rows = (await session.execute(mine.order_by(exclusions.c.created_at.desc(), exclusions.c.item_id))).all()
    named = await _titles_of_items(session, {row.item_id for row in rows})
    return [LeftOut(named.get(row.item_id, ""), row) for row in rows]


async def _by_delivery(session: AsyncSession, table: Any, order: Any, ids: Iterable[UUID]) -> Told:
    found: dict[UUID, list[Row[Any]]] = {}
    theirs = select(table).where(among(session, table.c.delivery_id, ids)).order_by(order)
    for row in await session.execute(theirs):
        found.setdefault(row.delivery_id, []).append(row)
    return found


async def _titles(session: AsyncSession, wanted: set[tuple[UUID, int]]) -> dict[tuple[UUID, int], list[str]]:
    if not wanted:
        return {}
    columns = select(contents.c.subject_id, contents.c.revision, contents.c.item, contents.c.request)
    rows = await session.execute(columns.where(tuple_(contents.c.subject_id, contents.c.revision).in_(sorted(wanted))))
    return {
        (row.subject_id, row.revision): [row.item["title"] if row.item else row.request["subject"]]
        for row in rows
        if row.item or row.request
    }


async def _titles_of_editions(session: AsyncSession, wanted: set[UUID]) -> dict[UUID, list[str]]:
    same = and_(digest_items.c.item_id == edition_items.c.item_id, digest_items.c.revision == edition_items.c.revision)
    theirs = select(edition_items.c.edition_id, digest_items.c.told).join(digest_items, same)
    found: dict[UUID, list[str]] = {}
    for row in await session.execute(theirs.where(among(session, edition_items.c.edition_id, wanted))):
        found.setdefault(row.edition_id, []).append(row.told["title"])
    return {key: sorted(titles) for key, titles in found.items()}


async def _titles_of_items(session: AsyncSession, wanted: set[UUID]) -> dict[UUID, str]:
    theirs = select(contents.c.subject_id, contents.c.item).where(among(session, contents.c.subject_id, wanted))
    rows = await session.execute(theirs.order_by(contents.c.revision))
    return {row.subject_id: row.item["title"] for row in rows if row.item}
