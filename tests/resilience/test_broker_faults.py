"""What the broker does to the whole system, by the numbers of docs/reliability.md (F12–F20). What it does to the
transport alone is in `tests/integration/shared/test_bus_rabbitmq_faults.py`."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import pytest
from tests.deployments import SERVICES, Distributed
from tests.eventually import eventually
from tests.inboxes import Inboxes
from tests.resilience.scene import UNPUBLISHED, Scene, asked, check_settled


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


async def test_f17_the_broker_s_data_is_wiped(scene: Scene) -> None:
    """Events that were confirmed and lay in a queue are gone. One command publishes them again; who had theirs gets
    nothing twice, however often and from however far back it is given."""
    assert scene.broker is not None
    assert isinstance(scene.deployment, Distributed)
    began = datetime.now(UTC).isoformat()
    await scene.publish_to_few()
    await scene.check_sound()
    await asyncio.gather(scene.end("subscriptions"), scene.end("distributor"))
    await scene.publish_to_few()
    await eventually(lambda: scene.deployment.ask("content", UNPUBLISHED)[0][0] == 0, within=20)
    await asyncio.to_thread(scene.broker.kill)
    await asyncio.to_thread(scene.broker.wipe)
    await asyncio.to_thread(scene.broker.start)
    await asyncio.gather(scene.start("subscriptions"), scene.start("distributor"))
    for _ in range(2):
        told = await asyncio.to_thread(scene.deployment.budkavle, "republish", "--since", began)
        assert re.match(r"content: [1-9]\d* events go out again\n", told), told
        totals = await scene.check_sound()
        assert totals["repeats"] == 0
