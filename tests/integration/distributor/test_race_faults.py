"""Several replicas, a wrong clock, a crowd in the way: F31, F55, F56 and F57 of docs/reliability.md at the ledger."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import make_url, text
from structlog.testing import capture_logs
from tests.eventually import eventually
from tests.integration.distributor.conftest import CLOCK, Later, MemorySender, Room, batch, people, snapshot
from tests.servers.proxy import TcpProxy

from distributor.delivery import DeliveryWorker
from distributor.recovery import RecoveryWorker
from shared.contracts.mail import Lane
from shared.database import Database

soak = pytest.mark.soak
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
REPLICAS = 4
URGENT_WITHIN_S = 10.0


@pytest.fixture
async def databases(room: Room) -> AsyncIterator[list[Database]]:
    """One for each replica: what separates processes is that they share nothing else."""
    opened = [Database(room.url) for _ in range(REPLICAS)]
    yield opened
    for database in opened:
        await database.dispose()


@asynccontextmanager
async def running(*workers: DeliveryWorker | RecoveryWorker) -> AsyncIterator[None]:
    stop = asyncio.Event()
    tasks = [asyncio.create_task(worker.run(stop)) for worker in workers]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def fill(room: Room, count: int, lane: Lane = Lane.NEWS) -> None:
    for _ in range(count // 500):
        await room.hear(batch(snapshot(uuid4()), people(500), lane=lane))


def got(senders: Sequence[MemorySender]) -> Counter[object]:
    return Counter(dispatch.delivery_id for sender in senders for dispatch in sender.dispatched)


@on_postgresql
async def test_f55_four_replicas_share_four_thousand_deliveries(room: Room, databases: list[Database]) -> None:
    """Each goes out once, every replica has its share, and the sweepers of all of them disturb nobody."""
    await fill(room, 4_000)
    senders = [MemorySender(slots=16) for _ in databases]
    workers = [
        DeliveryWorker(sender, database, CLOCK, room.settings)
        for sender, database in zip(senders, databases, strict=True)
    ]
    sweepers = [RecoveryWorker(database, CLOCK, room.settings) for database in databases]
    async with running(*workers, *sweepers):
        await eventually(lambda: len(got(senders)) == 4_000, within=60)
        await room.quiet()
    assert set(got(senders).values()) == {1}
    shares = sorted(len(sender.dispatched) for sender in senders)
    print("measured: shares of four replicas", shares)
    assert shares[0] > 100
    assert {row.state for row in await room.rows()} == {"sent"}


@on_postgresql
async def test_f56_a_replica_with_a_wrong_clock_takes_nothing_from_others(
    room: Room, databases: list[Database]
) -> None:
    """Ten minutes fast, ten minutes slow, and stepping back: leases and due times are the database's."""
    await fill(room, 1_000)
    clocks = [Later(timedelta(minutes=10)), Later(timedelta(minutes=-10)), _SteppingBack(), CLOCK]
    senders = [MemorySender(slots=16) for _ in databases]
    workers = [
        DeliveryWorker(sender, database, clock, room.settings)
        for sender, database, clock in zip(senders, databases, clocks, strict=True)
    ]
    sweepers = [
        RecoveryWorker(database, clock, room.settings) for database, clock in zip(databases, clocks, strict=True)
    ]
    async with running(*workers, *sweepers):
        await eventually(lambda: len(got(senders)) == 1_000, within=60)
        await room.quiet()
    assert set(got(senders).values()) == {1}
    assert all(tried.duration_ms >= 0 for tried in await room.attempts())


@on_postgresql
@pytest.mark.parametrize("ahead_s", [600, -600, 5])
async def test_f56_a_wrong_clock_is_told_of_once(room: Room, ahead_s: int) -> None:
    with capture_logs() as logs:
        sweeper = RecoveryWorker(room.database, Later(timedelta(seconds=ahead_s)), room.settings)
        for _ in range(2):
            await sweeper._look_for_stuck()
    assert [line["event"] for line in logs] == (["clock_wrong"] if abs(ahead_s) > 30 else [])
    assert REGISTRY.get_sample_value("budkavle_clock_skew_seconds") == pytest.approx(ahead_s, abs=2)


