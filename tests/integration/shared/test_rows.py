"""Many rows in one statement: what is written is what is read, whatever it holds, on both databases."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Date,
    Integer,
    MetaData,
    String,
    Table,
    Uuid,
    delete,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.types import JSON

from shared.database import Database, Instant, insert_ignoring, upsert
from shared.ids import new_id
from shared.rows import as_table, put_rows

kinds = Table(
    "groups",
    MetaData(),
    Column("id", Uuid, primary_key=True),
    Column("key", Integer, unique=True),
    Column("at", Instant),
    Column("day", Date),
    Column("text", String(40), nullable=False),
    Column("order", JSON),
    Column("sure", Boolean),
    Column("given", Integer, nullable=False, default=7),
)
AT = datetime(2026, 10, 25, 0, 59, 59, 123456, tzinfo=UTC)
ODD = "\"å\\ö'’{}\t,NULL 🗞 $.key %s :x"


def row(key: int, **more: Any) -> dict[str, Any]:
    common = {"id": new_id(), "key": key, "at": AT, "day": date(2026, 2, 28), "text": ODD, "sure": False}
    return {**common, "order": {"b": [1, None, ODD], "a": {"c": "d"}}, **more}


@pytest.fixture
async def tabled(database: Database) -> AsyncIterator[Database]:
    async with database.engine.begin() as connection:
        await connection.run_sync(kinds.create)
    yield database


async def kept(database: Database) -> list[dict[str, Any]]:
    async with database.reading() as session:
        return [dict(each._mapping) for each in await session.execute(select(kinds).order_by(kinds.c.key))]


async def test_what_is_written_is_what_is_read(tabled: Database) -> None:
    rows = [row(1), row(2, at=None, day=None, sure=None, text="", order=[]), row(3, order=None, sure=True)]
    async with tabled.transaction() as session:
        await put_rows(session, insert(kinds), rows)
        await put_rows(session, insert(kinds), [])
    assert await kept(tabled) == [{**each, "given": 7} for each in rows]


async def test_a_conflict_is_what_the_statement_says(tabled: Database) -> None:
    first, other, third = row(1), row(1, text="other"), row(3)
    async with tabled.transaction() as session:
        await put_rows(session, insert(kinds), [first])
        await put_rows(session, insert_ignoring(session, kinds, ["key"]), [other, third])
    assert [each["text"] for each in await kept(tabled)] == [ODD, ODD]
    async with tabled.transaction() as session:
        newer = upsert(session, kinds)
        newer = newer.on_conflict_do_update(index_elements=["key"], set_={"text": newer.excluded.text})
        await put_rows(session, newer, [other, row(2)])
    assert [(each["id"], each["text"]) for each in await kept(tabled)][::2] == [
        (first["id"], "other"),
        (third["id"], ODD),
    ]
    with pytest.raises(IntegrityError):
        async with tabled.transaction() as session:
            await put_rows(session, insert(kinds), [row(4), row(2)])
    assert len(await kept(tabled)) == 3


async def test_what_is_wrong_is_refused(tabled: Database) -> None:
    for wrong in (row(1, text=None), *([] if tabled.is_sqlite else [row(1, text="x" * 41)])):
        with pytest.raises(DBAPIError):
            async with tabled.transaction() as session:
                await put_rows(session, insert(kinds), [row(2), wrong])
    assert await kept(tabled) == []


async def test_rows_that_are_told_can_be_joined(tabled: Database) -> None:
    rows = [row(key) for key in range(500)]
    given: list[int] = []
    async with tabled.transaction() as session:
        await put_rows(session, insert(kinds), rows)
        event.listen(tabled.engine.sync_engine, "before_cursor_execute", lambda *call: given.append(len(call[3])))
        told = as_table(session, kinds, [{"id": each["id"], "text": f"n{each['key']}"} for each in rows[::2]])
        await session.execute(update(kinds).where(kinds.c.id == told.c.id).values(text=told.c.text))
    assert (len(given), max(given) < 5) == (1, True)
    assert [each["text"] for each in await kept(tabled)] == [ODD if key % 2 else f"n{key}" for key in range(500)]


async def test_sqlite_keeps_nothing_of_what_was_deleted_in_its_file_or_log(tmp_path: Path) -> None:
    """Neither in free pages, which a copy of the file would hold, nor in the log, once it begins anew."""
    database = Database(f"sqlite:///{tmp_path / 'rows.sqlite3'}")
    async with database.engine.begin() as connection:
        await connection.run_sync(kinds.create)
    long = "Ekmosse " * 2000  # on pages of its own
    async with database.transaction() as session:
        await put_rows(session, insert(kinds), [row(key, text=text) for key, text in ((1, "Ekmosse"), (2, long))])
    async with database.transaction() as session:
        await session.execute(update(kinds).where(kinds.c.key == 1).values(text="x"))
        await session.execute(delete(kinds).where(kinds.c.key == 2))
    await database.tidy()
    async with database.transaction() as session:
        await put_rows(session, insert(kinds), [row(3)])
    held = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    await database.dispose()
    assert len(held) == 3
    assert [name for name, content in held.items() if b"Ekmosse" in content] == []
