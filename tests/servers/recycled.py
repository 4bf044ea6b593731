"""PostgreSQL databases that one test after another uses: to empty one takes a tenth of the time to make one, and a run
needs hundreds.

No test sees what another did. Only a database that nobody is connected to any more and whose tables are as they were
made, never analysed, is emptied and lent again; any other is dropped.
"""

import contextlib
import time
from collections import defaultdict

import psycopg
from psycopg import sql

from tests.servers.migrated import migrated_postgres
from tests.servers.postgres import create_database, drop_database, plain

LEFT_WITHIN_S = 0.5
"""A connection that was closed is gone some milliseconds later."""
OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
SHAPE = """
SELECT (SELECT string_agg(format('%s %s.%s %s %s', c.relnamespace, c.relname, a.attname, a.atttypid, a.attnotnull), ';'
                          ORDER BY c.oid, a.attnum)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.oid >= 16384 AND c.relkind IN ('r', 'i', 'S', 'v')),
       (SELECT array_agg(conname ORDER BY oid) FROM pg_constraint WHERE oid >= 16384),
       (SELECT count(*) FROM pg_namespace), (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_trigger),
       (SELECT count(*) FROM pg_statistic WHERE starelid >= 16384),
       (SELECT count(*) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase
        WHERE datname = current_database())
"""
FILLED = """
SELECT relname FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version' AND pg_relation_size(oid) > 0
"""
NEW_SCHEMA = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"

Shape = tuple[object, ...]


class Databases:
    """Those of one process, on one server. `lend` and `take_back` each, `drop_all` at the end."""

    def __init__(self, server_url: str) -> None:
        self._server = server_url
        self._made: dict[str, tuple[str, Shape]] = {}
        self._idle: dict[str, list[str]] = defaultdict(list)

    def lend(self, service: str = "") -> str:
        """The SQLAlchemy URL of a database of `service` as its migrations make it; without a service, one without tables."""
        if self._idle[service]:
            return self._idle[service].pop()
        url = migrated_postgres(service, self._server) if service else create_database(self._server)
        with _connected(url) as connection:
            self._made[url] = (service, _shape(connection))
        return url

    def take_back(self, url: str) -> None:
        """Whatever was done to it."""
        service, made = self._made[url]
        if _emptied(url, made, "" if service else NEW_SCHEMA):
            self._idle[service].append(url)
        else:
            self._drop(url)

    def drop_all(self) -> None:
        for url in list(self._made):
            self._drop(url)

    def _drop(self, url: str) -> None:
        del self._made[url]
        drop_database(url, self._server)


def _emptied(url: str, made: Shape, reset: str) -> bool:
    """Whether it is as good as new now."""
    with contextlib.suppress(psycopg.Error), _connected(url) as connection:
        if not _left_alone(connection):
            return False
        if reset:
            connection.execute(reset.encode())
        else:
            _empty(connection)
        return _shape(connection) == made
    return False


def _connected(url: str) -> psycopg.Connection:
    return psycopg.connect(plain(url), autocommit=True)


def _left_alone(connection: psycopg.Connection) -> bool:
    """Whether everybody else has left, or does so in a moment."""
    deadline = time.monotonic() + LEFT_WITHIN_S
    while _one(connection, OTHERS) != (0,):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def _empty(connection: psycopg.Connection) -> None:
    tables = [sql.Identifier(name) for (name,) in connection.execute(FILLED)]
    if tables:
        connection.execute("SET session_replication_role = replica")  # the history lets nobody empty it
        connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY CASCADE").format(sql.SQL(", ").join(tables)))


def _shape(connection: psycopg.Connection) -> Shape:
    return _one(connection, SHAPE)


def _one(connection: psycopg.Connection, query: str) -> Shape:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row
