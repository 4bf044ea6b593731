"""Runs a service's migrations. Each service has a folder of its own and a version table in its own database.

Replicas that start together take turns: on PostgreSQL by an advisory lock, on SQLite by the file's own. All pending
migrations are one transaction, on SQLite too: a start that is killed half-way leaves the database as it was.
"""

from pathlib import Path
from typing import Any

from alembic import command, context
from alembic.config import Config
from sqlalchemy import Connection, Engine, MetaData, create_engine, event, inspect, make_url, text

from shared import idempotency, keys  # noqa: F401 - their tables are part of the plumbing
from shared.database import plumbing, sync_url
from shared.messaging import dead_letters, outbox  # noqa: F401 - as above
from shared.settings import refuse

ADVISORY_LOCK = 7_461_002
LOCK_WAIT_S = 60


def config(folder: Path, database_url: str) -> Config:
    """Alembic's configuration for the migrations in `folder`."""
    settings = Config()
    settings.set_main_option("script_location", str(folder))
    settings.attributes["url"] = sync_url(database_url)
    return settings


class MadeBefore(Exception):
    """The database says that it is the newest, and lacks this table or column."""


def upgrade(folder: Path, database_url: str) -> None:
    """Bring the database to the newest version; does nothing where it is. Ends the process where it cannot be."""
    try:
        command.upgrade(config(folder, database_url), "head")
    except MadeBefore as error:
        shown = make_url(database_url).render_as_string(hide_password=True)
        refuse(
            f"the database {shown} was made by a version before the first release, and lacks {error};"
            " its data cannot be taken along: name a new database, or move the old one (BUDKAVLE_DATA_DIR) away"
        )


def run(metadata: MetaData) -> None:
    """What a service's `env.py` calls: apply the pending migrations for `metadata` and the plumbing."""
    settings: Any = context.config
    engine = _engine(settings.attributes["url"])
    try:
        with engine.connect() as connection:
            _take_turn(connection)
            context.configure(
                connection=connection,
                target_metadata=[metadata, plumbing],
                render_as_batch=True,
                compare_type=True,
                transactional_ddl=True,
                user_module_prefix="",
            )
            with context.begin_transaction():
                context.run_migrations()
            _look_for(connection, metadata, plumbing)
            connection.commit()
    finally:
        engine.dispose()


def _look_for(connection: Connection, *described: MetaData) -> None:
    columns = inspect(connection).get_multi_columns()
    there = {table: {column["name"] for column in those} for (_, table), those in columns.items()}
    for table in (table for metadata in described for table in metadata.sorted_tables):
        if table.name not in there:
            raise MadeBefore(f"the table {table.name}")
        if lacking := sorted(set(table.columns.keys()) - there[table.name]):
            raise MadeBefore(f"{table.name}.{lacking[0]}")


def _engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url)
    engine = create_engine(url, connect_args={"timeout": LOCK_WAIT_S})
    event.listen(engine, "connect", _leave_begin_to_us)
    event.listen(engine, "begin", _begin)
    return engine


def _leave_begin_to_us(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # pysqlite by itself would run DDL outside any transaction


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _take_turn(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET lock_timeout = '{LOCK_WAIT_S}s'"))
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
        connection.commit()
