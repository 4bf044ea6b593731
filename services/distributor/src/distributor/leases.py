"""Who has what in hand: claiming due deliveries, beginning them, recording how they ended, taking over from the dead.

A sender process is one owner. What it claims stays its own while its row in `sender_leases` is renewed; when that
runs out, anybody takes over: a row that had not begun goes back to where it was, a row that had begun is `uncertain`.
Every statement names the owner and the state it expects, so that a process that slept through its lease and wakes
(a zombie) changes nothing any more. Instants come from the database server, since machines' clocks differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Table,
    and_,
    bindparam,
    case,
    delete,
    exists,
    literal,
    null,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from distributor import editions, tallies
from distributor.channels import Outcome
from distributor.ledger import PERSONAL, attempts, barred, deliveries, items, released
from distributor.models import SenderLease
from distributor.retry_policy import Verdict
from distributor.states import CANCELLED, LANE_OF_RANK, LEASED, UNCERTAIN
from distributor.tallies import Moved
from shared.contracts.delivery import Channel
from shared.database import Database, Instant, insert_ignoring, upsert

sender_leases: Table = SenderLease.__table__  # type: ignore[assignment]

HELD_FOR = timedelta(seconds=15)
RENEW_EVERY_S = 4.0
"""Three renewals may fail before somebody else takes over, which happens within 20 s of a death."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A delivery that came back from its channel, and what is to become of it. `wait` is the jittered one."""

    row: Row[Any]
    outcome: Outcome
    verdict: Verdict
    wait: timedelta | None


async def hold(session: AsyncSession, database: Database, owner: str) -> bool:
    """Renew the owner's lease; False when it had run out, so that nothing it held can be counted on."""
    now = await _instant(session, database)
    held = await session.scalar(select(sender_leases.c.held_until).where(sender_leases.c.owner == owner))
    row = upsert(session, sender_leases).values(owner=owner, held_until=now + HELD_FOR)
    await session.execute(
        row.on_conflict_do_update(index_elements=["owner"], set_={"held_until": row.excluded.held_until})
    )
    return held is None or held > now


async def let_go(session: AsyncSession, owner: str) -> None:
    """A clean end: whatever is still claimed can be taken over at once."""
    await session.execute(delete(sender_leases).where(sender_leases.c.owner == owner))


async def claim(
    session: AsyncSession, database: Database, *, channel: Channel, owner: str, limit: int
) -> Sequence[Row[Any]]:
    """Lease the deliveries that are due, the strongest lane first, the longest waiting of a lane first.

    A look-up a lane, one after the other until there are enough: a single one in the order of lanes would walk through
    everything that a stronger lane is to try again tomorrow.
    """
    lanes = [_due(channel, lane, database.now(), limit) for lane in range(len(LANE_OF_RANK))]
    ids = list(await session.scalars(union_all(*lanes).limit(limit)))
    if not ids:
        return []
    lease = (
        update(deliveries)
        .where(deliveries.c.id.in_(ids))
        .values(leased_from=deliveries.c.state, state=LEASED, lease_owner=owner, begun_at=None, next_attempt_at=None)
        .returning(deliveries)
    )
    rows = (await session.execute(lease)).all()
    return sorted(rows, key=lambda row: (row.lane, row.planned_at))


def _due(channel: Channel, lane: int, now: ColumnElement[datetime], limit: int) -> Select[tuple[UUID]]:
    queue = (deliveries.c.channel == channel, deliveries.c.lane == lane)
    first = select(deliveries.c.id).where(*queue, deliveries.c.next_attempt_at <= now)
    ordered = first.order_by(deliveries.c.next_attempt_at).limit(limit).with_for_update(skip_locked=True)
    return select(ordered.subquery().c.id)


