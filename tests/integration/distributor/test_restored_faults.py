"""F35: a ledger that was put back from a backup sends nothing again on its own account."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import make_url, update
from structlog.testing import capture_logs
from tests.eventually import eventually
from tests.integration.distributor.conftest import CLOCK, Room, batch, people, snapshot
from tests.servers.postgres import create_database, drop_database, shared_postgres_url

from distributor import restored
from distributor.settings import DistributorSettings
from shared.database import Database


@pytest.fixture
async def copied(room: Room, tmp_path: Path) -> AsyncIterator[Callable[[], Room]]:
    """Call it for a room whose ledger is a copy of the first one's as it stands."""
    opened: list[Room] = []

    def copy() -> Room:
        known = make_url(room.url)
        if room.database.is_sqlite:
            url = f"sqlite:///{shutil.copy(known.database or '', tmp_path / 'restored.sqlite3')}"
        else:
            url = create_database(shared_postgres_url(), known.database or "")
        settings = DistributorSettings(
            database_url=url, broker_url="embedded:x", secret_keys="k" * 40, retry_scale=0.0001
        )
        opened.append(Room(url, settings, Database(url)))
        return opened[-1]

    yield copy
    for made in opened:
        await made.tallies_are_true()
        await made.database.dispose()
        if not made.database.is_sqlite:
            drop_database(made.url, shared_postgres_url())


async def seen(room: Room, ago: timedelta = timedelta(0)) -> None:
    """The ledger was last seen where it is so long ago."""
    async with room.database.transaction() as session:
        assert await restored.may_send(session, room.database)
        await session.execute(update(restored.homes).values(seen_at=CLOCK.now() - ago))


@asynccontextmanager
async def sending(room: Room) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(room.worker().run(stop))
    yield
    stop.set()
    await task


async def test_f35_nothing_begins_until_somebody_says_so_and_what_may_have_gone_is_held(
    room: Room, copied: Callable[[], Room], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backed up with mails to send; sent since; put back an hour later. The events of the hour are then told again."""
    monkeypatch.setattr(restored, "LOOK_EVERY_S", 0.02)
    before, lost = snapshot(uuid4()), snapshot(uuid4())
    sent_before, sent_after = batch(before, people(3)), batch(lost, people(2))
    await room.hear(sent_before)
    await seen(room, timedelta(hours=1))
    await room.database.dispose()
    backup = copied()
    with capture_logs() as logs:
        async with sending(backup):
            await eventually(lambda: any(line["event"] == "ledger_restored" for line in logs))
            await backup.hear(sent_after)  # it waits in a queue, or is republished
            assert backup.sender.dispatched == []
            gap, held = await restored.go_on(backup.database, send=False)
            await backup.hear(batch(lost, people(1), planned_at=gap.until - timedelta(minutes=1)))
            new = batch(snapshot(uuid4()), people(4))
            await backup.hear(new)
            await eventually(lambda: len(backup.sender.dispatched) == 4)
            await backup.quiet()
    assert timedelta(minutes=59) < gap.until - gap.since < timedelta(minutes=61)
    assert held in (3, 5)  # who planned the second batch has another clock than the ledger's
    assert {dispatch.recipient_id for dispatch in backup.sender.dispatched} >= {p.recipient_id for p in new.recipients}
    rows = await backup.rows(subject_id=before.item_id)
    assert [(row.state, row.ended_reason, row.next_attempt_at) for row in rows] == [("uncertain", "held", None)] * 3
    with pytest.raises(restored.NotRestored):
        await restored.go_on(backup.database, send=False)


async def test_f35_a_ledger_that_was_only_moved_sends_what_it_has(room: Room, copied: Callable[[], Room]) -> None:
    await room.hear(batch(snapshot(uuid4()), people(3)))
    await seen(room, timedelta(hours=1))
    await room.database.dispose()
    moved = copied()
    async with moved.database.transaction() as session:
        assert not await restored.may_send(session, moved.database)
    await restored.go_on(moved.database, send=True)
    await moved.drain()
    assert len(moved.sender.dispatched) == 3


@pytest.mark.parametrize("absent", [timedelta(minutes=2), timedelta(days=3)])
async def test_f35_neither_a_standby_nor_a_long_absence_is_taken_for_a_backup(
    room: Room, copied: Callable[[], Room], absent: timedelta
) -> None:
    """Another place, a moment ago; the same place, days ago."""
    await room.hear(batch(snapshot(uuid4()), people(3)))
    await seen(room, absent)
    if absent > restored.ABSENCE_BORNE:
        await room.drain()
        assert len(room.sender.dispatched) == 3
        return
    await room.database.dispose()
    standby = copied()
    await standby.drain()
    assert len(standby.sender.dispatched) == 3
