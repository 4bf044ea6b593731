"""A group commit on PostgreSQL: one statement, which is its own transaction, on a connection kept for it.

The driver is asked directly: what SQLAlchemy does around each statement took as long as the driver itself. All parts
of the statement see the ledger as it was before it; they never touch the same row, since what is due is nobody's and
what ended is ours.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import psycopg
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from distributor.arrays import bare, quoted
from distributor.group_commit import Group, Move, in_order, move_of, must_not_begin, standings
from distributor.leases import Claimed, Ended
from distributor.states import LANE_OF_RANK
from distributor.tallies import Standing
from distributor.webhooks.health import WRITTEN_EVERY
from shared.contracts.delivery import Channel
from shared.database import DETOURS, MICROSECOND, Database

DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]

OUTCOMES = """
ended AS MATERIALIZED (
    SELECT * FROM unnest(
        %(ids)s::uuid[], %(owners)s::text[], %(states)s::text[], %(reasons)s::text[], %(waits)s::interval[],
        %(tries)s::int[], %(attempts)s::int[], %(repeats)s::int[], %(outcomes)s::text[], %(codes)s::int[],
        %(enhanced)s::text[], %(replies)s::text[], %(phases)s::text[], %(faults)s::text[], %(durations)s::int[],
        %(was)s::int[], %(becomes)s::int[]
    ) AS e (id, owner, state, reason, wait, tries, attempts, repeats, outcome, code,
            enhanced, reply, phase, fault, duration_ms, was, becomes)
),
recorded AS (
    UPDATE deliveries
    SET state = e.state, ended_reason = e.reason, next_attempt_at = at + e.wait, changed_at = at, tries = e.tries,
        attempts = e.attempts, repeats = e.repeats, lease_owner = NULL, begun_at = NULL, leased_from = ''
    FROM ended e, moment
    WHERE deliveries.id = e.id AND deliveries.lease_owner = e.owner AND deliveries.state = 'leased'
    RETURNING e.was, e.becomes
),
tried AS (
    INSERT INTO delivery_attempts
        (delivery_id, number, state, code, enhanced, reply, phase, fault, duration_ms, ended_at)
    SELECT id, tries, outcome, code, enhanced, reply, phase, fault, duration_ms, at FROM ended, moment
    ON CONFLICT DO NOTHING
),
standings AS (
    SELECT * FROM unnest(
        %(subjects)s::uuid[], %(revisions)s::int[], %(channels)s::text[], %(audiences)s::text[], %(forms)s::text[],
        %(kinds)s::text[], %(marks)s::text[]
    ) WITH ORDINALITY AS s (subject_id, revision, channel, audience, form, state, mark, place)
),
moves AS (
    SELECT was AS place, -1 AS count FROM recorded UNION ALL SELECT becomes, 1 FROM recorded
),
tallied AS (
    INSERT INTO tally_changes (id, subject_id, revision, channel, audience, form, state, mark, count, weeded)
    SELECT gen_random_uuid(), subject_id, revision, channel, audience, form, state, mark, sum(count), 0
    FROM standings JOIN moves USING (place)
    GROUP BY place, subject_id, revision, channel, audience, form, state, mark HAVING sum(count) <> 0
),
"""
BOUNCES = """
told AS (
    INSERT INTO outbox (id, exchange, routing_key, body, created_at, attempts)
    SELECT b.*, at, 0
    FROM unnest(%(events)s::uuid[], %(exchanges)s::text[], %(routes)s::text[], %(bodies)s::bytea[]) AS b, moment
    ON CONFLICT DO NOTHING
),
"""
ENDPOINTS = """
answers AS MATERIALIZED (
    SELECT * FROM unnest(
        %(endpoints)s::uuid[], %(well)s::bool[], %(anew)s::bool[], %(failures)s::int[],
        %(statuses)s::int[], %(ways)s::text[]
    ) AS a (endpoint_id, well, anew, failures, status, phase)
),
news AS MATERIALIZED (
    SELECT a.* FROM answers a, moment, LATERAL (
        SELECT 1 FROM endpoint_health h WHERE h.endpoint_id = a.endpoint_id AND (
            NOT a.well OR h.works IS NOT TRUE OR h.told <> '' OR h.last_success_at IS NULL
            OR h.last_success_at < at - %(stale)s::interval
        ) FOR UPDATE
    ) AS held
),
fared AS (
    UPDATE endpoint_health h
    SET works = a.well, last_status = a.status, last_phase = a.phase, last_attempt_at = at,
        failures = CASE WHEN a.anew THEN 0 ELSE h.failures END + a.failures,
        failing_since = CASE
            WHEN a.well THEN NULL WHEN a.anew OR h.failing_since IS NULL THEN at ELSE h.failing_since END,
        last_success_at = CASE WHEN a.anew THEN at ELSE h.last_success_at END
    FROM news a, moment
    WHERE h.endpoint_id = a.endpoint_id
),
"""
BEGINNINGS = """
due AS MATERIALIZED (
    SELECT due_id FROM generate_series(0, {last}) AS rank, LATERAL (
        SELECT id AS due_id FROM deliveries
        WHERE channel = %(channel)s AND lane = rank AND next_attempt_at <= (SELECT at FROM moment)
        ORDER BY next_attempt_at LIMIT %(wanted)s FOR UPDATE SKIP LOCKED
    ) AS of_lane
    WHERE EXISTS (SELECT 1 FROM sender_leases, moment WHERE owner = %(owner)s AND held_until > at)
    LIMIT %(wanted)s
)
"""
AT_ONCE = """
UPDATE deliveries
SET leased_from = state, state = 'leased', lease_owner = %(owner)s, next_attempt_at = NULL,
    begun_at = CASE WHEN {barred}
        THEN NULL ELSE (SELECT at FROM moment) END
