"""A digest run's batches become ledger rows, and follow what happens to their items until they have begun.

The subject is the run, so a person has one row a run however often a batch comes. Each row names its edition: the item
revisions that this mail carries. What was corrected before a mail begins is carried in its last version, what was
withdrawn not at all, and a mail with nothing left to say is called off. Whoever has got an item by digest is told of
its correction or withdrawal like everybody else.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from distributor import editions, ledger, tallies
from distributor.editions import Entries, Entry
from distributor.ledger import (
    PERSONAL,
    Newest,
    NotRetriable,
    deliveries,
    items,
    not_begun,
    released,
    stops,
)
from distributor.planning import delivery_id
from distributor.states import CANCELLED, LANE_RANK, PLANNED, RETRIABLE_BY_HAND, UNCERTAIN
from distributor.tallies import Moved
from shared.contracts.delivery import Channel, DeliveryState
from shared.contracts.mail import Form, Lane, MailRequested, Recipient, SubjectKind
from shared.database import among

Place = tuple[UUID, UUID]
"""An edition, and one of its deliveries."""

LAST = UUID(int=2**128 - 1)

WITHDRAWN, STOPPED, ERASED = "withdrawn", "stopped", "erased"


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one recipient's mail carries, and why it is called off already (empty: it is not)."""

    entries: Entries
    ended: str = ""


async def accept_run(session: AsyncSession, batch: MailRequested, at: datetime) -> None:
    """Turn a batch of a digest run into ledger rows."""
    told = sorted(batch.digest, key=lambda item: item.item_id)
    for item in told:  # in one order, so that two batches never wait for each other
        await ledger.note_revision(session, item.item_id, item.revision, withdrawn=False)
    newest = await _newest(session, [item.item_id for item in told])
    await editions.keep_words(session, told)
    await editions.keep_words_of(session, _overtaken(newest, {item.item_id: item.revision for item in told}))
    plans = await _plans(session, batch.recipients, newest, at)
    ids = await editions.put(session, batch.subject_id, batch.planned_at, _lists(plans.values()))
    rows = [
        ledger.mail_row(batch, recipient, batch.revision, plan.ended, at) | {"edition_id": ids.get(plan.entries)}
        for recipient in batch.recipients
        for plan in (plans[recipient.recipient_id],)
    ]
    await ledger.plant(session, rows)
    await ledger.keep_exclusions(session, batch.subject_id, batch.exclusions, at)


async def leave_out(session: AsyncSession, recipient_id: UUID, audience: str, at: datetime) -> None:
    """Take what the recipient gets as `audience` out of their digests that have not begun."""
    theirs = and_(
        deliveries.c.recipient_id == recipient_id, editions.carried_as(deliveries.c.edition_id, audience), not_begun()
    )
    # The items first, as the follow-up worker locks them: it walks by edition, and what moves to another one meanwhile
    # must not be of an old revision.
    seen = await editions.entries_of(session, await session.scalars(select(deliveries.c.edition_id).where(theirs)))
    newest = await _newest(session, [entry.item_id for entries in seen.values() for entry in entries])
    rows = (await session.execute(select(deliveries).where(theirs).with_for_update())).all()
    found = await editions.entries_of(session, [row.edition_id for row in rows])
    for row in rows:
        left = brought_up(tuple(entry for entry in found[row.edition_id] if entry.audience != audience), newest)
        await editions.keep_words_of(session, [(entry.item_id, entry.revision) for entry in left])
        await _move(session, [row], left, STOPPED, at)