async def begin(session: AsyncSession, database: Database, owner: str, ids: Sequence[UUID]) -> set[UUID]:
    """Mark deliveries as on their way out; returns those that may go.

    Here a stop, a correction or a withdrawal has its last word: it has called the row off, or made its revision old,
    or was written while the row was, so that neither saw the other. What is old is put aside for the follow-up worker.
    """
    mine = and_(deliveries.c.id.in_(ids), deliveries.c.lease_owner == owner, deliveries.c.state == LEASED)
    newer = exists().where(items.c.id == deliveries.c.subject_id, items.c.newest_revision > deliveries.c.revision)
    old = or_(newer, editions.old(deliveries.c.edition_id))
    going = update(deliveries).where(mine, ~old, ~barred(database.now())).values(begun_at=database.now())
    begun = set(await session.scalars(going.returning(deliveries.c.id)))
    left = [key for key in ids if key not in begun]
    if left:
        mine_left = and_(deliveries.c.id.in_(left), deliveries.c.lease_owner == owner, deliveries.c.state == LEASED)
        await _stop(session, database, mine_left)
        back = {"state": deliveries.c.leased_from, "lease_owner": None, "begun_at": None, "leased_from": ""}
        due_at = case((old, null()), else_=database.now())  # not old: its stop ended in this moment
        await session.execute(update(deliveries).where(mine_left).values(back | {"next_attempt_at": due_at}))
    return begun


async def _stop(session: AsyncSession, database: Database, mine: ColumnElement[bool]) -> None:
    """Call off what a stop covers. What is in doubt stays so, and is not repeated."""
    at = await _instant(session, database)
    held = {row.id: row for row in await session.execute(select(deliveries).where(mine).with_for_update())}
    in_doubt = deliveries.c.leased_from == UNCERTAIN
    off = released(at) | {"state": case((in_doubt, UNCERTAIN.value), else_=CANCELLED.value), "ended_reason": "stopped"}
    for erased in (True, False):
        values = off | dict.fromkeys(PERSONAL) | {"ended_reason": "erased"} if erased else off
        stopped = update(deliveries).where(mine, barred(at, erased=erased)).values(values)
        gone = await session.execute(stopped.returning(deliveries.c.id, deliveries.c.state))
        await tallies.moved(session, [Moved.of(held[row.id], row.state) for row in gone])


_RECORD = (
    update(deliveries)
    .where(
        deliveries.c.id == bindparam("b_id"),
        deliveries.c.lease_owner == bindparam("b_owner"),
        deliveries.c.state == LEASED,
    )
    .values(
        state=bindparam("b_state"),
        ended_reason=bindparam("b_reason"),
        next_attempt_at=bindparam("b_next", type_=Instant()),
        changed_at=bindparam("b_at", type_=Instant()),
        tries=bindparam("b_tries"),
        attempts=bindparam("b_attempts"),
        repeats=bindparam("b_repeats"),
        lease_owner=None,
        begun_at=None,
        leased_from="",
    )
)


async def record(session: AsyncSession, ended: Sequence[Ended], at: datetime) -> None:
    """Write down how attempts ended: one row each, and the delivery's new state where nobody has taken it over.

    It was leased to whoever claimed it: a sender that has taken a new name since then may still tell of it.
    """
    connection = await session.connection()
    written = await connection.execute(_RECORD, [_changes(one, at) for one in ended])
    mine = ended if written.rowcount == len(ended) else await _written(session, ended, at)
    await tallies.moved(session, (Moved.of(one.row, one.verdict.state, one.verdict.reason) for one in mine))
    # A zombie's attempt may bear a number that whoever took over has used: theirs stands.
    await connection.execute(insert_ignoring(session, attempts), [_attempt(one, at) for one in ended])


async def _written(session: AsyncSession, ended: Sequence[Ended], at: datetime) -> list[Ended]:
    """Those whose delivery was still ours: it changed in this very moment."""
    ids = [one.row.id for one in ended]
    query = select(deliveries.c.id).where(deliveries.c.id.in_(ids), deliveries.c.changed_at == at)
    changed = set(await session.scalars(query.where(deliveries.c.lease_owner.is_(None))))
    return [one for one in ended if one.row.id in changed]


