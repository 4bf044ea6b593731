"""One way to a database, the same on PostgreSQL and SQLite.

`Database.transaction()` is the place where work commits: one request or one message is one transaction. On SQLite it
begins IMMEDIATE and queues behind the process's other writers, so that nobody meets "database is locked" half-way.
`Database.reading()` never writes.

`Instant` keeps time as timestamptz on PostgreSQL and as whole microseconds on SQLite: aware UTC on both, in an order
that an index can use. Lease decisions take `now()` from the database server where there is one, since two machines'
clocks differ.
"""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Dialect,
    Interval,
    MetaData,
    Table,
    Text,
    Uuid,
    cast,
    event,
    func,
    literal,
    make_url,
    select,
    text,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.types import TypeDecorator, TypeEngine

from shared.clock import Clock, SystemClock
from shared.tasks import bounded

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
plumbing = MetaData(naming_convention=NAMING)
"""Tables that every service has beside its own: outbox, dead letters, API keys, idempotency keys."""

T = TypeVar("T")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
BUSY_TIMEOUT_MS = 10_000
CACHE_KIB = 512
"""SQLite's page cache for each of up to forty connections in the standalone process; the system caches the file
anyway. With SQLite's own 2 MB, memory grew by 35 MB over 100,000 recipients."""
FAREWELL_S = 0.02
"""aiosqlite's threads say good-bye through the loop, and nobody can wait for them: a loop that is closed at once, as
`asyncio.run` does, would get an exception in each."""
STATEMENT_TIMEOUT_MS = 30_000
LOSS_NOTICED = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
"""A server whose machine is gone says no good-bye: whoever waits for an answer is told by TCP after ten seconds or so
(the first three in seconds, the last in milliseconds). The system's own rule is two hours."""
POOL_SIZE = 10
POOL_WAIT_S = 2.5
READ_ONLY = "25006"
"""SQLSTATE of a write to a standby: it has not been promoted yet, or another has and this is yesterday's connection."""
ANSWER_S = 3.5
"""For a connection that answers, from the pool or new. A server that hangs keeps its connections open, and would keep
whoever asks it waiting for as long; psycopg itself waits ten seconds more for a query to be cancelled."""


