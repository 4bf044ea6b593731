"""Plans the deliveries of a whole batch at once.

The ledger's other hot path beside `group_commit`: five hundred rows that differ in their recipients alone are one
statement on PostgreSQL, and one visit to the database's thread on SQLite. What is there already stays as it is.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from distributor import tallies
from distributor.arrays import bare, quoted
from distributor.models import Delivery
from distributor.states import CANCELLED, LANE_RANK, PLANNED
from distributor.tallies import Standing, standing
from shared.contracts.delivery import Channel
from shared.contracts.mail import MailRequested, Recipient
from shared.database import EPOCH, MICROSECOND, among
from shared.ids import derived_beside

SHARED = "subject_id, revision, channel, subject_kind, form, lane, planned_at, created_at, changed_at"
BLANK = "thread_of, leased_from, tries, attempts, repeats"
OWN = "id, recipient_id, audience, locale, address, reason, preferences_url, unsubscribe_url, one_click_url"
ENDED = "state, ended_reason, next_attempt_at"
BLANKS = "'', '', 0, 0, 0"

ON_POSTGRESQL = f"""
INSERT INTO deliveries ({SHARED}, {BLANK}, {OWN}, {ENDED})
SELECT %(subject_id)s::uuid, %(revision)s::int, %(channel)s, %(subject_kind)s, %(form)s, %(lane)s::int,
    %(planned_at)s::timestamptz, %(at)s::timestamptz, %(at)s::timestamptz, {BLANKS}, {OWN},
    CASE ended WHEN '' THEN 'planned' ELSE 'cancelled' END, ended,
    CASE ended WHEN '' THEN %(at)s::timestamptz END
FROM unnest(
    %(ids)s::uuid[], %(recipients)s::uuid[], %(audiences)s::text[], %(locales)s::text[], %(addresses)s::text[],
    %(reasons)s::text[], %(preferences)s::text[], %(unsubscribes)s::text[], %(one_clicks)s::text[], %(ended)s::text[]
) AS r ({OWN}, ended)
ON CONFLICT DO NOTHING RETURNING id
"""  # noqa: S608 - nothing in it comes from outside
ON_SQLITE = f"""
INSERT INTO deliveries ({SHARED}, {BLANK}, {OWN}, {ENDED})
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, {BLANKS}, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""  # noqa: S608 - the same


@dataclass(frozen=True, slots=True)
class Planned:
    """A batch's recipients, to get this revision. `barred`: who must not get it, and why; `ended`: why nobody does."""

    batch: MailRequested
    recipients: Iterable[Recipient]
    revision: int
    ended: str
    barred: Mapping[UUID, str]
    at: datetime


def delivery_ids(subject_id: UUID, revision: int, channel: str) -> Callable[[UUID], UUID]:
    """The ids that the deliveries to recipients have on every replay."""
    return derived_beside(subject_id, "delivery", revision, channel)


def delivery_id(subject_id: UUID, revision: int, channel: str, recipient_id: UUID) -> UUID:
    """The id that the same delivery has on every replay."""
    return delivery_ids(subject_id, revision, channel)(recipient_id)


async def plan(session: AsyncSession, planned: Planned) -> None:
    """Write the rows, in the transaction at hand, and count those that were not there."""
    key = delivery_ids(planned.batch.subject_id, planned.revision, Channel.MAIL)
    rows = [_own(planned, recipient, key(recipient.recipient_id)) for recipient in planned.recipients]
    if not rows:
        return
    connection = await session.connection()
    if connection.dialect.name == "sqlite":  # nobody else writes meanwhile
        ids = [row[0] for row in rows]
        there = set(await session.scalars(select(Delivery.id).where(among(session, Delivery.id, ids))))
        await connection.exec_driver_sql(ON_SQLITE, [_on_sqlite(planned, row) for row in rows])
        new = {row[0] for row in rows} - there
    else:
        written = await connection.exec_driver_sql(ON_POSTGRESQL, _on_postgresql(planned, rows))
        new = set(written.scalars())
    await tallies.note(session, _counted(planned, [row for row in rows if row[0] in new]))


def _counted(planned: Planned, rows: Sequence["Row"]) -> Counter[Standing]:
    batch = planned.batch
    shared = {"subject_kind": batch.subject_kind, "subject_id": batch.subject_id, "edition_id": None}
    shared |= {"revision": planned.revision, "channel": Channel.MAIL, "form": batch.form}
    counted: Counter[Standing] = Counter()
    for (audience, ended), count in Counter((row[2], row[-1]) for row in rows).items():
        place = standing(SimpleNamespace(**shared, audience=audience), CANCELLED if ended else PLANNED, ended)
        if place is not None:
            counted[place] += count
    return counted


Row = tuple[UUID, UUID, str | None, str, str | None, str | None, str | None, str | None, str | None, str]
"""The columns of `OWN`, and why it ended before it began, if it did."""


def _own(planned: Planned, to: Recipient, key: UUID) -> Row:
    ended = planned.ended or planned.barred.get(to.recipient_id, "")
    who = (key, to.recipient_id, to.audience, to.locale)
    if ended == "erased":
        return (*who, None, None, None, None, None, ended)
    return (*who, to.address, to.reason, to.preferences_url, to.unsubscribe_url, to.one_click_url, ended)


def _on_postgresql(planned: Planned, rows: list[Row]) -> dict[str, Any]:
    batch = planned.batch
    ids, recipients, *words = zip(*rows, strict=True)
    names = ("audiences", "locales", "addresses", "reasons", "preferences", "unsubscribes", "one_clicks", "ended")
    return {
        "subject_id": batch.subject_id,
        "revision": planned.revision,
        "channel": Channel.MAIL.value,
        "subject_kind": batch.subject_kind.value,
        "form": batch.form.value,
        "lane": LANE_RANK[batch.lane],
        "planned_at": batch.planned_at,
        "at": planned.at,
        "ids": bare(ids),
        "recipients": bare(recipients),
        **{name: quoted(column) for name, column in zip(names, words, strict=True)},
    }


def _on_sqlite(planned: Planned, row: Row) -> tuple[Any, ...]:
    batch, (key, recipient, *words, ended) = planned.batch, row
    at, planned_at = ((instant - EPOCH) // MICROSECOND for instant in (planned.at, batch.planned_at))
    shared = (batch.subject_id.hex, planned.revision, Channel.MAIL.value, batch.subject_kind.value, batch.form.value)
    state = ("cancelled", ended, None) if ended else ("planned", "", at)
    return (*shared, LANE_RANK[batch.lane], planned_at, at, at, key.hex, recipient.hex, *words, *state)