FROM due WHERE id = due_id
RETURNING {columns}
"""
AHEAD = """
, going AS (
    SELECT due_id AS going_id, false AS starts FROM due UNION ALL SELECT unnest(%(starting)s::uuid[]), true
)
UPDATE deliveries
SET leased_from = CASE WHEN starts THEN leased_from ELSE state END, state = 'leased', lease_owner = %(owner)s,
    next_attempt_at = NULL, begun_at = CASE WHEN NOT starts OR {barred}
        THEN NULL ELSE (SELECT at FROM moment) END
FROM going WHERE id = going_id AND (NOT starts OR lease_owner = %(owner)s AND state = 'leased')
RETURNING {columns}
"""


@lru_cache
def statement(*, mail: bool, ended: bool, bounces: bool, fared: bool, ahead: bool = False) -> bytes:
    """All of a group in one statement, without the parts that it has nothing for. psycopg keeps it taken apart, as it
    does with texts of up to 4 kB; to do so anew for each takes half a millisecond.
    """
    beginnings = (BEGINNINGS + (AHEAD if ahead else AT_ONCE)).format(
        last=len(LANE_OF_RANK) - 1,
        barred=must_not_begin("(SELECT at FROM moment)", DIALECT, mail=mail),
        columns=", ".join(Claimed._fields),
    )
    parts = (OUTCOMES if ended else "", BOUNCES if bounces else "", ENDPOINTS if fared else "", beginnings)
    whole = "WITH moment AS MATERIALIZED (SELECT clock_timestamp() AS at),\n" + "".join(parts)
    return " ".join(whole.split()).encode()


PLANNED_ONCE = (
    "SET plan_cache_mode = force_generic_plan",
    *(f"SET enable_{way} = off" for way in ("seqscan", *DETOURS)),
)
"""Left to itself, the planner plans the statement anew each time, thinking that to know the number of rows must be
worth it; that took it as long as the work. So it plans once. It may do so while the ledger is empty and reading all of
it looks cheapest, and the plan stays: so it is held to the way from index to row, which is right for three rows as it
is for ten million.
"""


class PostgresGroupCommit:
    """See `group_commit.GroupCommit`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: AsyncConnection | None = None  # lent by the engine's pool
        self._driver: psycopg.AsyncConnection

    async def write(self, group: Group) -> list[Claimed]:
        try:
            if self._connection is None:
                await self._connect()
            said = statement(
                mail=group.channel is Channel.MAIL,
                ended=bool(group.ended),
                bounces=bool(group.bounces),
                fared=bool(group.fared),
                ahead=group.ahead,
            )
            cursor = self._driver.cursor(row_factory=_claimed)
            await cursor.execute(said, _parameters(group), prepare=True)
            return in_order(await cursor.fetchall())
        except BaseException:
            await self._throw_away()
            raise

    async def close(self) -> None:
        await self._throw_away()  # nobody else would want it as it is set

    async def _throw_away(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.invalidate()
            await connection.close()

    async def _connect(self) -> None:
        connection = await self._database.engine.connect()
        self._connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        driver = (await connection.get_raw_connection()).driver_connection
        assert isinstance(driver, psycopg.AsyncConnection)
        self._driver = driver
        for setting in PLANNED_ONCE:
            await driver.execute(setting)


def _claimed(_: object) -> Callable[[Sequence[Any]], Claimed]:
    """Rows as they are wanted, straight from the driver."""
    return Claimed._make


def _parameters(group: Group) -> dict[str, Any]:
    told: dict[str, Any] = {"channel": group.channel.value, "owner": group.owner}
    told["wanted"] = group.wanted
    if group.ahead:
        told["starting"] = bare(group.starting)
    if group.ended:
        told |= _of_outcomes(group)
    if group.bounces:
        told |= _of_bounces(group)
    if group.fared:
        told |= _of_endpoints(group)
    return told


def _of_outcomes(group: Group) -> dict[str, Any]:
    ended = group.ended
    outcomes = [one.outcome for one in ended]
    return {
        "ids": bare([one.row.id for one in ended]),
        "owners": quoted([one.row.lease_owner for one in ended]),
        "states": bare([one.verdict.state for one in ended]),
        "reasons": quoted([one.verdict.reason for one in ended]),
        "waits": bare([None if one.wait is None else one.wait // MICROSECOND for one in ended], "us"),
        "tries": bare([one.tries for one in ended]),
        "attempts": bare([one.attempts for one in ended]),
        "repeats": bare([one.repeats for one in ended]),
        "outcomes": bare([outcome.state for outcome in outcomes]),
        "codes": bare([outcome.code for outcome in outcomes]),
        "enhanced": quoted([outcome.enhanced[:16] for outcome in outcomes]),
        "replies": quoted([outcome.reply for outcome in outcomes]),
        "phases": quoted([outcome.phase for outcome in outcomes]),
        "faults": quoted([outcome.fault for outcome in outcomes]),
        "durations": bare([one.duration_ms for one in ended]),
    } | _of_tallies(ended)


def _of_tallies(ended: Sequence[Ended]) -> dict[str, Any]:
    """All standings that occur, once each, and the place that each delivery leaves and takes among them."""
    places: dict[Standing, int] = {}
    moves: dict[Move, list[int | None]] = {}
    was_becomes = [moves.get(move := move_of(one)) or moves.setdefault(move, _places(one, places)) for one in ended]
    columns = list(zip(*places, strict=True)) or [()] * len(Standing._fields)
    names = ("subjects", "revisions", "channels", "audiences", "forms", "kinds", "marks")
    told = {name: quoted(map(str, column)) for name, column in zip(names, columns, strict=True)}
    return told | {
        "was": bare([was for was, _ in was_becomes]),
        "becomes": bare([becomes for _, becomes in was_becomes]),
    }


def _places(one: Ended, places: dict[Standing, int]) -> list[int | None]:
    return [standing and places.setdefault(standing, len(places) + 1) for standing in standings(one)]


def _of_bounces(group: Group) -> dict[str, Any]:
    columns = {"events": "id", "exchanges": "exchange", "routes": "routing_key", "bodies": "body"}
    return {name: [row[column] for row in group.bounces] for name, column in columns.items()}


def _of_endpoints(group: Group) -> dict[str, Any]:
    fared = group.fared
    return {
        "endpoints": bare([one.endpoint_id for one in fared]),
        "well": bare([one.well for one in fared]),
        "anew": bare([one.anew for one in fared]),
        "failures": bare([one.failures for one in fared]),
        "statuses": bare([one.status for one in fared]),
        "ways": quoted([one.phase for one in fared]),
        "stale": WRITTEN_EVERY,
    }
