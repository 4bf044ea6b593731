"""The ledger's front door: what is accepted becomes rows, what must not go out is called off.

Accepting is idempotent by the unique index and order-blind: an item's newest revision and state are kept here, and a
batch that comes late is aimed at the newest revision, or cancelled when the item has been withdrawn. Stops and
erasures are kept too, so that one that overtakes its batch still counts.

Accepting reads the item's row under a share lock and a correction writes it, so that no batch slips in between a
correction and the search for what it must retarget.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Table,
    Text,
    and_,
    cast,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from distributor import restored, tallies
from distributor.bounces.models import BounceReport
from distributor.editions import carried_as
from distributor.models import Arrival, Attempt, Delivery, ExclusionRow, Item, RecipientStop, SubjectContent
from distributor.planning import Planned, delivery_id, plan
from distributor.states import CANCELLED, LANE_RANK, LEASED, PLANNED, RETRIABLE_BY_HAND, UNCERTAIN, UNSENT
from distributor.tallies import Moved
from shared import correlation
from shared.contracts.delivery import Channel
from shared.contracts.mail import Exclusion, Form, Lane, MailRequested, Recipient, SubjectKind
from shared.contracts.news import ItemSnapshot
from shared.database import among, insert_ignoring, upsert

deliveries: Table = Delivery.__table__  # type: ignore[assignment]
items: Table = Item.__table__  # type: ignore[assignment]
contents: Table = SubjectContent.__table__  # type: ignore[assignment]
exclusions: Table = ExclusionRow.__table__  # type: ignore[assignment]
stops: Table = RecipientStop.__table__  # type: ignore[assignment]
attempts: Table = Attempt.__table__  # type: ignore[assignment]
bounce_reports: Table = BounceReport.__table__  # type: ignore[assignment]
arrivals: Table = Arrival.__table__  # type: ignore[assignment]

PERSONAL = ("address", "reason", "preferences_url", "unsubscribe_url", "one_click_url")


LOOK_AGAIN_AFTER = timedelta(minutes=5)
"""Whatever was being written when an erasure came is there by then."""


class UnknownDelivery(Exception):
    """There is no such delivery."""


class NotRetriable(Exception):
    """The delivery is in a state, or of a revision, that must not be sent again."""


@dataclass(frozen=True, slots=True)
class Newest:
    """How far an item has come."""

    revision: int
    withdrawn: bool


async def keep_content(
    session: AsyncSession,
    *,
    subject_kind: SubjectKind,
    subject_id: UUID,
    revision: int,
    item: ItemSnapshot | None,
    request: Any = None,
    note: str = "",
    authoritative: bool = False,
    at: datetime,
) -> None:
    """Keep what a revision says. A news event has the last word, since a batch knows neither note nor reason."""
    trail = correlation.current()
    row = {
        "subject_id": subject_id,
        "revision": revision,
        "subject_kind": subject_kind,
        "item": item.model_dump(mode="json") if item else None,
        "request": request.model_dump(mode="json") if request else None,
        "note": note,
        "heard": authoritative,
        "correlation_id": trail.correlation_id,
        "traceparent": trail.traceparent,
        "created_at": at,
        "weeding_place": "",
    }
    if not authoritative:
        await session.execute(insert_ignoring(session, contents).values(row))
        return
    statement = upsert(session, contents).values(row)
    told = {name: statement.excluded[name] for name in ("item", "note", "heard", "correlation_id", "traceparent")}
    await session.execute(statement.on_conflict_do_update(index_elements=["subject_id", "revision"], set_=told))


async def note_revision(session: AsyncSession, item_id: UUID, revision: int, *, withdrawn: bool) -> bool:
    """Record that the item has come this far; False where as much or more was known."""
    await session.execute(
        insert_ignoring(session, items).values(
            id=item_id, newest_revision=0, withdrawn=False, followed_to="", progress_sequence=0, progress_digest=""
        )
    )
    newer = update(items).where(items.c.id == item_id, items.c.newest_revision < revision)
    moved = await session.execute(newer.values(newest_revision=revision, withdrawn=withdrawn).returning(items.c.id))
    return moved.first() is not None


async def follow_ups_due(session: AsyncSession, item_id: UUID, at: datetime) -> None:
    """Have the follow-up worker look for whoever has, or was about to get, an older revision."""
    begun_anew = {"follow_ups_due_at": at, "followed_to": ""}
    await session.execute(update(items).where(items.c.id == item_id).values(begun_anew))


async def newest_of(session: AsyncSession, item_id: UUID) -> Newest:
    """How far the item has come, under a share lock: no correction passes until this transaction has ended."""
    query = select(items.c.newest_revision, items.c.withdrawn).where(items.c.id == item_id).with_for_update(read=True)
    row = (await session.execute(query)).one()
    return Newest(row.newest_revision, row.withdrawn)


async def accept_batch(session: AsyncSession, batch: MailRequested, at: datetime) -> None:
    """Turn a batch into ledger rows."""
    revision, ended = batch.revision, ""
    recipients: Sequence[Recipient] = batch.recipients
    if batch.subject_kind is SubjectKind.ITEM:
        await note_revision(session, batch.subject_id, batch.revision, withdrawn=False)
        newest = await newest_of(session, batch.subject_id)
        if newest.revision > 1:
            recipients = await _without_earlier(session, batch)
        if newest.withdrawn:
            ended = "withdrawn"
        else:
            revision = newest.revision
        await keep_exclusions(session, batch.subject_id, batch.exclusions, at)
    barred = await _barred(session, batch, recipients, at)
    await plan(session, Planned(batch, recipients, revision, ended, barred, at))
    await restored.hold_if_told_again(session, batch.subject_id, batch.planned_at, at)


async def plant(session: AsyncSession, rows: Sequence[dict[str, Any]]) -> None:
    """Write new deliveries, all with the same columns, and count those that were not there."""
    if not rows:
        return
    if session.get_bind().dialect.name == "sqlite":  # nobody else writes meanwhile
        known = select(deliveries.c.id).where(among(session, deliveries.c.id, (row["id"] for row in rows)))
        new = {row["id"] for row in rows}.difference(await session.scalars(known))
        await session.execute(insert_ignoring(session, deliveries), rows)
    else:
        # One parameter: five hundred rows as parameters of their own take psycopg ten times as long.
        columns = [deliveries.c[name] for name in rows[0]]
        told = cast(literal(json.dumps(rows, default=str), Text), JSONB)
        written = func.jsonb_populate_recordset(literal_column("NULL::deliveries"), told).table_valued(*columns)
        statement = insert_ignoring(session, deliveries).from_select(list(rows[0]), select(written))
        new = set(await session.scalars(statement.returning(deliveries.c.id)))
    await tallies.planted(session, (row for row in rows if row["id"] in new))


async def accept_endpoints(
    session: AsyncSession, item: ItemSnapshot, endpoint_ids: Sequence[UUID], at: datetime
) -> None:
    """Plan the item's webhook for each endpoint, in the newest revision that is known."""
    newest = await newest_of(session, item.item_id)
    known = select(deliveries.c.recipient_id).where(
        deliveries.c.subject_id == item.item_id, deliveries.c.channel == Channel.WEBHOOK
    )
    earlier = set(await session.scalars(known))
    ended = "withdrawn" if newest.withdrawn else ""
    revision = item.revision if newest.withdrawn else newest.revision
    rows = [
        webhook_row(item.item_id, revision, endpoint_id, Form.NEWS, item.revised_at, at, ended=ended)
        for endpoint_id in endpoint_ids
        if endpoint_id not in earlier
    ]
    await plant(session, rows)