class Instant(TypeDecorator[datetime]):
    """An aware instant in UTC. Naive values are refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(BigInteger())
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime never reaches the database")
        if dialect.name == "sqlite":
            return (value - EPOCH) // MICROSECOND
        return value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if dialect.name == "sqlite":
            return EPOCH + timedelta(microseconds=value)
        instant: datetime = value
        return instant.astimezone(UTC)


def async_url(url: str) -> str:
    """Name the async driver where a plain `postgresql://` or `sqlite://` is given."""
    parsed = make_url(url)
    drivers = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "sqlite": "sqlite+aiosqlite"}
    return parsed.set(drivername=drivers.get(parsed.drivername, parsed.drivername)).render_as_string(
        hide_password=False
    )


def sync_url(url: str) -> str:
    """The same database for migrations, which run without a loop."""
    parsed = make_url(async_url(url))
    name = "sqlite" if parsed.get_backend_name() == "sqlite" else "postgresql+psycopg"
    return parsed.set(drivername=name).render_as_string(hide_password=False)


class Database:
    """An engine, its sessions, and who is to be told after a commit."""

    def __init__(self, url: str, *, clock: Clock | None = None, pool_size: int = POOL_SIZE) -> None:
        self._clock = clock or SystemClock()
        self.engine = _engine(async_url(url), pool_size)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False, autoflush=False)
        self._writer: asyncio.Lock | None = asyncio.Lock() if self.is_sqlite else None
        self._thread = SqliteThread(url) if self.is_sqlite else None
        self._after_commit: list[Callable[[], None]] = []

    def on_commit(self, wake: Callable[[], None]) -> None:
        """Call `wake` after every commit: relays and workers look for work at once instead of at their next poll."""
        self._after_commit.append(wake)

    def wake(self) -> None:
        """Tell everybody who asked that there may be work, as a commit does."""
        for wake in self._after_commit:
            wake()

    @asynccontextmanager
    async def transaction(self, *, quiet: bool = False) -> AsyncIterator[AsyncSession]:
        """A session that commits at the end of the block, or rolls back when the block raises.

        `quiet` is for those who look for work: a commit that wakes them would have them look for ever.
        """
        async with self._writer or nullcontext():
            async with self._sessions() as session:
                session.info["writes"] = True
                connection = await self._answering(session, {"budkavle_writes": True})
                yield session
                await _commit(session, connection)
        if not quiet:
            self.wake()

    async def at_once(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """SQLite alone: `work` as a transaction of its own in one visit to a thread. It tells nobody of its commit.

        For statements that are written by the thousand: each one of a session costs a visit.
        """
        assert self._writer is not None
        assert self._thread is not None
        async with self._writer:
            return await asyncio.get_running_loop().run_in_executor(self._thread.executor, self._thread.transact, work)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A session that is rolled back at the end of the block."""
        async with self._sessions() as session:
            await self._answering(session, {})
            yield session

    async def _answering(self, session: AsyncSession, options: dict[str, Any]) -> AsyncConnection:
        """The session's connection. SQLite's lies in this process, and waits for its own locks."""
        opening = session.connection(execution_options=options)
        if self.is_sqlite:
            return await opening
        try:
            return await bounded(opening, ANSWER_S)
        except TimeoutError as error:
            raise PoolTimeout("the database does not answer") from error

    def now(self) -> ColumnElement[datetime]:
        """The present, by the database server's clock where there is one."""
        if self.is_sqlite:
            return literal(self._clock.now(), Instant())
        return func.clock_timestamp(type_=Instant())

    def later(self, wait: timedelta) -> ColumnElement[datetime]:
        """In a while from now, by the same clock."""
        if self.is_sqlite:
            return literal(self._clock.now() + wait, Instant())
        return type_coerce(func.clock_timestamp() + literal(wait, Interval()), Instant())

    async def ping(self) -> None:
        """Raise unless the database answers."""
        async with self.reading() as session:
            await session.execute(select(literal(1)))

    async def tidy(self) -> None:
        """Have SQLite's log begin anew with the next write, as far as nobody reads in it: what has been deleted since
        stands in it until then, which on a quiet day takes long. PostgreSQL sees to its own.
        """
        if self.is_sqlite:
            async with self.engine.connect() as connection:
                await connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")

    async def dispose(self) -> None:
        """Close all connections. Without it aiosqlite's thread keeps the process alive."""
        await self.engine.dispose()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.close)
            await asyncio.sleep(FAREWELL_S)


class SqliteThread:
    """A thread with a connection of its own, opened when it is first needed."""

    def __init__(self, url: str) -> None:
        self._path = make_url(url).database or ""
        self._connection: sqlite3.Connection | None = None
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="sqlite")

    def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Begin, work, commit; in the thread."""
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_MS / 1000)
            _prepare_sqlite(self._connection, None)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            done = work(self._connection)
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.close()  # a COMMIT that was refused leaves its transaction open
            self._connection = None
            raise
        return done

    def close(self) -> None:
        """Close the connection, and end the thread; blocks until what is under way has ended."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self.executor.submit(connection.close)
        self.executor.shutdown(wait=True)


async def _commit(session: AsyncSession, connection: AsyncConnection) -> None:
    """Commit, and throw the connection away where that fails: SQLite keeps a transaction open whose COMMIT was refused,
    SQLAlchemy does not roll it back, and the pool would hand it to the next in line.
    """
    try:
        await session.commit()
    except BaseException:
        await connection.invalidate()
        raise


async def instant(session: AsyncSession, clock: Clock) -> datetime:
    """The present as a value, by the same clock as `Database.now()`: what is compared with it must be written by it."""
    if session.get_bind().dialect.name == "sqlite":
        return clock.now()
    return (await session.execute(select(func.clock_timestamp(type_=Instant())))).scalar_one()


def insert_ignoring(session: AsyncSession, table: Table, index: Sequence[str] | None = None) -> Any:
    """`INSERT … ON CONFLICT DO NOTHING`, which both databases know under another name."""
    build = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    return build(table).on_conflict_do_nothing(index_elements=index)