async def carry_newest(
    session: AsyncSession, item_id: UUID, newest: Newest, at: datetime, ids: Sequence[UUID]
) -> set[UUID]:
    """Bring those of these digests that have not begun up to the item's newest revision, or drop it; returns which."""
    older = select(deliveries).where(among(session, deliveries.c.id, ids), not_begun()).order_by(deliveries.c.id)
    rows = (await session.execute(older.with_for_update())).all() if ids else []
    if not rows:
        return set()
    await editions.keep_words_of(session, [(item_id, newest.revision)])
    found = await editions.entries_of(session, [row.edition_id for row in rows])
    by_edition: dict[UUID, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        by_edition[row.edition_id].append(row)
    for edition_id, carriers in by_edition.items():
        await _move(session, carriers, brought_up(found[edition_id], {item_id: newest}), WITHDRAWN, at)
    return {row.id for row in rows}


async def tell_carriers(
    session: AsyncSession, item_id: UUID, revision: int, form: Form, at: datetime, rows: Sequence[Row[Any]]
) -> int:
    """Plan a follow-up for those who may have an older revision by these digests and have none of the newest."""
    if not rows:
        return 0
    audience_of = await _audiences(session, item_id, rows)
    barred = await _stopped_in(session, audience_of, at)
    doubtful = and_(among(session, deliveries.c.id, (row.id for row in rows)), deliveries.c.state == UNCERTAIN)
    held = {"next_attempt_at": None, "ended_reason": "superseded"}
    await session.execute(update(deliveries).where(doubtful).values(held))
    about = {"subject_id": item_id, "revision": revision, "form": form}
    follow_ups = {
        row.recipient_id: _follow_up(row, audience_of[row.recipient_id], at, barred=row.recipient_id in barred) | about
        for row in rows
    }
    for recipient_id, row in follow_ups.items():
        row["id"] = delivery_id(item_id, revision, Channel.MAIL, recipient_id)
    await ledger.plant(session, list(follow_ups.values()))
    return len(rows)


async def carriers(
    session: AsyncSession, item_id: UUID, revision: int, after: Place | None, limit: int
) -> tuple[Sequence[Row[Any]], Place | None]:
    """The next rows whose edition carries the item in a revision before `revision`, edition by edition; and where to go
    on, `None` at the end.
    """
    rows: list[Row[Any]] = []
    older = await editions.carrying_older(session, item_id, revision, after[0] if after else None)
    for edition_id in older:
        theirs = select(deliveries).where(deliveries.c.edition_id == edition_id)
        if after and edition_id == after[0]:
            theirs = theirs.where(deliveries.c.id > after[1])
        rows += (await session.execute(theirs.order_by(deliveries.c.id).limit(limit - len(rows)))).all()
        if len(rows) == limit:
            return rows, (edition_id, rows[-1].id)
    return rows, (older[-1], LAST) if len(older) == editions.MOST else None


async def bring_up(session: AsyncSession, key: UUID, at: datetime) -> None:
    """Before a person has a digest sent once more: only what still holds may go out. Raises NotRetriable where that is
    nothing.
    """
    ended = and_(
        deliveries.c.id == key, deliveries.c.edition_id.is_not(None), deliveries.c.state.in_(RETRIABLE_BY_HAND)
    )
    row = (await session.execute(select(deliveries).where(ended).with_for_update())).first()
    if row is None:
        return
    entries = (await editions.entries_of(session, [row.edition_id]))[row.edition_id]
    newest = await _newest(session, [entry.item_id for entry in entries])
    current = brought_up(entries, newest)
    if not current:
        raise NotRetriable(row.state)
    if current != entries:
        await editions.keep_words_of(session, [(entry.item_id, entry.revision) for entry in current])
        ids = await editions.put(session, row.subject_id, row.planned_at, [current])
        mine = update(deliveries).where(deliveries.c.id == row.id)
        await session.execute(mine.values(edition_id=ids[current], changed_at=at))
        moved = Moved.of(row, DeliveryState(row.state), row.ended_reason, edition_id=ids[current])
        await tallies.moved(session, [moved])


def brought_up(entries: Entries, newest: Mapping[UUID, Newest]) -> Entries:
    """The items as they stand now, without those that have been withdrawn."""
    current = ((entry, newest.get(entry.item_id)) for entry in entries)
    return tuple(
        entry if known is None else entry._replace(revision=max(entry.revision, known.revision))
        for entry, known in current
        if known is None or not known.withdrawn
    )


async def _newest(session: AsyncSession, item_ids: Iterable[UUID]) -> dict[UUID, Newest]:
    """How far the items have come, under share locks: no correction passes until this transaction has ended."""
    query = select(items.c.id, items.c.newest_revision, items.c.withdrawn).where(
        among(session, items.c.id, set(item_ids))
    )
    rows = await session.execute(query.order_by(items.c.id).with_for_update(read=True))
    return {row.id: Newest(row.newest_revision, row.withdrawn) for row in rows}


def _overtaken(newest: Mapping[UUID, Newest], told: Mapping[UUID, int]) -> list[tuple[UUID, int]]:
    return [(key, known.revision) for key, known in newest.items() if known.revision > told[key]]


def _lists(plans: Iterable[_Plan]) -> list[Entries]:
    return [plan.entries for plan in plans if plan.entries]


async def _plans(
    session: AsyncSession, recipients: Sequence[Recipient], newest: Mapping[UUID, Newest], at: datetime
) -> dict[UUID, _Plan]:
    ids = [recipient.recipient_id for recipient in recipients]
    in_force: dict[UUID, list[Any]] = defaultdict(list)
    for stop in await session.execute(select(stops).where(among(session, stops.c.recipient_id, ids), stops.c.stopped)):
        in_force[stop.recipient_id].append(stop)
    return {
        recipient.recipient_id: _plan(recipient, newest, in_force[recipient.recipient_id], at)
        for recipient in recipients
    }


def _plan(recipient: Recipient, newest: Mapping[UUID, Newest], in_force: Sequence[Any], at: datetime) -> _Plan:
    known = (carried for carried in recipient.carries if carried.item_id in newest)
    wanted = {carried.item_id: Entry(carried.item_id, 0, carried.audience) for carried in known}
    entries = brought_up(tuple(sorted(wanted.values())), newest)
    if any(stop.erased for stop in in_force):
        return _Plan(entries, ERASED)
    left = tuple(entry for entry in entries if not any(ledger.covers(stop, entry.audience, at) for stop in in_force))
    if not entries:
        return _Plan(entries, WITHDRAWN)
    return _Plan(left) if left else _Plan(entries, STOPPED)


async def _move(session: AsyncSession, rows: Sequence[Row[Any]], left: Entries, why_not: str, at: datetime) -> None:
    """Have rows that have not begun carry `left`, or call them off where nothing is left."""
    mine = update(deliveries).where(among(session, deliveries.c.id, (row.id for row in rows)))
    if not left:
        await session.execute(mine.values(released(at) | {"state": CANCELLED, "ended_reason": why_not}))
        await tallies.moved(session, (Moved.of(row, CANCELLED, why_not) for row in rows))
        return
    ids = await editions.put(session, rows[0].subject_id, rows[0].planned_at, [left])
    anew = released(at) | {"state": PLANNED, "edition_id": ids[left], "next_attempt_at": at}
    await session.execute(mine.values(anew))
    await tallies.moved(session, (Moved.of(row, PLANNED, row.ended_reason, edition_id=ids[left]) for row in rows))


async def _audiences(session: AsyncSession, item_id: UUID, rows: Sequence[Row[Any]]) -> dict[UUID, str]:
    """The audience that each got the item as."""
    found = await editions.entries_of(session, [row.edition_id for row in rows])
    as_audience = {
        key: entry.audience for key, entries in found.items() for entry in entries if entry.item_id == item_id
    }
    return {row.recipient_id: as_audience[row.edition_id] for row in rows}


async def _stopped_in(session: AsyncSession, audience_of: Mapping[UUID, str], at: datetime) -> set[UUID]:
    query = select(stops).where(among(session, stops.c.recipient_id, audience_of), stops.c.stopped)
    found = await session.execute(query)
    return {stop.recipient_id for stop in found if ledger.covers(stop, audience_of[stop.recipient_id], at)}


def _follow_up(row: Row[Any], audience: str, at: datetime, *, barred: bool) -> dict[str, Any]:
    reason = STOPPED if barred else tallies.UNREACHABLE if row.address is None else ""
    return {name: getattr(row, name) for name in ("recipient_id", "channel", "locale", *PERSONAL)} | {
        "subject_kind": SubjectKind.ITEM,
        "audience": audience,
        "lane": LANE_RANK[Lane.NEWS],
        "thread_of": str(row.subject_id),
        "planned_at": at,
        "edition_id": None,
        "state": CANCELLED if reason else PLANNED,
        "ended_reason": reason,
        "next_attempt_at": None if reason else at,
        "leased_from": "",
        "tries": 0,
        "attempts": 0,
        "repeats": 0,
        "created_at": at,
        "changed_at": at,
    }
