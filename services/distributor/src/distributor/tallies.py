"""How many of an item's deliveries stand where: kept as they move, so that nobody ever counts the ledger.

Whoever changes a delivery's state notes, in the same transaction, what that takes from one count and adds to another
(`tally_changes`: rows are only added, so that senders never wait for one another). `fold` adds them up into `tallies`,
one row for all that stand alike; a question reads both, so that it is answered exactly at any moment. The sums outlive
the rows that they count: the retention job says with `weeded` how many of them have none any more.

What is counted is an item's, or an edition's: a digest counts, once, for its edition, and through that for all the
items that it carries. A delivery in a sender's hands counts where it was: taking it and giving it back is no move.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, Table, delete, func, literal, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from distributor.editions import edition_items
from distributor.models import Tally, TallyChange
from distributor.retry_policy import RETRIES_EXHAUSTED
from distributor.states import CANCELLED, FAILED, LEASED
from shared.contracts.delivery import DeliveryState
from shared.contracts.mail import Exclusion, SubjectKind
from shared.database import upsert
from shared.ids import new_id

tallies: Table = Tally.__table__  # type: ignore[assignment]
changes: Table = TallyChange.__table__  # type: ignore[assignment]

EXCLUDED = "excluded"
SUPERSEDED, UNREACHABLE = "superseded", "unreachable"
MARKS = {CANCELLED: (SUPERSEDED, UNREACHABLE), FAILED: (RETRIES_EXHAUSTED,)}
"""Reasons that are told apart."""
FOLD = 5_000
"""Changes that are added up at once."""
FIELDS = ("subject_id", "revision", "channel", "audience", "form", "state", "mark")


class Standing(NamedTuple):
    """What is counted as one. `mark` tells apart some that ended alike, or why somebody is excluded."""

    subject_id: UUID
    revision: int
    channel: str
    audience: str
    form: str
    state: str
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Moved:
    """A delivery's columns as they were, and as they are."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]

    @classmethod
    def of(cls, before: Mapping[str, Any] | Row[Any], state: DeliveryState, reason: str = "", **more: Any) -> "Moved":
        columns = before._asdict() if isinstance(before, Row) else dict(before)
        was = columns | {"state": columns["leased_from"]} if columns["state"] == LEASED else columns
        return cls(was, columns | {"state": state, "ended_reason": reason, **more})


async def planted(session: AsyncSession, rows: Iterable[Mapping[str, Any]]) -> None:
    """Count new deliveries."""
    await note(session, Counter(standing for row in rows if (standing := standing_of(row))))


async def moved(session: AsyncSession, moves: Iterable[Moved]) -> None:
    """Count deliveries that went from one state, or edition, to another."""
    counted: Counter[Standing] = Counter()
    for move in moves:
        for row, count in ((move.before, -1), (move.after, 1)):
            if standing := standing_of(row):
                counted[standing] += count
    await note(session, counted)


async def excluded(session: AsyncSession, item_id: UUID, left_out: Iterable[Exclusion]) -> None:
    """Count people who are left out."""
    await note(session, Counter(Standing(item_id, 0, "", one.audience, "", EXCLUDED, one.reason) for one in left_out))


async def note(
    session: AsyncSession, counted: Mapping[Standing, int], weeded: Mapping[Standing, int] | None = None
) -> None:
    """Write down what changes; `weeded` of them have lost their rows."""
    gone = weeded or {}
    rows = [
        {"id": new_id(), **standing._asdict(), "count": counted.get(standing, 0), "weeded": gone.get(standing, 0)}
        for standing in {**counted, **gone}
        if counted.get(standing) or gone.get(standing)
    ]
    if rows:
        await session.execute(changes.insert(), rows)


async def touch(session: AsyncSession, item_ids: Iterable[UUID]) -> None:
    """Have items told of though nothing of their own was counted."""
    blank = Standing(UUID(int=0), 0, "", "", "", "")._asdict() | {"count": 0, "weeded": 0}
    rows = [blank | {"id": new_id(), "subject_id": key} for key in item_ids]
    if rows:
        await session.execute(changes.insert(), rows)


async def next_changed(session: AsyncSession, after: UUID | None) -> UUID | None:
    """The next item or edition with changes, by rising id; `None` at the end. One look into an index."""
    query = select(changes.c.subject_id).order_by(changes.c.subject_id).limit(1)
    found: UUID | None = await session.scalar(query.where(changes.c.subject_id > after) if after else query)
    return found


async def fold(session: AsyncSession, subject_id: UUID) -> bool:
    """Add up a chunk of the subject's changes; False where there may be more."""
    chunk = select(changes.c.id).where(changes.c.subject_id == subject_id).limit(FOLD)
    columns = [changes.c[name] for name in (*FIELDS, "count", "weeded")]
    rows = (await session.execute(delete(changes).where(changes.c.id.in_(chunk)).returning(*columns))).all()
    counted, weeded = Counter[Standing](), Counter[Standing]()
    for *standing, count, gone in rows:
        counted[Standing(*standing)] += count
        weeded[Standing(*standing)] += gone
    added = [
        {**standing._asdict(), "count": counted[standing], "weeded": weeded[standing]}
        for standing in sorted(counted)
        if counted[standing] or weeded[standing]
    ]
    if added:
        statement = upsert(session, tallies)
        sums = {name: tallies.c[name] + statement.excluded[name] for name in ("count", "weeded")}
        await session.execute(statement.on_conflict_do_update(index_elements=FIELDS, set_=sums), added)
    return len(rows) < FOLD


async def of_item(session: AsyncSession, item_id: UUID) -> Sequence[Row[Any]]:
    """An item's sums by `FIELDS`, with `count` and `weeded`, as of one moment. A digest counts under the revision and
    the audience that the item has in it.
    """
    parts = []
    for table in (tallies, changes):
        columns = {name: table.c[name] for name in (*FIELDS[1:], "count", "weeded")}
        parts.append(select(*columns.values()).where(table.c.subject_id == item_id))
        columns |= {"revision": edition_items.c.revision, "audience": edition_items.c.audience}
        carried = edition_items.join(table, table.c.subject_id == edition_items.c.edition_id)
        named = [column.label(name) for name, column in columns.items()]
        parts.append(select(*named).select_from(carried).where(edition_items.c.item_id == item_id))
    both = union_all(*parts).subquery()
    same = [both.c[name] for name in FIELDS[1:]]
    total, gone = func.sum(both.c.count), func.sum(both.c.weeded)
    query = select(literal(item_id, changes.c.subject_id.type).label("subject_id"), *same)
    summed = query.add_columns(total.label("total"), gone.label("weeded")).group_by(*same).having(total != 0)
    return (await session.execute(summed)).all()


def standing_of(row: Mapping[str, Any]) -> Standing | None:
    """Where a delivery is counted; nowhere when it is about no item."""
    return standing(SimpleNamespace(**row), row["state"], row["ended_reason"])


def standing(row: Any, state: str, reason: str = "") -> Standing | None:
    """Where a delivery is counted that is, or will be, in this state."""
    subject = row.subject_id if row.subject_kind == SubjectKind.ITEM else row.edition_id
    if subject is None:
        return None
    mark = reason if reason in MARKS.get(DeliveryState(state), ()) else ""
    return Standing(subject, row.revision, str(row.channel), row.audience or "", str(row.form), str(state), mark)
