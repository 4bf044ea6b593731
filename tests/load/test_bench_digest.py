"""A digest run of 50,000 readers for whom three items wait: readers a second of processor time, memory, statements.

Page by page as the worker does, with a relay that confirms at once. `BUDKAVLE_BENCH_READERS` makes the run shorter.
"""

import gc
import os
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, insert, select, text, update
from tests.load.conftest import Table
from tests.load.memory import Watch, family_cpu_seconds, resident_mb
from tests.servers.postgres import PrivatePostgres, create_database

from shared import migrations
from shared.clock import FixedClock
from shared.contracts.news import Audience, ItemSnapshot, ItemState, Kind, Locale
from shared.database import Database
from shared.ids import new_id
from shared.messaging.outbox import outbox
from shared.rows import put_rows
from subscriptions import digest_rows
from subscriptions.addresses import Address
from subscriptions.app import MIGRATIONS, build
from subscriptions.digest_worker import DigestWorker
from subscriptions.models import DigestEntry, DigestRun, FrequencyRow, Item, Role, Subscriber, rank_of
from subscriptions.people import role_values
from subscriptions.settings import SubscriptionsSettings
from subscriptions.subscribing import values_of

READERS = int(os.environ.get("BUDKAVLE_BENCH_READERS", "50000"))
NOW = datetime(2026, 11, 27, 7, 31, tzinfo=UTC)
CHUNK = 1_000
GROWTH_MB = 24.0
STATEMENTS = 20
"""A page has 500 readers: what it costs must not depend on how many there are."""


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest) -> Iterator[PrivatePostgres | None]:
    if request.param == "sqlite":
        yield None
        return
    private = PrivatePostgres(durable=True)
    private.start()
    yield private
    private.remove()


@pytest.fixture
async def worker(server: PrivatePostgres | None, tmp_path: Path) -> AsyncIterator[DigestWorker]:
    url = create_database(server.url) if server else f"sqlite:///{tmp_path}/subscriptions.sqlite3"
    migrations.upgrade(MIGRATIONS, url)
    settings = SubscriptionsSettings(
        database_url=url, broker_url="embedded:unused", secret_keys=("k" * 40,), public_url="https://nyheter.example"
    )
    service = build(settings, FixedClock(NOW))
    yield next(found for found in service.workers if isinstance(found, DigestWorker))
    await service.database.dispose()


def tables(start: int, items: list[ItemSnapshot]) -> list[tuple[Any, list[dict[str, Any]]]]:
    """A thousand readers; every tenth has chosen a topic."""
    people, roles, chosen, waiting = [], [], [], []
    for number in range(start, min(start + CHUNK, READERS)):
        key, address = new_id(), f"lasare.{number}@kalmar.example"
        person = {"id": key, **values_of(Address(address, address), f"Läsare {number}", Locale.SV, NOW)}
        people.append({**person, "topics": frozenset({"results"} if number % 10 == 1 else ())})
        roles.append(role_values(key, Audience.PUBLIC, None))
        chosen.append({"subscriber_id": key, "topic": "", "frequency": "daily"})
        rank = rank_of(Audience.PUBLIC)
        at = NOW - timedelta(hours=20)
        waiting += [
            {"subscriber_id": key, "item_id": item.item_id, "audience_rank": rank, "published_at": at} for item in items
        ]
    return [(Subscriber, people), (Role, roles), (FrequencyRow, chosen), (DigestEntry, waiting)]


def item(number: int) -> ItemSnapshot:
    at = NOW - timedelta(hours=20)
    return ItemSnapshot(
        item_id=new_id(), revision=1, kind=Kind.NEWS, state=ItemState.PUBLISHED, language=Locale.SV,
        title=f"Ny samverkan {number}", lead="Fler får stöd tillbaka till arbete.", body_html="<p>Text</p>",
        body_text="Text", slug=f"ny-samverkan-{number}", url=f"https://nyheter.example/nyheter/ny-samverkan-{number}",
        audiences=(Audience.PUBLIC,), published_at=at, revised_at=at,
    )  # fmt: skip


async def fill(database: Database) -> None:
    items = [item(number) for number in range(3)]
    async with database.transaction() as session:
        for each in items:
            row = {"id": each.item_id, "revision": 1, "state": "published", "snapshot": each.model_dump(mode="json")}
            await session.execute(insert(Item).values(row))
    for start in range(0, READERS, CHUNK):
        async with database.transaction() as session:
            for table, rows in tables(start, items):
                await put_rows(session, insert(table.__table__), rows)
    if not database.is_sqlite:
        async with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await connection.execute(text("VACUUM ANALYZE"))


async def confirm(database: Database) -> None:
    """What the relay does."""
    async with database.transaction(quiet=True) as session:
        await session.execute(update(outbox).where(outbox.c.published_at.is_(None)).values(published_at=NOW))


@pytest.mark.bench
async def test_a_digest_run_of_fifty_thousand(
    worker: DigestWorker, server: PrivatePostgres | None, table: Table
) -> None:
    database = worker._database
    kind = "postgresql" if server else "sqlite"
    await fill(database)
    async with database.transaction() as session:
        await digest_rows.begin(session, new_id(), NOW, NOW, weekly=False)
    told: list[int] = []
    event.listen(database.engine.sync_engine, "before_cursor_execute", lambda *call: told.append(len(call[3])))
    await worker.advance()
    gc.collect()
    before, statements, pages = resident_mb(os.getpid()), 0, 0
    theirs, ours, began = _theirs(server), time.process_time(), time.monotonic()
    with Watch({"it": os.getpid()}) as watch:
        told.clear()
        while await worker.advance():
            statements, pages = max(statements, len(told)), pages + 1
            await confirm(database)
            told.clear()
    seconds, ours, theirs = time.monotonic() - began, time.process_time() - ours, _theirs(server) - theirs
    per, grown = 1e6 / (pages * 500), watch.highest["it"] - before
    async with database.reading() as session:
        run = await session.scalar(select(DigestRun))
        left = await session.scalar(select(func.count()).select_from(DigestEntry))
    assert run is not None
    assert (run.mails + run.excluded, left) == (READERS, 0)
    table.add(
        f"{kind}: digests of {READERS:,}, three items each",
        f"{1e6 / (ours * per + theirs * per):,.0f}/s a core ({ours * per:.0f} µs ours, {theirs * per:.0f} PostgreSQL's);"
        f" {seconds:.1f} s; {grown:.0f} MB more; {statements} statements a page",
    )
    assert table.goal(f"{kind}: MB more", grown, GROWTH_MB, at_most=True)
    assert table.goal(f"{kind}: statements a page", statements, STATEMENTS, at_most=True)


def _theirs(server: PrivatePostgres | None) -> float:
    return family_cpu_seconds(server.pid) if server else 0.0
