"""A group commit on SQLite: a handful of statements in one visit to a thread, instead of one visit each."""

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy.dialects import sqlite

from distributor.group_commit import Group, in_order, must_not_begin, tallied
from distributor.leases import Claimed, Ended
from distributor.states import LANE_OF_RANK
from distributor.webhooks.health import WRITTEN_EVERY, Fared
from shared.clock import Clock
from shared.database import EPOCH, MICROSECOND, Database
from shared.ids import new_id

RECORD = """
UPDATE deliveries
SET state = ?, ended_reason = ?, next_attempt_at = ?, changed_at = ?, tries = ?, attempts = ?, repeats = ?,
    lease_owner = NULL, begun_at = NULL, leased_from = ''
WHERE id = ? AND lease_owner = ? AND state = 'leased'
"""
TRIED = """
INSERT INTO delivery_attempts (delivery_id, number, state, code, enhanced, reply, phase, fault, duration_ms, ended_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
STILL_OURS = "SELECT 1 FROM deliveries WHERE id = ? AND changed_at = ? AND lease_owner IS NULL"
TALLIED = """
INSERT INTO tally_changes (id, subject_id, revision, channel, audience, form, state, mark, count, weeded)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0)
"""
TOLD = """
INSERT INTO outbox (id, exchange, routing_key, body, created_at, attempts) VALUES (?, ?, ?, ?, ?, 0)
ON CONFLICT DO NOTHING
"""
FARED = """
UPDATE endpoint_health
SET works = :well, last_status = :status, last_phase = :phase, last_attempt_at = :at,
    failures = CASE WHEN :anew THEN 0 ELSE failures END + :failures,
    failing_since = CASE WHEN :well THEN NULL WHEN :anew OR failing_since IS NULL THEN :at ELSE failing_since END,
    last_success_at = CASE WHEN :anew THEN :at ELSE last_success_at END
WHERE endpoint_id = :endpoint
    AND (NOT :well OR works IS NOT 1 OR told <> '' OR last_success_at IS NULL OR last_success_at < :stale)
"""
OWN_KEYS = [Claimed._fields.index(name) for name in ("id", "recipient_id")]
SHARED_KEYS = [Claimed._fields.index(name) for name in ("subject_id", "edition_id")]
INSTANTS = [Claimed._fields.index(name) for name in ("planned_at", "begun_at")]
"""Where a row of `CLAIM` has what SQLite has no type for."""

OF_LANE = """
SELECT * FROM (
    SELECT id FROM deliveries WHERE channel = :channel AND lane = {lane} AND next_attempt_at <= :at
        AND EXISTS (SELECT 1 FROM sender_leases WHERE owner = :owner AND held_until > :at)
    ORDER BY next_attempt_at LIMIT :wanted
)"""
CLAIM = f"""
UPDATE deliveries
SET leased_from = state, state = 'leased', lease_owner = :owner, next_attempt_at = NULL,
    begun_at = CASE WHEN :ahead OR {must_not_begin(":at", sqlite.dialect())} THEN NULL ELSE :at END
WHERE id IN ({" UNION ALL ".join(OF_LANE.format(lane=rank) for rank in range(len(LANE_OF_RANK)))} LIMIT :wanted)
RETURNING {", ".join(Claimed._fields)}
"""  # noqa: S608 - nothing in it comes from outside
BEGIN = f"""
UPDATE deliveries SET begun_at = CASE WHEN {must_not_begin(":at", sqlite.dialect())} THEN NULL ELSE :at END
WHERE id IN (SELECT value FROM json_each(:starting)) AND lease_owner = :owner AND state = 'leased'
RETURNING {", ".join(Claimed._fields)}
"""  # noqa: S608 - the same


class SqliteGroupCommit:
    """See `group_commit.GroupCommit`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def write(self, group: Group) -> list[Claimed]:
        now = self._clock.now()
        return in_order(await self._database.at_once(lambda connection: _write(connection, group, now)))

    async def close(self) -> None:
        """The thread is the database's."""


def _write(connection: sqlite3.Connection, group: Group, now: datetime) -> list[Claimed]:
    at = _micros(now)
    written = connection.executemany(RECORD, [_record(one, now, at) for one in group.ended])
    ours = group.ended if written.rowcount == len(group.ended) else _still_ours(connection, group.ended, at)
    changes = [(new_id().hex, key.subject_id.hex, *key[1:], count) for key, count in tallied(ours).items() if count]
    connection.executemany(TALLIED, changes)
    connection.executemany(TRIED, [_attempt(one, at) for one in group.ended])
    connection.executemany(FARED, [_fared(one, now) for one in group.fared])
    bounces = [(row["id"].hex, row["exchange"], row["routing_key"], row["body"], at) for row in group.bounces]
    connection.executemany(TOLD, bounces)
    told = {"owner": group.owner, "at": at}
    starting = {"starting": json.dumps([key.hex for key in group.starting])}
    rows = connection.execute(BEGIN, told | starting).fetchall() if group.starting else []
    if group.wanted:
        rows += connection.execute(CLAIM, told | _wanted(group)).fetchall()
    return [_claimed(row) for row in rows]


def _wanted(group: Group) -> dict[str, Any]:
    return {"channel": group.channel.value, "wanted": group.wanted, "ahead": group.ahead}


def _record(one: Ended, now: datetime, at: int) -> tuple[Any, ...]:
    due_at = _micros(now + one.wait) if one.wait is not None else None
    counts = (one.tries, one.attempts, one.repeats)
    state = one.verdict.state.value
    return (state, one.verdict.reason, due_at, at, *counts, one.row.id.hex, one.row.lease_owner)


def _still_ours(connection: sqlite3.Connection, ended: Sequence[Ended], at: int) -> list[Ended]:
    """Those whose delivery nobody has taken over: it changed in this very moment."""
    return [one for one in ended if connection.execute(STILL_OURS, (one.row.id.hex, at)).fetchone()]


def _attempt(one: Ended, at: int) -> tuple[Any, ...]:
    outcome = one.outcome
    said = (outcome.state.value, outcome.code, outcome.enhanced[:16], outcome.reply, outcome.phase[:])
    return (one.row.id.hex, one.tries, *said, outcome.fault.value, one.duration_ms, at)


def _fared(one: Fared, now: datetime) -> dict[str, Any]:
    told = {"well": one.well, "anew": one.anew, "failures": one.failures, "status": one.status, "phase": one.phase}
    return told | {"endpoint": one.endpoint_id.hex, "at": _micros(now), "stale": _micros(now - WRITTEN_EVERY)}


def _claimed(row: tuple[Any, ...]) -> Claimed:
    values = list(row)
    for at in OWN_KEYS:
        values[at] = UUID(int=int(values[at], 16))
    for at in SHARED_KEYS:
        values[at] = None if values[at] is None else _key(values[at])
    for at in INSTANTS:
        values[at] = None if values[at] is None else _instant(values[at])
    return Claimed._make(values)


@lru_cache
def _key(digits: str) -> UUID:
    """Of what many deliveries have in common."""
    return UUID(digits)


@lru_cache
def _instant(micros: int) -> datetime:
    """The same: they were planned together, and begin together."""
    return EPOCH + timedelta(microseconds=micros)


def _micros(instant: datetime) -> int:
    """As `shared.database.Instant` writes it."""
    return (instant - EPOCH) // MICROSECOND
