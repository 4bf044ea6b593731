"""A list of 100,000 people is in within half a minute, and twice the people take no more memory, on both databases.

The whole way: stored, checked, written by the worker, each stretch committed to a disk. `BUDKAVLE_BENCH_PEOPLE` makes
the list shorter.
"""

import io
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from tests.load.conftest import Table
from tests.load.memory import Watch, resident_mb
from tests.servers.postgres import PrivatePostgres, create_database

from shared import migrations
from shared.clock import SystemClock
from shared.contracts.news import Audience
from shared.database import Database
from subscriptions.app import MIGRATIONS
from subscriptions.imports import imports
from subscriptions.imports.models import ImportState
from subscriptions.imports.worker import ImportWorker
from subscriptions.models import Subscriber

PEOPLE = int(os.environ.get("BUDKAVLE_BENCH_PEOPLE", "100000"))
GOAL_S = 30.0
GROWTH_MB = 48.0


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    server = PrivatePostgres(durable=True) if request.param == "postgresql" else None
    if server is not None:
        server.start()
    url = create_database(server.url) if server else f"sqlite:///{tmp_path}/subscriptions.sqlite3"
    migrations.upgrade(MIGRATIONS, url)
    database = Database(url)
    yield database
    await database.dispose()
    if server is not None:
        server.remove()


def people(name: str, count: int) -> io.BytesIO:
    raw = io.BytesIO()
    raw.write("E-post;Namn;Kommun\r\n".encode("cp1252"))
    for number in range(count):
        raw.write(f"{name}.efternamn{number}@post{number % 40}.example;Åsa {number};Kalmar/Nybro\r\n".encode("cp1252"))
    return raw


async def imported(database: Database, source: io.BytesIO) -> dict[str, Any]:
    content = imports.compressed(source)
    source.close()
    async with database.transaction() as session:
        at = SystemClock().now()
        key = await imports.store(session, content, Audience.PUBLIC, at, file_name="lista.csv", is_agreed=True)
    del content
    worker = ImportWorker(database, SystemClock())
    while await worker.advance():
        pass
    async with database.reading() as session:
        found = await imports.look(session, key)
    assert found is not None
    assert found.state == ImportState.DONE, found.state
    return found.report


async def measured(database: Database, name: str, count: int) -> tuple[float, float]:
    """Seconds, and the highest memory meanwhile."""
    source = people(name, count)
    with Watch({"it": os.getpid()}) as watch:
        began = time.monotonic()
        report = await imported(database, source)
        took = time.monotonic() - began
    assert (report["created"], report["unchanged"]) == (count, 0)
    return took, watch.highest["it"]


@pytest.mark.bench
async def test_a_hundred_thousand_people_come_in(database: Database, table: Table) -> None:
    kind = "sqlite" if database.is_sqlite else "postgresql"
    await measured(database, "uppvärmning", PEOPLE // 10)
    before = resident_mb(os.getpid())
    took, peak = await measured(database, "anna", PEOPLE)
    table.add(f"{kind}: {PEOPLE:,} lines", f"{took:.1f} s, {PEOPLE / took:,.0f} lines/s, {peak - before:.0f} MB more")
    twice, peak_of_twice = await measured(database, "bo", 2 * PEOPLE)
    table.add(f"{kind}: {2 * PEOPLE:,} lines", f"{twice:.1f} s, {peak_of_twice - before:.0f} MB more")
    async with database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(Subscriber)) == PEOPLE // 10 + 3 * PEOPLE
    assert table.goal(f"{kind}: seconds for {PEOPLE:,} lines", took, GOAL_S * PEOPLE / 100_000, at_most=True)
    assert table.goal(f"{kind}: MB more for twice the lines", peak_of_twice - peak, GROWTH_MB, at_most=True)