class _SteppingBack:
    """Each look is half a minute before the one before."""

    def __init__(self) -> None:
        self._ahead = timedelta(minutes=5)

    def now(self) -> object:
        self._ahead -= timedelta(seconds=30)
        return CLOCK.now() + self._ahead


@on_postgresql
@pytest.mark.parametrize("crowd", [3_000, pytest.param(50_000, marks=soak)])
async def test_f57_urgent_news_passes_a_digest_under_way(room: Room, crowd: int) -> None:
    room.sender = _Steady(slots=16)
    await fill(room, crowd, Lane.DIGEST)
    urgent = batch(snapshot(uuid4()), people(100), lane=Lane.PRESS)
    async with running(room.worker()):
        await eventually(lambda: len(room.sender.dispatched) > crowd // 20, within=60)
        await room.hear(urgent)
        heard_at = time.monotonic()
        waiting = {person.recipient_id for person in urgent.recipients}
        took: list[float] = []
        while waiting:
            arrived = waiting & {dispatch.recipient_id for dispatch in room.sender.dispatched}
            took += [time.monotonic() - heard_at] * len(arrived)
            waiting -= arrived
            assert time.monotonic() - heard_at < 60
            await asyncio.sleep(0.01)
        passed = len(room.sender.dispatched)
    p95 = sorted(took)[94]
    print(f"measured: p95 {p95:.2f} s, behind {crowd} of a digest, of which {passed} had gone")
    assert p95 < URGENT_WITHIN_S
    assert passed < crowd / 2 + 100


class _Steady(MemorySender):
    """A relay that takes some three hundred a second."""

    async def send(self, dispatch: object) -> object:
        await asyncio.sleep(0.05)
        return await super().send(dispatch)  # type: ignore[arg-type]


@on_postgresql
async def test_f31_no_connection_is_held_while_mails_are_under_way(room: Room) -> None:
    """The journal's own is all that the senders have, and no transaction is open on it."""
    await room.hear(batch(snapshot(uuid4()), people(40)))
    room.sender.hold.clear()
    open_transactions = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND state LIKE 'idle in transaction%'"
    )
    async with running(room.worker()):
        await eventually(lambda: len(room.sender.dispatched) == room.sender.slots)
        await eventually(lambda: room.database.engine.pool.checkedout() <= 1)  # type: ignore[attr-defined]
        other = Database(room.url)
        async with other.reading() as session:
            assert await session.scalar(open_transactions) == 0
        await other.dispose()
        room.sender.hold.set()
        await room.quiet()


@on_postgresql
@pytest.mark.parametrize("how", ["stops", "hangs"])
async def test_f27_the_senders_go_on_when_the_database_is_back(room: Room, how: str) -> None:
    """Amid a drain. What was under way is written down when it is back, and sent to nobody twice."""
    await fill(room, 500)
    sender = _Steady(slots=8)
    with TcpProxy(make_url(room.url).port) as link:
        behind = Database(make_url(room.url).set(port=link.port).render_as_string(hide_password=False))
        async with running(DeliveryWorker(sender, behind, CLOCK, room.settings)):
            await eventually(lambda: len(sender.dispatched) > 100, within=30)
            (link.close if how == "stops" else link.hold)()
            await asyncio.sleep(2)  # as long as the fault lasts
            if how == "stops":
                link.lead_to(make_url(room.url).port or 5432)
            else:
                link.mend()
            await eventually(lambda: len(sender.dispatched) >= 500, within=30)
            await room.quiet()
        await behind.dispose()
    assert set(got([sender]).values()) == {1}
    assert {row.state for row in await room.rows()} == {"sent"}
