"""What a failover (F29) and a full disk (F32) of the database server do to the whole system. A server of its own for each."""

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from tests.deployments import SERVICES, Distributed
from tests.desk import CONTENT
from tests.eventually import eventually
from tests.inboxes import Inboxes
from tests.resilience.house import Home, own_home
from tests.resilience.scene import FEW, Scene, asked
from tests.servers.postgres import PrivatePostgres, SmallDiskPostgres, Standby

pytestmark = pytest.mark.soak
BACK_WITHIN_S = 15.0
MEGABYTES = 256
LONG: dict[str, object] = {**FEW, "body": "Ord. " * 8_000}


@pytest.fixture
def standby() -> Iterator[Standby]:
    """Not started; it outlives the home, whose databases may have come to it."""
    server = Standby()
    yield server
    server.remove()


@pytest.fixture
def home(request: pytest.FixtureRequest, standby: Standby) -> Iterator[Home]:
    """On the database server that the test asks for."""
    with own_home(request.param(), linked=SERVICES) as home:
        yield home


@pytest.mark.parametrize("home", [partial(PrivatePostgres, durable=False)], indirect=True, ids=["two_servers"])
async def test_f29_a_standby_is_promoted(scene: Scene, standby: Standby, new_inboxes: Callable[..., Inboxes]) -> None:
    """Amid a drain. The old server takes no more writes, and lives on with every connection that led to it."""
    distributed, old = scene.deployment, scene.database
    assert isinstance(distributed, Distributed)
    assert old is not None
    await asyncio.to_thread(standby.follow, old)
    scene.inboxes = new_inboxes(scene.deployment, "--delay", "0.02")
    await scene.publish()
    await scene.until_received(100)
    await asyncio.to_thread(old.set, "default_transaction_read_only = on")
    refused = await scene.desk.api.post(f"{CONTENT}/items", json=FEW)
    assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
    await asyncio.to_thread(standby.promote)
    distributed.database_moved(standby.port)
    began = time.monotonic()
    await eventually(lambda: _writes(scene), within=BACK_WITHIN_S, every=0.1)
    print(f"measured: every service wrote {time.monotonic() - began:.1f} s after the promotion")
    await scene.publish_to_few()
    totals = await scene.check_sound(within=90)
    assert totals["repeats"] == 0


@pytest.mark.parametrize("home", [partial(SmallDiskPostgres, MEGABYTES)], indirect=True, ids=["small_disk"])
async def test_f32_the_disk_is_full(scene: Scene) -> None:
    """Whoever asks is told to come back; what was taken before is whole, and goes on when there is room."""
    disk = scene.database
    assert isinstance(disk, SmallDiskPostgres)
    pids = [replica.pid for replica in scene.deployment.every_replica()]
    taken = [await scene.desk.draft({**LONG, "title": f"Utkast {number}"}) for number in range(3)]
    await asyncio.to_thread(disk.fill)
    refused = 0
    while refused < 10:
        answer = await scene.desk.api.post(f"{CONTENT}/items", json=LONG)
        if answer.status_code == 201:
            taken.append(answer.json()["id"])
            assert len(taken) < 1_000
            continue
        refused += 1
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable"), answer.text
        assert int(answer.headers["retry-after"]) > 0
    assert {row["id"] for row in await scene.desk.all_pages(f"{CONTENT}/items")} == set(taken)
    await asyncio.to_thread(disk.free)
    freed_at = time.monotonic()
    await eventually(lambda: _writes(scene), within=BACK_WITHIN_S, every=0.1)
    print(
        f"measured: {refused} refused, {len(taken)} kept; writes {time.monotonic() - freed_at:.1f} s after room was made"
    )
    await scene.publish()
    totals = await scene.check_sound(within=90)
    assert totals["repeats"] == 0
    assert [replica.pid for replica in scene.deployment.every_replica()] == pids


async def _writes(scene: Scene) -> bool:
    await asked(scene.desk, *SERVICES)
    answer = await scene.desk.api.post(f"{CONTENT}/items", json=FEW)
    return answer.status_code == 201
