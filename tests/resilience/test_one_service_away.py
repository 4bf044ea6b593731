"""Any one service, the broker or the mail server is away while the others work: nothing fails, and it catches up."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from tests.deployments import SERVICES, Deployment, Distributed
from tests.desk import DISTRIBUTOR, SUBSCRIPTIONS, Desk
from tests.inboxes import Inboxes
from tests.resilience.scene import EVERYBODY, SETTINGS, Scene, check_ledger, check_once_each, check_settled, populate
from tests.servers.rabbitmq import PrivateRabbitMQ
from tests.servers.receiver import HttpReceiver


@pytest.fixture(scope="module")
def broker() -> Iterator[PrivateRabbitMQ]:
    broker = PrivateRabbitMQ()
    broker.start()
    yield broker
    broker.remove()


@pytest.fixture(scope="module")
def deployment(broker: PrivateRabbitMQ, intranet: HttpReceiver) -> Iterator[Deployment]:
    made = Distributed(broker.url, settings=SETTINGS)
    try:
        made.open()
        populate(made, intranet)
        yield made
    finally:
        made.close()


@pytest.fixture
async def everything_settled(scene: Scene) -> AsyncIterator[None]:
    yield
    await check_settled(scene)


async def _asked(desk: Desk, *services: str) -> None:
    """Every API call of these services is answered with a 2xx."""
    if "content" in services:
        await desk.call("GET", "/api/content/v1/items")
    if "subscriptions" in services:
        people = await desk.call("GET", f"{SUBSCRIPTIONS}/subscribers", params={"limit": "1"})
        await desk.change_subscriber(people["data"][0]["id"], {"name": "Ny"})
        preview = {"audiences": ["public"]}
        await desk.call("POST", f"{SUBSCRIPTIONS}/audience-preview", json=preview)
    if "distributor" in services:
        await desk.call("GET", f"{DISTRIBUTOR}/deliveries", params={"limit": "1"})
        await desk.call("GET", f"{DISTRIBUTOR}/endpoints")


@pytest.mark.usefixtures("everything_settled")
@pytest.mark.parametrize("away", ["subscriptions", "distributor"])
async def test_published_while_a_service_is_away(scene: Scene, away: str) -> None:
    await scene.end(away)
    item = await scene.publish()
    await _asked(scene.desk, *(service for service in SERVICES if service != away))
    assert scene.inboxes.count == 0
    await scene.start(away)
    await scene.desk.reached(item)
    assert check_once_each(scene.inboxes.of(item), EVERYBODY) == 0
    await check_ledger(scene, item)


@pytest.mark.usefixtures("everything_settled")
async def test_content_goes_away_when_it_has_published(scene: Scene) -> None:
    """The mail goes out without it, and the reach is told when it is back."""
    item = await scene.publish()
    await scene.until_received(1)
    await scene.end("content")
    await _asked(scene.desk, "subscriptions", "distributor")
    await scene.until_received(len(EVERYBODY))
    await scene.start("content")
    await scene.desk.reached(item)
    assert check_once_each(scene.inboxes.of(item), EVERYBODY) == 0
    await check_ledger(scene, item)


@pytest.mark.usefixtures("everything_settled")
async def test_the_mail_server_is_away(scene: Scene) -> None:
    scene.deployment.mail_link.close()
    item = await scene.publish()
    await scene.until_planned(item)
    await _asked(scene.desk, *SERVICES)
    scene.deployment.mail_link.lead_to(scene.inboxes.port)
    await scene.desk.reached(item)
    assert check_once_each(scene.inboxes.of(item), EVERYBODY) == 0
    await check_ledger(scene, item)


@pytest.mark.usefixtures("everything_settled")
async def test_the_broker_is_killed_and_a_sender_with_it(
    scene: Scene, broker: PrivateRabbitMQ, new_inboxes: Callable[..., Inboxes]
) -> None:
    """In the middle of a drain. Meanwhile another item is published; both reach everybody."""
    assert isinstance(scene.deployment, Distributed)
    await asyncio.to_thread(broker.await_registered, f"{scene.deployment.namespace}.distributor.mail.news")
    scene.inboxes = new_inboxes(scene.deployment, "--delay", "0.005")
    first = await scene.publish()
    await scene.until_received(100)
    await asyncio.to_thread(broker.kill)
    await scene.kill("distributor")
    second = await scene.publish()
    await _asked(scene.desk, "content", "subscriptions")
    await scene.start("distributor")
    await _asked(scene.desk, "distributor")
    await asyncio.to_thread(broker.start)
    for item in (first, second):
        await scene.desk.reached(item, within=90)
        check_once_each(scene.inboxes.of(item), EVERYBODY, kills=1)
        await check_ledger(scene, item)


@pytest.mark.usefixtures("everything_settled")
async def test_everything_is_killed_at_once(
    scene: Scene, broker: PrivateRabbitMQ, new_inboxes: Callable[..., Inboxes]
) -> None:
    """A power cut: every service and the broker."""
    scene.inboxes = new_inboxes(scene.deployment, "--delay", "0.005")
    item = await scene.publish()
    await scene.until_received(20)
    for service in SERVICES:
        await scene.kill(service)
    await asyncio.to_thread(broker.kill)
    for service in SERVICES:  # before their broker: any order will do
        await scene.start(service)
    await asyncio.to_thread(broker.start)
    await scene.desk.reached(item, within=90)
    check_once_each(scene.inboxes.of(item), EVERYBODY, kills=1)
    await check_ledger(scene, item)


@pytest.mark.usefixtures("everything_settled")
async def test_published_while_the_broker_hangs(scene: Scene, broker: PrivateRabbitMQ) -> None:
    await asyncio.to_thread(broker.pause)
    item = await scene.publish()
    await _asked(scene.desk, *SERVICES)
    await asyncio.to_thread(broker.resume)
    await scene.desk.reached(item, within=90)
    assert check_once_each(scene.inboxes.of(item), EVERYBODY) == 0
    await check_ledger(scene, item)
