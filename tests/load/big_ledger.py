"""A ledger of any size on PostgreSQL, made by the server itself in a minute a million rows or two.

A tenth of the rows (of a small ledger, most) belong to one item (`GIANT`), the rest to items of 10,000. Every delivery was sent a year ago, but
for a thousand retries of the press lane that are due tomorrow: those that a claim must not walk through. Ids are made
as ours are: an item's begins with its millisecond, those of its deliveries as the item's.
"""

from typing import Any
from uuid import UUID

import psycopg

GIANT = UUID("00000000-0000-7000-8000-000000000000")
SMALL = 10_000
LATER = 1_000
LEAST = 10_000

_MINUTE = f"lpad(to_hex(1700000000000 + n / {SMALL} * 60000), 12, '0')"
_ITEM = f"CASE WHEN n < %(giant)s THEN '{GIANT}'::uuid ELSE ({_MINUTE} || '70008' || repeat('0', 15))::uuid END"
_BEGIN = f"CASE WHEN n < %(giant)s THEN repeat('0', 12) ELSE {_MINUTE} END"
_ID = f"({_BEGIN} || '80008' || left(md5('delivery ' || n), 15))::uuid"
_RECIPIENT = f"CASE WHEN n < %(giant)s THEN md5('person ' || n)::uuid ELSE md5('person ' || n %% {SMALL})::uuid END"

_DELIVERIES = f"""
INSERT INTO deliveries (id, subject_kind, subject_id, revision, channel, recipient_id, audience, form, lane, locale,
    address, reason, preferences_url, unsubscribe_url, one_click_url, thread_of, planned_at, state, ended_reason,
    next_attempt_at, leased_from, tries, attempts, repeats, created_at, changed_at)
SELECT {_ID}, 'item', {_ITEM}, 1, 'mail', {_RECIPIENT}, 'public', 'news',
    CASE WHEN n < {LATER} THEN 1 ELSE 2 END, 'sv', 'person' || n || '@kommun.example',
    'Du får det här eftersom du prenumererar.', 'https://forbundet.example/prenumeration/' || md5(n::text),
    'https://forbundet.example/avregistrera/' || md5(n::text), 'https://forbundet.example/avregistrera/' || md5(n::text),
    '', now() - interval '1 year', CASE WHEN n < {LATER} THEN 'deferred' ELSE 'sent' END, '',
    CASE WHEN n < {LATER} THEN now() + interval '1 day' END, '', 1, 1, 0,
    now() - interval '1 year', now() - interval '1 year'
FROM generate_series(0::bigint, %(rows)s - 1) AS n
"""
_ATTEMPTS = """
INSERT INTO delivery_attempts (delivery_id, number, state, code, enhanced, reply, phase, fault, duration_ms, ended_at)
SELECT id, 1, state, 250, '2.0.0', '2.0.0 Ok: queued as 4XyZ12abcDEF', 'dot', 'none', 12, changed_at FROM deliveries
"""
_ITEMS = """
INSERT INTO items (id, newest_revision, withdrawn, followed_to, progress_sequence, progress_digest)
SELECT DISTINCT subject_id, 1, false, '', 0, '' FROM deliveries
"""
_CONTENTS = f"""
INSERT INTO contents (subject_id, revision, subject_kind, note, heard, correlation_id, created_at, weeding_place)
SELECT id, 1, 'item', '', true, '', CASE WHEN id = '{GIANT}' THEN now() ELSE now() - interval '1 year' END, '' FROM items
"""
_TALLIES = """
INSERT INTO tallies (subject_id, revision, channel, audience, form, state, mark, count, weeded)
SELECT subject_id, 1, 'mail', 'public', 'news', state, '', count(*), 0 FROM deliveries GROUP BY subject_id, state
"""


def fill(connection: psycopg.Connection[Any], rows: int) -> None:
    """Write the ledger; its indexes are taken away meanwhile, and the statistics are fresh at the end."""
    indexes = _take_away(connection)
    connection.execute(_DELIVERIES, {"rows": rows, "giant": max(rows // 10, min(rows, LEAST) // 2)})
    for statement in (_ATTEMPTS, _ITEMS, _CONTENTS, _TALLIES, *indexes):
        connection.execute(statement)
    connection.commit()
    connection.autocommit = True
    connection.execute("VACUUM ANALYZE")


def _take_away(connection: psycopg.Connection[Any]) -> list[str]:
    """Drop what slows loading; returns the statements that bring it back."""
    keys = connection.execute(
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid IN ('deliveries'::regclass, 'delivery_attempts'::regclass) AND contype IN ('p', 'u')"
    ).fetchall()
    for table, name, _ in keys:
        connection.execute(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')
    others = connection.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename IN ('deliveries', 'delivery_attempts')"
    ).fetchall()
    for name, _ in others:
        connection.execute(f'DROP INDEX "{name}"')
    return [
        *(f'ALTER TABLE {table} ADD CONSTRAINT "{name}" {definition}' for table, name, definition in keys),
        *(definition for _, definition in others),
    ]