def upsert(session: AsyncSession, table: Table) -> Any:
    """The dialect's own `INSERT`, for an `ON CONFLICT DO UPDATE` to be hung on."""
    build = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    return build(table)


def among(session: AsyncSession, column: Any, keys: Iterable[UUID] | Iterable[str]) -> Any:
    """`column IN (keys)` as one parameter: to bind five hundred takes far longer than to look them up."""
    if session.get_bind().dialect.name == "sqlite":
        told = json.dumps([key.hex if isinstance(key, UUID) else key for key in keys])
        each = func.json_each(told).table_valued("value")
        return column.in_(select(each.c.value))
    # Not `= ANY(…)`: where the planner reads the whole table, it would take the array's text apart anew for each row.
    if not isinstance(column.type, Uuid):
        return column.in_(select(func.unnest(literal(list(keys), postgresql.ARRAY(Text)))))
    told = f"{{{','.join(map(str, keys))}}}"
    return column.in_(select(func.unnest(cast(literal(told, Text), postgresql.ARRAY(Uuid)))))


DETOURS = ("bitmapscan", "sort", "hashjoin", "mergejoin")
"""PostgreSQL's ways to a few rows that read many. Each is a setting, `enable_…`."""
NO_DETOURS = text("SELECT " + ", ".join(f"set_config('enable_{way}', 'off', true)" for way in DETOURS))


async def from_index_to_row(connection: AsyncConnection) -> None:
    """Until its transaction ends, what PostgreSQL is asked is answered by going along an index, from row to row: for
    pages by key. Left to itself it reads all that is left and sorts it, for each page anew, as long as it does not
    know how much there is; and nothing is known of tables that have just been filled. SQLite does this by itself.
    """
    if connection.dialect.name != "sqlite":
        await connection.execute(NO_DETOURS)


def lost_a_race(error: DBAPIError) -> bool:
    """Whether two transactions met and this one had to give way (deadlock, serialization failure)."""
    return getattr(error.orig, "sqlstate", None) in {"40P01", "40001"}


def is_transient(error: BaseException) -> bool:
    """Whether trying again later may help: the connection went away, a deadlock, a lock held too long, a full disk."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or _passes(error.orig)
    return isinstance(error, TimeoutError | PoolTimeout | ConnectionError) or _passes(error)


def _passes(error: BaseException | None) -> bool:
    """The same of a driver's own error."""
    state = getattr(error, "sqlstate", None) or ""
    lost = isinstance(error, psycopg.OperationalError) and not state
    busy = isinstance(error, sqlite3.OperationalError) and any(word in str(error) for word in ("locked", "is full"))
    return lost or busy or state[:2] in {"08", "40", "53", "55", "57"} or state == READ_ONLY


def _engine(url: str, pool_size: int) -> AsyncEngine:
    if make_url(url).get_backend_name() == "sqlite":
        engine = create_async_engine(
            url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000}, pool_size=pool_size, hide_parameters=True
        )
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    engine = create_async_engine(
        url,
        pool_pre_ping=True,
        hide_parameters=True,  # an error's text goes to the log, and parameters hold addresses
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=POOL_WAIT_S,
        connect_args={
            **LOSS_NOTICED,
            "connect_timeout": 5,
            # Compiling a question costs PostgreSQL 50 ms; ours are short, also those whose cost it thinks high.
            "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c jit=off",
        },
    )
    event.listen(engine.sync_engine, "handle_error", _give_up_read_only)
    return engine


def _give_up_read_only(context: ExceptionContext) -> None:
    """Every connection of the pool: after a failover, new ones lead to who takes writes now."""
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves: pysqlite would begin too late and DEFERRED
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",  # a commit that was answered survives a power cut
        "foreign_keys=ON",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "secure_delete=ON",  # what is deleted is gone from the file too, and from copies of it
        "journal_size_limit=0",  # and from the log, when it begins anew
        f"cache_size=-{CACHE_KIB}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    writes = connection.get_execution_options().get("budkavle_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
