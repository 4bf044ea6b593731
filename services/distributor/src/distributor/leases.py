"""Who has what in hand: whose a delivery is, giving back what was not sent, taking over from the dead.

A sender process is one owner. What it claims stays its own while its row in `sender_leases` is renewed; when that
runs out, anybody takes over: a row that had not begun goes back to where it was, a row that had begun is `uncertain`.
Every statement names the owner and the state it expects, so that a process that slept through its lease and wakes
(a zombie) changes nothing any more. Instants come from the database server, since machines' clocks differ. Claiming
and recording are in `group_commit`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Table,
    and_,
    case,
    delete,
    exists,
    insert,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from distributor import editions, tallies
from distributor.channels import Outcome
from distributor.ledger import PERSONAL, barred, deliveries, items, released
from distributor.models import SenderLease
from distributor.retry_policy import Verdict
from distributor.states import CANCELLED, LANE_OF_RANK, LEASED, UNCERTAIN
from distributor.tallies import Moved
from shared.contracts.delivery import Channel
from shared.database import Database

sender_leases: Table = SenderLease.__table__  # type: ignore[assignment]

HELD_FOR = timedelta(seconds=15)
MILLISECOND = timedelta(milliseconds=1)
RENEW_EVERY_S = 4.0
"""Three renewals may fail before somebody else takes over, which happens within 20 s of a death."""


class Claimed(NamedTuple):
    """A delivery in our hands. Without `begun_at` it must not go out: it was stopped, or is of an old revision."""

    id: UUID
    channel: str
    recipient_id: UUID
    subject_kind: str
    subject_id: UUID
    revision: int
    edition_id: UUID | None
    form: str
    lane: int
    locale: str
    audience: str | None
    address: str | None
    reason: str | None
    preferences_url: str | None
    unsubscribe_url: str | None
    one_click_url: str | None
    thread_of: str
    planned_at: datetime
    lease_owner: str
    leased_from: str
    begun_at: datetime | None
    tries: int
    attempts: int
    repeats: int


class Ended(NamedTuple):
    """A delivery that came back from its channel, and what is to become of it. `wait` is the jittered one.

    It was leased to whoever claimed it: a sender that has taken a new name since then may still tell of it.
    """

    row: Claimed
    outcome: Outcome
    verdict: Verdict
    wait: timedelta | None

    @property
    def tries(self) -> int:
        return self.row.tries + 1

    @property
    def attempts(self) -> int:
        return self.row.attempts + int(self.outcome.counts)

    @property
    def repeats(self) -> int:
        return self.row.repeats + int(self.row.leased_from == UNCERTAIN)

    @property
    def duration_ms(self) -> int:
        return self.outcome.duration // MILLISECOND


async def take(session: AsyncSession, database: Database, owner: str) -> None:
    """A lease in a name that nobody has had."""
    held_until = await _instant(session, database) + HELD_FOR
    await session.execute(insert(sender_leases).values(owner=owner, held_until=held_until))


async def renew(session: AsyncSession, database: Database, owner: str) -> bool:
    """Hold the lease for longer; False when it had run out, so that nothing it held can be counted on: the sender goes
    on under a new name.

    As long as nobody has taken over, the old name is held too, for what is still on its way out. Once it is forgotten
    it is not taken up again, or a frozen sender's mails would be heard of as attempts of its next lease.
    """
    now = await _instant(session, database)
    mine = sender_leases.c.owner == owner
    held: datetime | None = await session.scalar(select(sender_leases.c.held_until).where(mine).with_for_update())
    if held is None:
        return False
    await session.execute(update(sender_leases).where(mine).values(held_until=now + HELD_FOR))
    return held > now


async def let_go(session: AsyncSession, owner: str) -> None:
    """A clean end: whatever is still claimed can be taken over at once."""
    await session.execute(delete(sender_leases).where(sender_leases.c.owner == owner))


async def set_aside(session: AsyncSession, database: Database, owner: str, ids: Sequence[UUID]) -> None:
    """Give back rows of ours that nothing was sent of: called off where a stop covers them, else where they came from.

    What is old waits, without being due, for the follow-up worker; the rest is due at once.
    """
    mine = and_(deliveries.c.id.in_(ids), deliveries.c.lease_owner == owner, deliveries.c.state == LEASED)
    await _stop(session, database, mine)
    back = {"state": deliveries.c.leased_from, "lease_owner": None, "begun_at": None, "leased_from": ""}
    due_at = case((is_old(), null()), else_=database.now())
    await session.execute(update(deliveries).where(mine).values(back | {"next_attempt_at": due_at}))


def is_old() -> ColumnElement[bool]:
    """Whether the item, or one that the digest carries, has come further than the delivery's revision."""
    return or_(is_overtaken(), editions.old(deliveries.c.edition_id))


def is_overtaken() -> ColumnElement[bool]:
    """Whether the item has come further than the delivery's revision: all there is to ask of a webhook."""
    return exists().where(items.c.id == deliveries.c.subject_id, items.c.newest_revision > deliveries.c.revision)


async def held(session: AsyncSession, owner: str) -> Sequence[Claimed]:
    """All that is leased to the owner."""
    columns = [deliveries.c[name] for name in Claimed._fields]
    found = await session.execute(select(*columns).where(deliveries.c.lease_owner == owner))
    return [Claimed(*row) for row in found]


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


async def take_over(
    session: AsyncSession, database: Database, *, repeated_lanes: frozenset[int], limit: int
) -> Sequence[Any]:
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
    first_doubt = and_(deliveries.c.leased_from != UNCERTAIN, deliveries.c.lane.in_(repeated_lanes))
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


async def forget_all(session: AsyncSession) -> None:
    """Every lease is a dead sender's: for a process that has the database to itself and has not begun to send."""
    await session.execute(delete(sender_leases))


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
