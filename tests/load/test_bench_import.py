"""A list of 100,000 people is in within half a minute, and twice the people take no more memory, on both databases.

The whole way: stored, checked, written by the worker, each stretch committed to a disk; then the same list again, and
again with every name changed. Processor time is that of this process, which makes the list too, and of PostgreSQL's.
`BUDKAVLE_BENCH_PEOPLE` makes the list shorter.
"""

import io
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from tests.load.conftest import Table
from tests.load.memory import Watch, family_cpu_seconds, resident_mb
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
COUNTED = ("created", "updated", "unchanged")


@dataclass
class Spent:
    seconds: float
    ours: float
    theirs: float
    peak_mb: float
    report: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s; CPU {self.ours:.1f} s, PostgreSQL {self.theirs:.1f} s"


@dataclass
class Bench:
    database: Database
    server_pid: int | None

    async def run(self, name: str, count: int, *, called: str = "Åsa") -> Spent:
        """Make a list of so many people, and bring it in."""
        source, theirs, ours = people(name, count, called), self._theirs(), time.process_time()
        with Watch({"it": os.getpid()}) as watch:
            began = time.monotonic()
            report = await imported(self.database, source)
            seconds = time.monotonic() - began
        return Spent(seconds, time.process_time() - ours, self._theirs() - theirs, watch.highest["it"], report)

    def _theirs(self) -> float:
        return family_cpu_seconds(self.server_pid) if self.server_pid else 0.0


@pytest.fixture(params=["sqlite", "postgresql"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    server = PrivatePostgres(durable=True) if request.param == "postgresql" else None
    if server is not None:
        server.start()
    url = create_database(server.url) if server else f"sqlite:///{tmp_path}/subscriptions.sqlite3"
    migrations.upgrade(MIGRATIONS, url)
    database = Database(url)
    yield Bench(database, server.pid if server else None)
    await database.dispose()
    if server is not None:
        server.remove()


def people(name: str, count: int, called: str) -> io.BytesIO:
    raw = io.BytesIO()
    raw.write("E-post;Namn;Kommun\r\n".encode("cp1252"))
    for number in range(count):
        line = f"{name}.efternamn{number}@post{number % 40}.example;{called} {number};Kalmar/Nybro\r\n"
        raw.write(line.encode("cp1252"))
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


@pytest.mark.bench
async def test_a_hundred_thousand_people_come_in(bench: Bench, table: Table) -> None:
    kind = "sqlite" if bench.database.is_sqlite else "postgresql"
    await bench.run("uppvärmning", PEOPLE // 10)
    before = resident_mb(os.getpid())
    once = await bench.run("anna", PEOPLE)
    table.add(f"{kind}: {PEOPLE:,} lines", f"{once}; {once.peak_mb - before:.0f} MB more")
    again = await bench.run("anna", PEOPLE)
    table.add(f"{kind}: the same again", str(again))
    renamed = await bench.run("anna", PEOPLE, called="Örjan")
    table.add(f"{kind}: again with other names", str(renamed))
    twice = await bench.run("bo", 2 * PEOPLE)
    table.add(f"{kind}: {2 * PEOPLE:,} lines", f"{twice}; {twice.peak_mb - before:.0f} MB more")
    counts = [[each.report[what] for what in COUNTED] for each in (once, again, renamed, twice)]
    assert counts == [[PEOPLE, 0, 0], [0, 0, PEOPLE], [0, PEOPLE, 0], [2 * PEOPLE, 0, 0]]
    async with bench.database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(Subscriber)) == PEOPLE // 10 + 3 * PEOPLE
    assert table.goal(f"{kind}: seconds for {PEOPLE:,} lines", once.seconds, GOAL_S * PEOPLE / 100_000, at_most=True)
    assert table.goal(f"{kind}: MB more for twice the lines", twice.peak_mb - once.peak_mb, GROWTH_MB, at_most=True)
