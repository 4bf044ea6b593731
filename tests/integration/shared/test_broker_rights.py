"""F26: each service's user at the broker, as deploy/docker gives it its rights, can do its own work and forge nobody's."""

import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused, ProbableAuthenticationError
from tests.eventually import eventually
from tests.integration.shared.transports import Collector, published
from tests.servers.rabbitmq import PrivateRabbitMQ

from shared.messaging import documents
from shared.messaging.bus import DIRECT, Ack, Message, Retry
from shared.messaging.definitions import MAY_SAY
from shared.messaging.rabbitmq import RabbitMQBus
from shared.messaging.rabbitmq_topology import Topology
from shared.messaging.topology import DELIVERY, MAIL, NEWS, QUEUES, Queue, exchange_of

ROOT = Path(__file__).parents[3]
TOPOLOGY = ROOT / "deploy/docker/rabbitmq/topology.json"
SERVICES = tuple(MAY_SAY)
KEYS = {NEWS: "news.published", MAIL: "mail.requested.news", DELIVERY: "delivery.progress"}
OWNER = {NEWS: "content", MAIL: "subscriptions", DELIVERY: "distributor"}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets")
    subprocess.run([sys.executable, ROOT / "deploy/docker/make-secrets", folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def broker(secrets: Path) -> Iterator[PrivateRabbitMQ]:
    """As the container starts it."""
    users = shutil.copy(secrets / "rabbitmq_users.json", secrets / "10-users.json")
    topology = shutil.copy(TOPOLOGY, secrets / "20-topology.json")
    made = PrivateRabbitMQ(definitions=[users, topology])
    made.start()
    yield made
    made.remove()


@pytest.fixture
def url_of(secrets: Path, broker: PrivateRabbitMQ) -> dict[str, str]:
    urls = {service: (secrets / f"{service}_broker_url").read_text().strip() for service in SERVICES}
    return {service: url.replace("rabbitmq:5672", f"127.0.0.1:{broker.port}") for service, url in urls.items()}


@asynccontextmanager
async def channel_of(url: str) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(url.partition("?")[0]) as connection:
        yield await connection.channel(on_return_raises=True)


async def refused(url: str, exchange: str, routing_key: str) -> bool:
    async with channel_of(url) as channel:
        outlet = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
        try:
            await outlet.publish(aio_pika.Message(b"{}"), routing_key, timeout=5)
        except ChannelAccessRefused:
            return True
        return False


def test_the_file_says_what_the_code_says() -> None:
    written = subprocess.run(
        [sys.executable, "-m", "shared.messaging.definitions", "/dev/stdout"], check=True, capture_output=True
    )
    assert written.stdout == TOPOLOGY.read_bytes(), "python -m shared.messaging.definitions " + str(TOPOLOGY)


def test_f19_every_queue_is_of_the_kind_that_outlives_its_node(broker: PrivateRabbitMQ) -> None:
    """By the broker's own word: quorum queues, with a copy on each node of a cluster of three, on whose disks it is."""
    listed = broker.control("list_queues", "--quiet", "--no-table-headers", "name", "type", "durable").splitlines()
    kinds = {name: (kind, durable) for name, kind, durable in (line.split() for line in listed)}
    assert kinds == {part.queue: ("quorum", "true") for part in Topology(None, QUEUES).parts()}


@pytest.mark.parametrize("service", SERVICES)
async def test_f26_nobody_says_what_is_another_s_to_say(url_of: dict[str, str], service: str) -> None:
    others = [exchange for exchange, owner in OWNER.items() if owner != service]
    assert [await refused(url_of[service], exchange, KEYS[exchange]) for exchange in others] == [True, True]


@pytest.mark.parametrize("service", SERVICES)
async def test_f26_nor_by_any_way_round(url_of: dict[str, str], service: str) -> None:
    """Straight to a queue, through a waiting room, by a binding, a queue or a user of one's own making; or listening."""
    foreign = next(queue for queue in QUEUES if queue.service != service)
    for exchange in ("", "straight", "retry.1s"):
        assert await refused(url_of[service], exchange, foreign.name), exchange
    for attempt in (_binds, _declares, _deletes, _listens):
        async with channel_of(url_of[service]) as channel:
            with pytest.raises(ChannelAccessRefused):
                await attempt(channel, foreign)


async def _binds(channel: AbstractChannel, foreign: Queue) -> None:
    queue = await channel.get_queue(foreign.name, ensure=False)
    await queue.bind(NEWS, "#")


async def _declares(channel: AbstractChannel, foreign: Queue) -> None:
    await channel.declare_queue("egen", durable=True)


async def _deletes(channel: AbstractChannel, foreign: Queue) -> None:
    await channel.queue_delete(foreign.name)


async def _listens(channel: AbstractChannel, foreign: Queue) -> None:
    queue = await channel.get_queue(foreign.name, ensure=False)
    await queue.get(timeout=5)


@pytest.mark.parametrize("service", SERVICES)
async def test_f26_nobody_binds_more_than_its_own_events_to_those_who_hear_them(
    url_of: dict[str, str], service: str
) -> None:
    ways = [(queue.name, exchange, key) for queue in QUEUES for exchange in KEYS for key in ("#", KEYS[exchange])]
    taken = [way for way in ways if await _is_bound(url_of[service], *way)]
    news = [("subscriptions.news", NEWS, "news.published"), ("distributor.news", NEWS, "news.published")]
    assert taken == (news if service == "content" else [])


async def _is_bound(url: str, queue: str, exchange: str, key: str) -> bool:
    async with channel_of(url) as channel:
        try:
            await (await channel.get_queue(queue, ensure=False)).bind(exchange, key)
        except ChannelAccessRefused:
            return False
        await (await channel.get_queue(queue, ensure=False)).unbind(exchange, key)
        return True


async def test_f26_a_stranger_does_not_come_in(url_of: dict[str, str], broker: PrivateRabbitMQ) -> None:
    with pytest.raises(ProbableAuthenticationError):
        await aio_pika.connect(broker.url)  # guest, as a broker has it that was given no users


def test_f26_every_event_is_its_services_to_say() -> None:
    for event, services in documents.SAID_BY.items():
        name = event.event_name
        for service in services:
            keys = MAY_SAY[service][exchange_of(name)]
            assert re.search(keys, f"{name}.transactional" if name == "mail.requested" else name), (service, name)


async def test_with_its_rights_each_service_does_all_its_work(url_of: dict[str, str]) -> None:
    """Publishes, consumes, puts a message back, replays one; what it stands on is there from the start."""
    buses = {service: RabbitMQBus(url) for service, url in url_of.items()}
    heard = {queue.name: Collector(_once_more if queue.name == "distributor.news" else _ack) for queue in QUEUES}
    try:
        for bus in buses.values():
            await bus.start()
        for queue in QUEUES:
            await buses[queue.service].consume(queue, heard[queue.name])
        await asyncio.gather(*(eventually(bus.is_ready, within=20) for bus in buses.values()))
        async with channel_of(url_of["content"]) as channel:  # F16: somebody removes one binding of two
            await (await channel.get_queue("subscriptions.news", ensure=False)).unbind(NEWS, "news.*")
        await published(buses["content"], Message("a", NEWS, "news.published", b"{}"))
        await published(buses["subscriptions"], Message("b", MAIL, "mail.requested.digest", b"{}"))
        await published(buses["distributor"], Message("c", DELIVERY, "delivery.bounced", b"{}"))
        for service in ("content", "subscriptions"):
            own = next(queue for queue in QUEUES if queue.service == service)
            await published(buses[service], Message(service, DIRECT, own.name, b"{}"))
        await eventually(lambda: [seen.attempt for seen in heard["distributor.news"].seen] == [1, 2])
        await eventually(heard["subscriptions.news"].has("a", "subscriptions"))
        await eventually(heard["distributor.mail.digest"].has("b"))
        await eventually(heard["subscriptions.outcomes"].has("c"))
        await eventually(heard["content.progress"].has("content"))
    finally:
        for bus in buses.values():
            await bus.close()


def _ack(_: object) -> Ack:
    return Ack()


def _once_more(incoming: object) -> Ack | Retry:
    return Retry(1) if getattr(incoming, "attempt", 1) == 1 else Ack()