async def _without_earlier(session: AsyncSession, batch: MailRequested) -> list[Recipient]:
    """Those who have no row of this item yet: the others were reached by an earlier batch, or a copy of this one."""
    ids = [recipient.recipient_id for recipient in batch.recipients]
    query = select(deliveries.c.recipient_id).where(
        deliveries.c.subject_id == batch.subject_id,
        deliveries.c.channel == Channel.MAIL,
        among(session, deliveries.c.recipient_id, ids),
    )
    earlier = set(await session.scalars(query))
    return [recipient for recipient in batch.recipients if recipient.recipient_id not in earlier]


async def keep_exclusions(session: AsyncSession, item_id: UUID, left_out: Sequence[Exclusion], at: datetime) -> None:
    rows = [{"item_id": item_id, "created_at": at, **exclusion.model_dump()} for exclusion in left_out]
    if rows:
        written = insert_ignoring(session, exclusions).returning(exclusions.c.recipient_id)
        new = set(await session.scalars(written, rows))
        await tallies.excluded(session, item_id, (one for one in left_out if one.recipient_id in new))


async def _barred(
    session: AsyncSession, batch: MailRequested, recipients: Sequence[Recipient], at: datetime
) -> dict[UUID, str]:
    """Who of `recipients` must not get it, and why. An erasure bars everything; a stop, all but transactional mail."""
    ids = [recipient.recipient_id for recipient in recipients]
    query = select(stops).where(among(session, stops.c.recipient_id, ids), stops.c.stopped)
    found: dict[UUID, str] = {}
    audience_of = {recipient.recipient_id: recipient.audience or "" for recipient in recipients}
    for stop in await session.execute(query):
        if stop.erased:
            found[stop.recipient_id] = "erased"
        elif batch.lane is not Lane.TRANSACTIONAL and covers(stop, audience_of[stop.recipient_id], at):
            found.setdefault(stop.recipient_id, "stopped")
    return found


