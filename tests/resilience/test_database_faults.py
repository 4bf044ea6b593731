"""What the database does to the whole system, by the numbers of docs/reliability.md (F27, F28). What it does to one service
is in `tests/integration/shared/test_database_faults.py`."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest
from tests.deployments import SERVICES, Distributed
from tests.desk import CONTENT, DISTRIBUTOR, SUBSCRIPTIONS
from tests.eventually import eventually
from tests.inboxes import Inboxes
from tests.resilience.scene import Scene, asked, check_settled
from tests.servers.postgres import PrivatePostgres

soak = pytest.mark.soak
ANSWERED_WITHIN_S = 5.0
NOT_READY_WITHIN_S = 10.0
BACK_WITHIN_S = 5.0
CALLS = (
    f"{CONTENT}/items",
    "/",
    f"{SUBSCRIPTIONS}/subscribers?limit=1",
    f"{DISTRIBUTOR}/deliveries?limit=1",
)


@pytest.fixture
def kind() -> str:
    return Distributed.kind


@pytest.fixture(autouse=True)
async def everything_settled(scene: Scene) -> AsyncIterator[None]:
    yield
    await check_settled(scene)


@pytest.fixture
def database(scene: Scene) -> PrivatePostgres:
    assert scene.database is not None
    return scene.database


async def answers(scene: Scene) -> float:
    """Each call is told to come back later, by a problem that says so; gives the slowest. All ask at the same time: one
    after another, each would wait for as long."""

    async def told(path: str) -> float:
        began = time.monotonic()
        answer = await scene.desk.api.get(path)
        assert answer.status_code == 503, (path, answer.status_code, answer.text)
        assert int(answer.headers["retry-after"]) > 0
        return time.monotonic() - began

    async def draft() -> float:
        began = time.monotonic()
        problem = await scene.desk.api.post(f"{CONTENT}/items", json={"kind": "news", "title": "Nytt", "audiences": []})
        assert (problem.status_code, problem.json()["code"]) == (503, "database_unavailable")
        assert int(problem.headers["retry-after"]) > 0
        return time.monotonic() - began

    return max(await asyncio.gather(draft(), *map(told, CALLS)))


async def health(scene: Scene, path: str) -> set[int]:
    async with httpx2.AsyncClient(timeout=20) as probe:
        replicas = [replica for service in SERVICES for replica in scene.deployment.replicas[service]]
        asked_at = [probe.get(f"http://127.0.0.1:{replica.port}{path}") for replica in replicas]
        return {answer.status_code for answer in await asyncio.gather(*asked_at)}


async def until_back(scene: Scene) -> float:
    began = time.monotonic()
    await eventually(lambda: _ready(scene), within=20, every=0.1)
    await asked(scene.desk, *SERVICES)
    return time.monotonic() - began


async def _ready(scene: Scene) -> bool:
    return await health(scene, "/readyz") == {200}


@pytest.mark.parametrize("lasts_s", [3, pytest.param(20, marks=soak)])
async def test_f27_the_database_stops_at_once(
    scene: Scene, database: PrivatePostgres, new_inboxes: Callable[..., Inboxes], lasts_s: float
) -> None:
    """Amid a drain. Nobody is mailed twice: what was on its way is written down when the database is back."""
    scene.inboxes = new_inboxes(scene.deployment, "--delay", "0.01")
    await scene.publish()
    await scene.until_received(100)
    await asyncio.to_thread(database.stop_immediately)
    began, slowest = time.monotonic(), 0.0
    while not slowest or time.monotonic() - began < lasts_s:
        slowest = max(slowest, await answers(scene))
        assert await health(scene, "/healthz") == {200}
        assert await health(scene, "/readyz") == {503}
    await asyncio.to_thread(database.start)
    back = await until_back(scene)
    print(f"measured: answered within {slowest:.2f} s meanwhile, back {back:.1f} s after the database")
    assert slowest < ANSWERED_WITHIN_S
    assert back < BACK_WITHIN_S
    totals = await scene.check_sound(within=90)
    assert totals["repeats"] == 0


@pytest.mark.parametrize("lasts_s", [6, pytest.param(60, marks=soak)])
async def test_f28_the_database_hangs(
    scene: Scene, database: PrivatePostgres, new_inboxes: Callable[..., Inboxes], lasts_s: float
) -> None:
    """Its connections stay open, and nothing comes over them."""
    scene.inboxes = new_inboxes(scene.deployment, "--delay", "0.01")
    await scene.publish()
    await scene.until_received(100)
    await asyncio.to_thread(database.pause)
    began, slowest = time.monotonic(), 0.0
    try:
        while not slowest or time.monotonic() - began < lasts_s:
            slowest = max(slowest, await answers(scene))
            assert await health(scene, "/healthz") == {200}
            asked_at = time.monotonic()
            assert await health(scene, "/readyz") == {503}
            assert time.monotonic() - asked_at < NOT_READY_WITHIN_S
    finally:
        await asyncio.to_thread(database.resume)
    back = await until_back(scene)
    print(f"measured: answered within {slowest:.2f} s meanwhile, back {back:.1f} s after the database")
    assert slowest < ANSWERED_WITHIN_S
    assert back < BACK_WITHIN_S
    totals = await scene.check_sound(within=90)
    assert totals["repeats"] == 0
