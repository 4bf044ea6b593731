"""Finding an item's audience on PostgreSQL: 10,000, 100,000 and a million people, page by page as the fan-out does.

What is measured is what decides who gets the item and who does not, and why: the page's question, its rows, the choices.
The links and the event that follow are measured with the fan-out. Rates are of processor time, ours and the database's
own process apart, since the machine is shared; a million takes as long a person as ten thousand, in the same memory.
"""

import gc
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from tests.load import register
from tests.load.conftest import Table
from tests.load.memory import cpu_seconds, resident_mb
from tests.servers.postgres import PrivatePostgres, create_database, plain

from shared import migrations
from shared.contracts.mail import BATCH_SIZE
from shared.contracts.news import Audience
from shared.database import Database
from subscriptions.app import MIGRATIONS
from subscriptions.audience import Target, why_left_out
from subscriptions.matching import audience_page, in_strength

SIZES = [int(size) for size in os.environ.get("BUDKAVLE_BENCH_REGISTERS", "10000,100000,1000000").split(",")]
GOAL = 50_000
GROWTH_GOAL_MB = 16
NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
ITEMS = {
    "public, everything": Target(frozenset({Audience.PUBLIC}), frozenset(), frozenset(), NOW.date()),
    "politicians and public, two municipalities, one topic": Target(
        frozenset({Audience.POLITICIAN, Audience.PUBLIC}),
        frozenset({"0880", "0882"}),
        frozenset({"results"}),
        NOW.date(),
    ),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """What one item took."""

    people: int
    ours_s: float
    theirs_s: float
    wall_s: float
    causes: Counter[str]

    @property
    def rate(self) -> float:
        """People a second of both processes' time together: what one core does."""
        return self.people / (self.ours_s + self.theirs_s)

    def told(self) -> str:
        per = 1e6 / self.people
        return (
            f"{self.people:,} people, {self.rate:,.0f}/s a core ({self.ours_s * per:.1f} µs ours,"
            f" {self.theirs_s * per:.1f} µs PostgreSQL's; {self.people / self.wall_s:,.0f}/s by the clock);"
            f" {self.causes.total():,} left out"
        )


@pytest.fixture(scope="module")
def server() -> Iterator[PrivatePostgres]:
    private = PrivatePostgres(durable=True)
    private.start()
    yield private
    private.remove()


@pytest.fixture(params=SIZES)
async def filled(request: pytest.FixtureRequest, server: PrivatePostgres) -> AsyncIterator[Database]:
    url = create_database(server.url)
    migrations.upgrade(MIGRATIONS, url)
    register.fill(plain(url), request.param)
    database = Database(url)
    yield database
    await database.dispose()


async def match_all(database: Database, target: Target, *, pages: int | None = None) -> Measured:
    """Every page of every audience (or the first so many), each in a session of its own, as the fan-out asks."""
    ours = theirs = 0.0
    people, causes, began = 0, Counter[str](), time.monotonic()
    for audience in in_strength(target.audiences):
        after: UUID | None = None
        for _ in count() if pages is None else range(pages):
            async with database.reading() as session:
                server_pid = await _server_process(session)
                before, cpu = cpu_seconds(server_pid), time.process_time()
                matches, after = await audience_page(session, target, audience, after=after, limit=BATCH_SIZE)
                causes.update(str(cause) for match in matches if (cause := why_left_out(match, target, NOW)))
                ours += time.process_time() - cpu
                theirs += cpu_seconds(server_pid) - before
            people += len(matches)
            if after is None:
                break
    return Measured(people, ours, theirs, time.monotonic() - began, causes)


async def _server_process(session: AsyncSession) -> int:
    return int(await session.scalar(text("SELECT pg_backend_pid()")) or 0)


@pytest.mark.bench
async def test_an_audience_of_any_size_is_found_at_one_speed(filled: Database, table: Table) -> None:
    for name, target in ITEMS.items():
        await match_all(filled, target, pages=20)  # warm
        gc.collect()
        before = resident_mb(os.getpid())
        measured = await match_all(filled, target)
        grown = resident_mb(os.getpid()) - before
        table.add(f"matching, {name}", f"{measured.told()}; {grown:.0f} MB more")
        table.goal(f"matching, {name}, {measured.people:,} people, a second and core", measured.rate, GOAL)
        assert grown < GROWTH_GOAL_MB