def covers(stop: Any, audience: str, at: datetime) -> bool:
    """Whether a stop keeps something from a recipient in this audience at this time."""
    return stop.audience in ("", audience) and (stop.until is None or stop.until > at)


def barred(at: Any, *, erased: bool = False) -> ColumnElement[bool]:
    """Whether a stop that is in force at `at` (with `erased`: an erasure) covers the delivery."""
    theirs = and_(stops.c.recipient_id == deliveries.c.recipient_id, deliveries.c.channel == Channel.MAIL)
    if erased:
        return exists().where(theirs, stops.c.erased)
    in_force = and_(stops.c.stopped, or_(stops.c.until.is_(None), stops.c.until > at))
    theirs_as = or_(stops.c.audience == deliveries.c.audience, carried_as(deliveries.c.edition_id, stops.c.audience))
    covering = and_(in_force, or_(stops.c.audience == "", theirs_as))
    return exists().where(
        theirs, or_(stops.c.erased, and_(covering, deliveries.c.lane != LANE_RANK[Lane.TRANSACTIONAL]))
    )


def mail_row(batch: MailRequested, recipient: Recipient, revision: int, ended: str, at: datetime) -> dict[str, Any]:
    row = _blank(batch.subject_id, revision, Channel.MAIL, recipient.recipient_id, batch.planned_at, at, ended)
    personal: dict[str, Any] = {name: getattr(recipient, name) for name in PERSONAL}
    return row | {
        "subject_kind": batch.subject_kind,
        "audience": recipient.audience,
        "form": batch.form,
        "lane": LANE_RANK[batch.lane],
        "locale": recipient.locale,
        **(dict.fromkeys(PERSONAL) if ended == "erased" else personal),
    }


def webhook_row(
    item_id: UUID, revision: int, endpoint_id: UUID, form: Form, planned_at: datetime, at: datetime, *, ended: str = ""
) -> dict[str, Any]:
    """A delivery to an endpoint."""
    row = _blank(item_id, revision, Channel.WEBHOOK, endpoint_id, planned_at, at, ended)
    return row | {
        "subject_kind": SubjectKind.ITEM,
        "audience": None,
        "form": form,
        "lane": LANE_RANK[Lane.NEWS],
        "locale": "sv",
        **dict.fromkeys(PERSONAL),
    }


def _blank(
    subject_id: UUID,
    revision: int,
    channel: Channel,
    recipient_id: UUID,
    planned_at: datetime,
    at: datetime,
    ended: str,
) -> dict[str, Any]:
    return {
        "id": delivery_id(subject_id, revision, channel, recipient_id),
        "subject_id": subject_id,
        "revision": revision,
        "edition_id": None,
        "channel": channel,
        "recipient_id": recipient_id,
        "thread_of": "",
        "planned_at": planned_at,
        "state": CANCELLED if ended else PLANNED,
        "ended_reason": ended,
        "next_attempt_at": None if ended else at,
        "leased_from": "",
        "tries": 0,
        "attempts": 0,
        "repeats": 0,
        "created_at": at,
        "changed_at": at,
    }


