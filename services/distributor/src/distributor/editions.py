"""Editions: what the mails of a digest run carry.

A digest run is one subject for thousands of recipients who do not all get the same items. Those who do share an
edition: a list of item revisions, each with the audience that they get it as. Its id is derived from the run and the
list, so that a replay finds the same one. A delivery names its edition; when an item is corrected or withdrawn before
the mail has begun, the delivery moves to another edition. What an edition says never changes, so that a mail that is
repeated stays byte-identical.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Table, and_, exists, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from distributor.models import Delivery, DigestItemRow, Edition, EditionItem, Item, SubjectContent
from shared.contracts.mail import DigestItem
from shared.contracts.news import ItemSnapshot
from shared.database import among, insert_ignoring
from shared.ids import derived_id

deliveries: Table = Delivery.__table__  # type: ignore[assignment]
digest_items: Table = DigestItemRow.__table__  # type: ignore[assignment]
editions: Table = Edition.__table__  # type: ignore[assignment]
edition_items: Table = EditionItem.__table__  # type: ignore[assignment]
items: Table = Item.__table__  # type: ignore[assignment]
contents: Table = SubjectContent.__table__  # type: ignore[assignment]


MOST = 100
"""Looked at in one go; some may have no deliveries any more."""


class Entry(NamedTuple):
    """One item of an edition."""

    item_id: UUID
    revision: int
    audience: str


Entries = tuple[Entry, ...]


async def put(
    session: AsyncSession, run_id: UUID, planned_at: datetime, wanted: Iterable[Entries]
) -> dict[Entries, UUID]:
    """The edition of each list of items, new or known. The words of every item must be kept already."""
    ids = {entries: _id_of(run_id, entries) for entries in sorted(set(wanted))}
    if ids:
        rows = [{"id": key, "run_id": run_id, "planned_at": planned_at} for key in ids.values()]
        await session.execute(insert_ignoring(session, editions), rows)
        listed = [{"edition_id": key, **entry._asdict()} for entries, key in ids.items() for entry in entries]
        await session.execute(insert_ignoring(session, edition_items), listed)
    return ids


async def entries_of(session: AsyncSession, edition_ids: Iterable[UUID]) -> dict[UUID, Entries]:
    """What each edition carries."""
    wanted = sorted(set(edition_ids))
    query = (
        select(edition_items)
        .where(among(session, edition_items.c.edition_id, wanted))
        .order_by(edition_items.c.item_id)
    )
    found: dict[UUID, list[Entry]] = {key: [] for key in wanted}
    for row in await session.execute(query):
        found[row.edition_id].append(Entry(row.item_id, row.revision, row.audience))
    return {key: tuple(entries) for key, entries in found.items()}


async def keep_words(session: AsyncSession, told: Iterable[DigestItem]) -> None:
    """Keep what digests say of these revisions."""
    rows = [{"item_id": item.item_id, "revision": item.revision, "told": item.model_dump(mode="json")} for item in told]
    if rows:
        await session.execute(insert_ignoring(session, digest_items), rows)


async def keep_words_of(session: AsyncSession, revisions: Iterable[tuple[UUID, int]]) -> None:
    """The same for revisions that an item's own batch or news event has told of."""
    wanted = sorted(set(revisions))
    if not wanted:
        return
    query = select(contents.c.item).where(tuple_(contents.c.subject_id, contents.c.revision).in_(wanted))
    snapshots = [ItemSnapshot.model_validate(item) for item in await session.scalars(query) if item]
    await keep_words(session, (DigestItem.of(snapshot) for snapshot in snapshots))


async def planned_at(session: AsyncSession, edition_id: UUID) -> datetime:
    """When the edition's run began."""
    began: datetime = (await session.scalars(select(editions.c.planned_at).where(editions.c.id == edition_id))).one()
    return began


async def words_of(session: AsyncSession, edition_id: UUID) -> Sequence[DigestItem]:
    """What an edition's mail says."""
    same = and_(digest_items.c.item_id == edition_items.c.item_id, digest_items.c.revision == edition_items.c.revision)
    query = select(digest_items.c.told).join(edition_items, same).where(edition_items.c.edition_id == edition_id)
    return [DigestItem.model_validate(told) for told in await session.scalars(query)]


def old(edition_id: Any) -> ColumnElement[bool]:
    """Whether an edition carries anything that has been corrected or withdrawn since."""
    newer = and_(items.c.id == edition_items.c.item_id, items.c.newest_revision > edition_items.c.revision)
    overtaken = exists().where(edition_items.c.edition_id == edition_id, newer)
    return and_(edition_id.is_not(None), overtaken.correlate_except(edition_items, items))


async def carrying_older(session: AsyncSession, item_id: UUID, revision: int, start: UUID | None) -> Sequence[UUID]:
    """The editions that carry `item_id` in a revision before `revision`, by rising id, from `start` on."""
    older = and_(edition_items.c.item_id == item_id, edition_items.c.revision < revision)
    query = select(edition_items.c.edition_id).where(older).order_by(edition_items.c.edition_id).limit(MOST)
    return (await session.scalars(query.where(edition_items.c.edition_id >= start) if start else query)).all()


def carried_as(edition_id: Any, audience: Any) -> ColumnElement[bool]:
    """Whether an edition carries anything that its readers get as `audience`."""
    carried = exists().where(edition_items.c.edition_id == edition_id, edition_items.c.audience == audience)
    return carried.correlate_except(edition_items)


def _id_of(run_id: UUID, entries: Entries) -> UUID:
    return derived_id("edition", run_id, *(f"{entry.item_id}:{entry.revision}:{entry.audience}" for entry in entries))
