"""What the broker does to the whole system, by the numbers of docs/reliability.md (F12–F20). What it does to the
transport alone is in `tests/integration/shared/test_bus_rabbitmq_faults.py`."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from tests.deployments import SERVICES, Distributed
from tests.inboxes import Inboxes
from tests.resilience.scene import Scene, asked, check_settled


@pytest.fixture
def kind() -> str:
    return Distributed.kind


@pytest.fixture(autouse=True)
async def everything_settled(scene: Scene) -> AsyncIterator[None]:
    yield
    await check_settled(scene)


async def test_f12_the_broker_is_killed_and_a_sender_with_it(scene: Scene, new_inboxes: Callable[..., Inboxes]) -> None:
    """In the middle of a drain. Meanwhile another item is published; both reach everybody."""
    assert scene.broker is not None
    scene.inboxes = new_inboxes(scene.deployment, "--delay", "0.005")
    await scene.publish()
    await scene.until_received(100)
    await asyncio.to_thread(scene.broker.kill)
    await scene.kill("distributor")
    await scene.publish()
    await asked(scene.desk, "content", "subscriptions")
    await scene.start("distributor")
    await asked(scene.desk, "distributor")
    await asyncio.to_thread(scene.broker.start)
    await scene.check_sound(kills=1, within=90)


async def test_f13_published_while_the_broker_hangs(scene: Scene) -> None:
    assert scene.broker is not None
    await asyncio.to_thread(scene.broker.pause)
    await scene.publish()
    await asked(scene.desk, *SERVICES)
    await asyncio.to_thread(scene.broker.resume)
    await scene.check_sound(within=90)