async def stop_recipient(session: AsyncSession, stop: dict[str, Any], at: datetime) -> None:
    """Keep a stop, a resume or an erasure, unless a newer word is known; call off what it covers and has not begun."""
    again = at + LOOK_AGAIN_AFTER if stop["erased"] else None
    statement = upsert(session, stops).values(stop | {"changed_at": at, "look_again_at": again})
    named = ("version", "stopped", "until", "erased", "changed_at", "look_again_at")
    changed = {name: statement.excluded[name] for name in named}
    # An erasure is the last word, whatever the version: who tells of it after a backup was put back knows none.
    newer = and_(or_(stops.c.version < statement.excluded.version, statement.excluded.erased), ~stops.c.erased)
    kept = await session.execute(
        statement.on_conflict_do_update(
            index_elements=["recipient_id", "audience"], set_=changed, where=newer
        ).returning(stops.c.version)
    )
    if kept.first() is not None and stop["stopped"]:
        await _call_off(session, stop, at)


async def _call_off(session: AsyncSession, stop: dict[str, Any], at: datetime) -> None:
    theirs = [deliveries.c.recipient_id == stop["recipient_id"], deliveries.c.channel == Channel.MAIL]
    if stop["audience"]:
        theirs.append(deliveries.c.audience == stop["audience"])
    if not stop["erased"]:
        theirs.append(deliveries.c.lane != LANE_RANK[Lane.TRANSACTIONAL])
    rows = (await session.execute(select(deliveries).where(*theirs, not_begun()).with_for_update())).all()
    if rows:
        reason = "erased" if stop["erased"] else "stopped"
        off = update(deliveries).where(among(session, deliveries.c.id, (row.id for row in rows)))
        await session.execute(off.values(state=CANCELLED, ended_reason=reason, **released(at)))
        await tallies.moved(session, (Moved.of(row, CANCELLED) for row in rows))
    # In doubt: it may have arrived, so it stays uncertain, but it is not repeated.
    waiting = deliveries.c.state == UNCERTAIN
    await session.execute(
        update(deliveries).where(*theirs, waiting).values(next_attempt_at=None, ended_reason="stopped")
    )


def not_begun() -> Any:
    """Nothing of it can have left us. What waits to be repeated in doubt may have, the first time."""
    waits = and_(deliveries.c.begun_at.is_(None), deliveries.c.leased_from != UNCERTAIN)
    return or_(deliveries.c.state.in_(UNSENT), and_(deliveries.c.state == LEASED, waits))


def released(at: datetime) -> dict[str, Any]:
    """Columns of a row that is in nobody's hands and not due."""
    return {"next_attempt_at": None, "lease_owner": None, "begun_at": None, "leased_from": "", "changed_at": at}


async def retry_by_hand(session: AsyncSession, key: UUID, at: datetime) -> None:
    """Plan a delivery that ended badly once more, at once, with its schedule begun anew."""
    this = select(deliveries).where(deliveries.c.id == key)
    row = (await session.execute(this)).first()
    if row is None:
        raise UnknownDelivery(str(key))
    newest = 0
    if row.subject_kind == SubjectKind.ITEM:
        newest = (await newest_of(session, row.subject_id)).revision
    current = deliveries.c.revision >= newest
    reachable = or_(deliveries.c.channel == Channel.WEBHOOK, deliveries.c.address.is_not(None))
    may = this.where(deliveries.c.state.in_(RETRIABLE_BY_HAND), current, reachable)
    ended = (await session.execute(may.with_for_update())).first()
    if ended is None:
        raise NotRetriable(row.state)
    again = released(at) | {"state": PLANNED, "next_attempt_at": at, "attempts": 0, "ended_reason": ""}
    await session.execute(update(deliveries).where(deliveries.c.id == key).values(again))
    await tallies.moved(session, [Moved.of(ended, PLANNED)])
