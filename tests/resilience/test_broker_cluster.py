"""F19: what a cluster of three brokers bears: the death of the node that leads the queues, and a node parted from the others.
Each service is led to a node of its own, and to another when that one does not answer, as a load balancer does."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.deployments import SERVICES, Distributed
from tests.eventually import eventually
from tests.resilience.house import Home
from tests.resilience.scene import SETTINGS, UNPUBLISHED, Scene, populate
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbitMQ, speaks_amqp
from tests.servers.rabbitmq_cluster import RabbitMQCluster
from tests.servers.receiver import HttpReceiver

from shared.messaging.bus import Message
from shared.messaging.rabbitmq import RabbitMQBus
from shared.messaging.topology import NEWS

pytestmark = pytest.mark.soak
LASTS_S = 30.0
RESUMED_WITHIN_S = 20.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[RabbitMQCluster]:
    made = RabbitMQCluster()
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def home(cluster: RabbitMQCluster) -> Iterator[Home]:
    database = PrivatePostgres(durable=False)
    database.start()
    made = Distributed(cluster.nodes[0].url, settings=SETTINGS, linked=SERVICES, database_server=database.url)
    for service, node in zip(SERVICES, cluster.nodes, strict=True):
        made.broker_links[service].target = node.port
    try:
        with HttpReceiver() as intranet, made.opened():
            yield Home(made, intranet, None, database, populate(made, intranet))
    finally:
        database.remove()


@pytest.fixture
async def balanced(scene: Scene, cluster: RabbitMQCluster) -> AsyncIterator[None]:
    """As long as the test lasts."""
    assert isinstance(scene.deployment, Distributed)
    task = asyncio.create_task(_balance(scene.deployment, cluster.nodes))
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _balance(deployment: Distributed, nodes: list[PrivateRabbitMQ]) -> None:
    while True:
        answering = [node.port for node in nodes if await asyncio.to_thread(speaks_amqp, "127.0.0.1", node.port)]
        for link in deployment.broker_links.values():
            if answering and link.target not in answering:
                link.lead_to(answering[0])
        await asyncio.sleep(0.5)


@pytest.mark.usefixtures("balanced")
async def test_f19_the_node_that_leads_is_killed(scene: Scene, cluster: RabbitMQCluster) -> None:
    await _publish_for(scene, 5)
    leader = await asyncio.to_thread(cluster.leader)
    leader.strike()
    struck_at = time.monotonic()
    await asyncio.to_thread(leader.kill)
    await _resumed(scene, struck_at)
    await _publish_for(scene, LASTS_S)
    await asyncio.to_thread(leader.start)
    await _publish_for(scene, 5)
    await _check(scene)


@pytest.mark.usefixtures("balanced")
async def test_f19_a_node_is_parted_from_the_others(scene: Scene, cluster: RabbitMQCluster) -> None:
    """The one that leads: the others choose anew, and it takes nothing more from anybody until it sees them again."""
    await _publish_for(scene, 5)
    apart = await asyncio.to_thread(cluster.leader)
    publishing = asyncio.create_task(_publish_for(scene, 10))
    await asyncio.to_thread(cluster.part, apart)
    parted_at = time.monotonic()
    await eventually(lambda: not speaks_amqp("127.0.0.1", apart.port), within=30, every=0.2)
    await publishing
    await _resumed(scene, parted_at)
    await _publish_for(scene, LASTS_S)
    await asyncio.to_thread(cluster.join, apart)
    await eventually(lambda: speaks_amqp("127.0.0.1", apart.port), within=60, every=0.5)
    await _publish_for(scene, 5)
    await _check(scene)


async def test_f19_a_node_that_hangs_holds_nothing_up(cluster: RabbitMQCluster) -> None:
    """One that leads none of the queues. Until the others give it up, a minute later, the cluster binds nothing."""
    bus = RabbitMQBus(f"{cluster.nodes[0].url}?namespace=hangs")
    await bus.start()
    await eventually(bus.is_ready, within=60)
    hung = cluster.nodes[2]
    await asyncio.to_thread(hung.pause)
    try:
        began = time.monotonic()
        for _ in range(5):
            assert await bus.publish([Message("a", NEWS, "news.published", b"{}")]) == [None]
        print(f"measured: five publications took {time.monotonic() - began:.1f} s")
    finally:
        await asyncio.to_thread(hung.resume)
        await bus.close()


async def _publish_for(scene: Scene, lasts_s: float) -> None:
    ends_at = time.monotonic() + lasts_s
    while time.monotonic() < ends_at:
        await scene.publish_to_few()
        await asyncio.sleep(0.3)


async def _resumed(scene: Scene, since: float) -> None:
    def waiting() -> int:
        return sum(scene.deployment.ask(service, UNPUBLISHED)[0][0] for service in SERVICES)

    await scene.publish_to_few()
    await eventually(lambda: waiting() == 0, within=RESUMED_WITHIN_S)
    print(f"measured: all published {time.monotonic() - since:.1f} s after")


async def _check(scene: Scene) -> None:
    totals = await scene.check_sound(within=90)
    print(f"measured: {dict(totals)}")
    assert totals["repeats"] == 0
