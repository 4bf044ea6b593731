"""An endpoint's attempts, page by page, among many: the newest first, and what a page reads of the ledger."""

import itertools
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event
from tests.integration.distributor.webhook_room import HookRoom, opened

from distributor.ledger import attempts, deliveries
from distributor.webhooks import history
from shared.ids import new_id

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
BLANK = {"subject_kind": "item", "revision": 1, "form": "news", "lane": 2, "locale": "sv", "state": "sent"}
STARTED = {"planned_at": NOW, "tries": 1, "attempts": 1, "repeats": 0}
Tried = tuple[datetime, UUID, int]


@pytest.fixture
async def hooks(database_url: str) -> AsyncIterator[HookRoom]:
    async with opened(database_url) as room:
        yield room


async def told(hooks: HookRoom, endpoint_id: UUID, *, many: int, channel: str = "webhook") -> list[Tried]:
    """Deliveries that were tried one to four times, each some time after another; the attempts as they were written."""
    drawn, ledger, written = random.Random(many), [], []
    for _ in range(many):
        key, began = new_id(), NOW - timedelta(minutes=drawn.randrange(5_000))
        own = [began + timedelta(minutes=drawn.randrange(3_000)) for _ in range(drawn.randint(1, 4))]
        written += [(at, key, number) for number, at in enumerate(sorted(own), 1)]
        # Some were changed later without an attempt: called off, say.
        changed = max(own) + timedelta(hours=drawn.choice((0, 0, 40)))
        who = {"id": key, "subject_id": new_id(), "channel": channel, "recipient_id": endpoint_id}
        ledger.append({**BLANK, **STARTED, **who, "changed_at": changed, "created_at": began})
    async with hooks.database.transaction() as session:
        await session.execute(deliveries.insert(), ledger)
        rows = [{"delivery_id": key, "number": n, "state": "sent", "ended_at": at} for at, key, n in written]
        await session.execute(attempts.insert(), rows)
    return written


async def pages(hooks: HookRoom, endpoint_id: UUID, limit: int) -> list[list[Tried]]:
    found: list[list[Tried]] = []
    before = None
    while not found or found[-1]:
        async with hooks.database.reading() as session:
            rows = await history.attempts(session, endpoint_id, before=before, limit=limit)
        found.append([(row.ended_at, row.delivery_id, row.number) for row in rows])
        before = found[-1][-1][1:] if rows else None
    return found


async def test_every_attempt_is_shown_once_and_in_its_place(hooks: HookRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long their deliveries were tried, and whatever became of these afterwards."""
    monkeypatch.setattr(history, "STEP", 2)
    mine, other = new_id(), new_id()
    written = await told(hooks, mine, many=60)
    await told(hooks, other, many=10)
    await told(hooks, mine, many=5, channel="mail")
    assert list(itertools.chain(*await pages(hooks, mine, 7))) == sorted(written, reverse=True)


async def test_the_first_page_reads_a_stretch_of_the_endpoints_index(hooks: HookRoom) -> None:
    """Not all that the endpoint was ever sent, sorted."""
    endpoint_id, asked = new_id(), list[tuple[str, Any]]()
    await told(hooks, endpoint_id, many=2_000)

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    async with hooks.database.reading() as session:
        connection = await session.connection()
        if not hooks.database.is_sqlite:
            await connection.exec_driver_sql("ANALYZE deliveries, delivery_attempts")
        event.listen(hooks.database.engine.sync_engine, "before_cursor_execute", note)
        rows = await history.attempts(session, endpoint_id, before=None, limit=10)
        event.remove(hooks.database.engine.sync_engine, "before_cursor_execute", note)
        assert len(rows) == 10
        assert len(asked) <= 4  # the last four hundred deliveries at most
        how = "EXPLAIN QUERY PLAN" if hooks.database.is_sqlite else "EXPLAIN (COSTS OFF)"
        for statement, parameters in asked:
            lines = await connection.exec_driver_sql(f"{how} {statement}", parameters)
            plan = "\n".join(str(line[-1]) for line in lines)
            assert "ix_deliveries_endpoint" in plan, plan
            assert "Seq Scan on deliveries" not in plan, plan
            stretch = plan.partition("ix_deliveries_endpoint")[2].partition("SCAN anon_1")[0]
            assert "B-TREE" not in stretch, plan
