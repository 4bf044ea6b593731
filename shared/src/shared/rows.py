"""Many rows in one statement with one parameter.

To bind every value of five hundred rows by itself takes SQLAlchemy and the driver several times as long as the
database needs to write them. So the rows go over as one JSON text, which the database reads into the table's own types.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Dialect,
    FromClause,
    Table,
    Text,
    cast,
    column,
    func,
    literal,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import JSON

Row = Mapping[str, Any]


def as_table(session: AsyncSession, table: Table, rows: Sequence[Row], name: str = "told") -> FromClause:
    """The rows, which all have the first one's columns of `table`, to be selected from."""
    dialect, names = session.get_bind().dialect, tuple(rows[0])
    written = [(each, _writing(table, each, dialect)) for each in names]
    told = json.dumps([{each: write(row[each]) for each, write in written} for row in rows], default=str)
    if dialect.name == "sqlite":
        each_row = func.json_each(told).table_valued("value")
        columns = [func.json_extract(each_row.c.value, f"$.{each}").label(each) for each in names]
        return select(*columns).select_from(each_row).subquery(name)
    like: ColumnElement[Any] = literal_column(f"NULL::{dialect.identifier_preparer.format_table(table)}")
    typed = [column(each, table.c[each].type) for each in names]
    return func.json_populate_recordset(like, cast(literal(told, Text), postgresql.JSON)).table_valued(
        *typed, name=name
    )


async def put_rows(session: AsyncSession, insert: Any, rows: Sequence[Row]) -> None:
    """Carry out the `INSERT` (with its `ON CONFLICT`, if it has one) for all the rows."""
    if not rows:
        return
    # SQLite takes an ON CONFLICT behind a SELECT for a part of its FROM unless there is a WHERE.
    source = select(as_table(session, insert.table, rows)).where(true())
    await session.execute(insert.from_select(list(rows[0]), source))


@lru_cache(maxsize=500)
def _writing(table: Table, name: str, dialect: Dialect) -> Callable[[Any], Any]:
    """How a value of the column stands in the JSON text."""
    kind = table.c[name].type
    process = None if isinstance(kind, JSON) else kind.dialect_impl(dialect).bind_processor(dialect)
    return process or (lambda value: value)