def _changes(ended: Ended, at: datetime) -> dict[str, Any]:
    row, outcome, verdict = ended.row, ended.outcome, ended.verdict
    return {
        "b_id": row.id,
        "b_owner": row.lease_owner,
        "b_state": verdict.state,
        "b_reason": verdict.reason,
        "b_next": at + ended.wait if ended.wait is not None else None,
        "b_at": at,
        "b_tries": row.tries + 1,
        "b_attempts": row.attempts + int(outcome.counts),
        "b_repeats": row.repeats + int(row.leased_from == UNCERTAIN),
    }


def _attempt(ended: Ended, at: datetime) -> dict[str, Any]:
    outcome = ended.outcome
    return {
        "delivery_id": ended.row.id,
        "number": ended.row.tries + 1,
        "state": outcome.state,
        "code": outcome.code,
        "enhanced": outcome.enhanced[:16],
        "reply": outcome.reply,
        "phase": outcome.phase,
        "fault": outcome.fault,
        "duration_ms": int(outcome.duration / timedelta(milliseconds=1)),
        "ended_at": at,
    }


async def take_over(session: AsyncSession, database: Database, *, repeat_doubtful: bool, limit: int) -> Sequence[Any]:
    """Free what dead senders held; returns (id, state) of each.

    Not begun: back to where it was, due now. Begun: uncertain, due now when it may be repeated and was not before.
    A webhook may always be repeated, since its receiver knows it by its id.
    """
    now = database.now()
    alive = select(sender_leases.c.owner).where(sender_leases.c.held_until > now)
    orphaned = (
        select(deliveries)
        .where(deliveries.c.lease_owner.is_not(None), deliveries.c.lease_owner.not_in(alive))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    held = {row.id: row for row in await session.execute(orphaned)}
    if not held:
        return []
    begun = deliveries.c.begun_at.is_not(None)
    first_doubt = and_(deliveries.c.leased_from != UNCERTAIN, literal(repeat_doubtful))
    again = or_(~begun, first_doubt, deliveries.c.channel == Channel.WEBHOOK)
    freed = (
        update(deliveries)
        .where(deliveries.c.id.in_(held))
        .values(
            {
                **released(await _instant(session, database)),
                "state": case((begun, UNCERTAIN.value), else_=deliveries.c.leased_from),
                "next_attempt_at": case((again, now), else_=None),
                "ended_reason": case((again, ""), else_="held"),
                "repeats": deliveries.c.repeats
                + case((and_(begun, deliveries.c.leased_from == UNCERTAIN), 1), else_=0),
            }
        )
        .returning(deliveries.c.id, deliveries.c.state)
    )
    rows = (await session.execute(freed)).all()
    await tallies.moved(session, (Moved.of(held[row.id], row.state) for row in rows))
    return rows


async def forget_dead(session: AsyncSession, database: Database) -> None:
    """Drop the leases of senders that are long gone and hold nothing."""
    gone = sender_leases.c.held_until < database.now()
    holding = exists().where(deliveries.c.lease_owner == sender_leases.c.owner)
    await session.execute(delete(sender_leases).where(gone, ~holding))


async def _instant(session: AsyncSession, database: Database) -> datetime:
    return (await session.execute(select(database.now()))).scalar_one()


async def longest_waiting(session: AsyncSession) -> datetime | None:
    """Since when the delivery that has been due longest has been due: one index look-up a channel and lane."""
    waits = []
    for channel in Channel:
        for lane in range(len(LANE_OF_RANK)):
            queue = (
                deliveries.c.channel == channel,
                deliveries.c.lane == lane,
                deliveries.c.next_attempt_at.is_not(None),
            )
            first = select(deliveries.c.next_attempt_at).where(*queue).order_by(deliveries.c.next_attempt_at).limit(1)
            waits.append(await session.scalar(first))
    return min((wait for wait in waits if wait), default=None)


async def anyone_alive(session: AsyncSession, database: Database) -> bool:
    """Whether some sender process holds its lease."""
    alive = exists().where(sender_leases.c.held_until > database.now())
    return bool(await session.scalar(select(alive)))
