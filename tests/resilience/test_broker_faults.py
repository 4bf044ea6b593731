"""What the broker does to the whole system, by the numbers of docs/reliability.md (F12–F18). What it does to the
transport alone is in `tests/integration/shared/test_bus_rabbitmq_faults.py`."""

import asyncio
import contextlib
import re
import statistics
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from uuid import uuid4

import aio_pika
import aio_pika.exceptions
import pytest
from tests.deployments import SERVICES, Distributed
from tests.eventually import eventually
from tests.inboxes import Inboxes
from tests.resilience.moments import BEFORE_ACK, BEFORE_CONFIRM, BEFORE_PUBLISH, Moment
from tests.resilience.scene import EVERYBODY, UNPUBLISHED, Scene, asked, check_reconnections, check_settled
from tests.resilience.tap import tapped
from tests.servers.proxy import TcpProxy
from tests.servers.rabbitmq import PrivateRabbitMQ

from shared.messaging.topology import DISTRIBUTOR_NEWS, EXCHANGES, QUEUES, Queue

soak = pytest.mark.soak
RESUMED_WITHIN_S = 10.0
BLOCKED = "budkavle_broker_blocked"
FAILED = "budkavle_outbox_failed_total"


@pytest.fixture
def kind() -> str:
    return Distributed.kind


@pytest.fixture(autouse=True)
async def everything_settled(scene: Scene) -> AsyncIterator[None]:
    yield
    await check_settled(scene)


@pytest.fixture
def broker(scene: Scene) -> PrivateRabbitMQ:
    assert scene.broker is not None
    return scene.broker


@pytest.fixture
def distributed(scene: Scene) -> Distributed:
    assert isinstance(scene.deployment, Distributed)
    return scene.deployment


def waiting(scene: Scene) -> int:
    """Events in all outboxes that the broker has not confirmed."""
    return sum(scene.deployment.ask(service, UNPUBLISHED)[0][0] for service in SERVICES)


@pytest.mark.parametrize(
    ("service", "moment"),
    [
        pytest.param("subscriptions", BEFORE_CONFIRM, id="subscriptions-before_the_confirm"),
        *(
            pytest.param(service, moment, id=f"{service}-{moment.name.replace(' ', '_')}", marks=soak)
            for service in SERVICES
            for moment in (BEFORE_PUBLISH, BEFORE_CONFIRM, BEFORE_ACK)
            if (service, moment) != ("subscriptions", BEFORE_CONFIRM)
        ),
    ],
)
async def test_f12_the_broker_is_killed(scene: Scene, broker: PrivateRabbitMQ, service: str, moment: Moment) -> None:
    """In the middle of a service's publishing or consuming. Meanwhile the API takes what it is asked, and nobody runs the
    broker over when it comes back (F20)."""
    for link in scene.broker_links():
        link.asked_at.clear()
    normal = min(await _p95(scene), await _p95(scene))  # the first may find it cold
    struck = scene.when(service, moment, broker.strike)
    await scene.publish_to_few()
    await eventually(struck.is_set, within=20)
    await asyncio.to_thread(broker.kill)
    await scene.publish_to_few()
    await asked(scene.desk, *SERVICES)
    away = min([await _p95(scene) for _ in range(5)])  # the best round: others' work on the machine is in most of them
    await asyncio.to_thread(broker.start)
    listens_at = time.monotonic()
    await eventually(lambda: waiting(scene) == 0, within=30)
    print(f"measured: publishing resumed {time.monotonic() - listens_at:.1f} s after the broker listened")
    assert time.monotonic() - listens_at < RESUMED_WITHIN_S
    print(f"measured: p95 {normal * 1000:.0f} ms, with the broker away {away * 1000:.0f} ms")
    assert away < max(2 * normal, 0.1)
    check_reconnections(scene)
    totals = await scene.check_sound(within=90)
    assert totals["repeats"] == 0


@soak
async def test_f12_the_broker_is_killed_and_a_sender_with_it(
    scene: Scene, broker: PrivateRabbitMQ, new_inboxes: Callable[..., Inboxes]
) -> None:
    """In the middle of a drain. Meanwhile another item is published; both reach everybody."""
    scene.inboxes = new_inboxes(scene.deployment, "--delay", "0.005")
    await scene.publish()
    await scene.until_received(100)
    await asyncio.to_thread(broker.kill)
    await scene.kill("distributor")
    await scene.publish()
    await asked(scene.desk, "content", "subscriptions")
    await scene.start("distributor")
    await asked(scene.desk, "distributor")
    await asyncio.to_thread(broker.start)
    await scene.check_sound(kills=1, within=90)


async def test_f13_published_while_the_broker_hangs(
    scene: Scene, broker: PrivateRabbitMQ, distributed: Distributed
) -> None:
    await asyncio.to_thread(broker.pause)
    await scene.publish_to_few()
    await asked(scene.desk, *SERVICES)
    await eventually(lambda: distributed.metric("content", BLOCKED) == 1)
    await asyncio.to_thread(broker.resume)
    totals = await scene.check_sound(within=90)
    assert totals["repeats"] == 0


@soak
async def test_f13_the_broker_hangs_for_a_minute(
    scene: Scene, broker: PrivateRabbitMQ, distributed: Distributed
) -> None:
    """Noticed within three heartbeats and five seconds; the relays live on."""
    await asyncio.to_thread(broker.pause)
    began = time.monotonic()
    await scene.publish()
    await eventually(lambda: distributed.metric("content", BLOCKED) == 1, within=35)
    print(f"measured: noticed after {time.monotonic() - began:.1f} s")
    while time.monotonic() - began < 60:
        await asked(scene.desk, *SERVICES)
    await asyncio.to_thread(broker.resume)
    resumed_at = time.monotonic()
    await eventually(lambda: waiting(scene) == 0, within=40)
    print(f"measured: publishing resumed {time.monotonic() - resumed_at:.1f} s after the broker answered")
    totals = await scene.check_sound(within=90)
    assert totals["repeats"] == 0


TROUBLES: dict[str, Callable[[TcpProxy], None]] = {
    "black_hole": TcpProxy.hold,
    "resets": TcpProxy.cut,
    "cut_every_5_kB": lambda link: setattr(link, "cut_after", 5_000),
    "latency_1_s": lambda link: setattr(link, "delay_s", 0.5),
}


@soak
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_f14_the_lines_to_the_broker_are_bad_for_two_minutes(
    scene: Scene, distributed: Distributed, trouble: str
) -> None:
    links = distributed.broker_links.values()
    began = time.monotonic()
    while time.monotonic() - began < 120:
        for link in links:
            TROUBLES[trouble](link)
        await scene.publish_to_few()
        await asked(scene.desk, *SERVICES)
    for link in links:
        link.mend()
    mended_at, left = time.monotonic(), waiting(scene)
    await eventually(lambda: waiting(scene) < left or not left, within=RESUMED_WITHIN_S)
    resumed = time.monotonic() - mended_at
    await eventually(lambda: waiting(scene) == 0, within=300)  # the quicker the machine, the more there are
    done = time.monotonic() - mended_at
    print(f"measured: {len(scene.oracle.mails)} items; resumed {resumed:.1f} s after, all published {done:.1f} s after")
    totals = await scene.check_sound(within=120)
    assert totals["repeats"] == 0


ALARMS = {
    "memory": (PrivateRabbitMQ.raise_memory_alarm, PrivateRabbitMQ.clear_memory_alarm),
    "disk": (PrivateRabbitMQ.raise_disk_alarm, PrivateRabbitMQ.clear_disk_alarm),
}


@pytest.mark.parametrize(
    ("alarm", "lasts_s"), [("memory", 4), pytest.param("memory", 30, marks=soak), pytest.param("disk", 30, marks=soak)]
)
async def test_f15_the_broker_raises_an_alarm(
    scene: Scene,
    broker: PrivateRabbitMQ,
    distributed: Distributed,
    new_inboxes: Callable[..., Inboxes],
    alarm: str,
    lasts_s: float,
) -> None:
    """It takes nothing from publishers: what is queued goes on being sent, the API answers as ever, and says so."""
    scene.inboxes = new_inboxes(scene.deployment, "--delay", str(lasts_s / 200))
    normal = min(await _p95(scene), await _p95(scene))  # the first may find it cold
    async with tapped(distributed, "news") as tap:
        scene.deployment.mail_link.hold()  # until the alarm is there: all that goes out goes out under it
        await scene.until_planned(await scene.publish())
        failed = distributed.metric("content", FAILED)
        raise_, clear = ALARMS[alarm]
        await asyncio.to_thread(raise_, broker)
        began, sent = time.monotonic(), scene.inboxes.count
        scene.deployment.mail_link.release()
        await scene.publish_to_few()
        await eventually(lambda: distributed.metric("content", BLOCKED) == 1, within=15)
        blocked_after = time.monotonic() - began
        slow = [await _p95(scene)]
        while time.monotonic() - began < lasts_s:
            slow.append(await _p95(scene))
        await scene.until_received(sent + 1)
        went_on = scene.inboxes.count - sent
        await asyncio.to_thread(clear, broker)
        totals = await scene.check_sound(within=90)
        failed = distributed.metric("content", FAILED) - failed
        repeats = tap.repeats
    print(
        f"measured: told of after {blocked_after:.1f} s; p95 {normal * 1000:.0f} ms, under the alarm"
        f" {min(slow) * 1000:.0f} to {max(slow) * 1000:.0f} ms; {went_on} mails went on;"
        f" {failed:.0f} publications failed, {repeats} events came twice"
    )
    assert min(slow) < max(2 * normal, 0.1)  # the best round: others' work on the machine shows in all of them
    assert repeats <= failed
    assert totals["repeats"] == 0


async def _p95(scene: Scene) -> float:
    """Seconds, of twenty calls that write."""
    taken = []
    for _ in range(20):
        began = time.perf_counter()
        await scene.desk.draft({"kind": "news", "title": "Ett utkast", "audiences": ["public"]})
        taken.append(time.perf_counter() - began)
    return statistics.quantiles(taken, n=20)[-1]


@soak
@pytest.mark.parametrize("name", [*(queue.name for queue in QUEUES), *EXCHANGES])
async def test_f16_a_queue_or_an_exchange_is_deleted(scene: Scene, distributed: Distributed, name: str) -> None:
    """Whoever publishes to it, or consumes from it, puts it back, and says so within a minute."""
    async with await aio_pika.connect(distributed.amqp_url) as connection:
        channel = await connection.channel()
        delete = channel.exchange_delete if name in EXCHANGES else channel.queue_delete
        await delete(f"{distributed.namespace}.{name}")
    await scene.publish()
    totals = await scene.check_sound(within=90)
    assert totals["repeats"] == 0


@soak
@pytest.mark.parametrize("queue", QUEUES, ids=lambda queue: queue.name)
async def test_f16_a_binding_is_removed(scene: Scene, distributed: Distributed, queue: Queue) -> None:
    async with await aio_pika.connect(distributed.amqp_url) as connection:
        channel = await connection.channel()
        bound = await channel.get_queue(f"{distributed.namespace}.{queue.name}")
        for key in queue.keys:
            await bound.unbind(f"{distributed.namespace}.{queue.exchange}", key)
    await scene.publish()
    totals = await scene.check_sound(within=90)
    assert totals["repeats"] == 0


@pytest.mark.soak
async def test_f17_the_broker_s_data_is_wiped(scene: Scene, broker: PrivateRabbitMQ, distributed: Distributed) -> None:
    """Events that were confirmed and lay in a queue are gone: news, and mails that were asked for. One command publishes
    them again; who had theirs gets nothing twice, however often and from however far back it is given."""
    began = datetime.now(UTC).isoformat()
    await scene.publish_to_few()
    await scene.check_sound()
    await scene.end("distributor")
    asked_for = await scene.publish_to_few()
    await eventually(lambda: _published(distributed, "subscriptions", asked_for), within=20)
    await scene.end("subscriptions")
    news = await scene.publish_to_few()
    await eventually(lambda: _published(distributed, "content", news), within=20)
    await asyncio.to_thread(broker.kill)
    await asyncio.to_thread(broker.wipe)
    await asyncio.to_thread(broker.start)
    await asyncio.gather(scene.start("subscriptions"), scene.start("distributor"))
    for _ in range(2):
        told = await asyncio.to_thread(distributed.budkavle, "republish", "--since", began)
        assert re.match(r"content: [1-9]\d* events go out again\nsubscriptions: [1-9]\d* events", told), told
        totals = await scene.check_sound()
        assert totals["repeats"] == 0


def _published(distributed: Distributed, service: str, item: str) -> bool:
    """Whether what the service says of the item is at the broker."""
    said = f"SELECT count(*) FROM outbox WHERE convert_from(body, 'UTF8') LIKE '%{item}%' AND published_at IS NOT NULL"
    return bool(distributed.ask(service, said)[0][0])


@soak
async def test_f24_no_dead_letter_is_lost_when_the_broker_dies(
    scene: Scene, broker: PrivateRabbitMQ, distributed: Distributed
) -> None:
    """At the acknowledgement of what was just parked, with more of its kind behind it: each is parked, and once."""
    keys = [str(uuid4()) for _ in range(5)]
    struck = scene.when("distributor", BEFORE_ACK, broker.strike)
    async with await aio_pika.connect(distributed.amqp_url) as connection:
        channel = await connection.channel()
        for key in keys:
            message = aio_pika.Message(b"\x00", message_id=key, delivery_mode=2)
            with contextlib.suppress(
                aio_pika.exceptions.AMQPError, ConnectionError, TimeoutError
            ):  # it may be struck by then
                await channel.default_exchange.publish(
                    message, f"{distributed.namespace}.{DISTRIBUTOR_NEWS.name}", timeout=5
                )
                confirmed = key
    await eventually(struck.is_set, within=20)
    await asyncio.to_thread(broker.kill)
    await asyncio.to_thread(broker.start)
    taken = keys[: keys.index(confirmed) + 1]
    await eventually(lambda: set(taken) <= set(_parked(distributed)), within=30)
    await scene.publish_to_few()
    await eventually(lambda: not scene.deployment.ask("content", UNPUBLISHED)[0][0], within=30)
    parked = _parked(distributed)
    assert sorted(parked) == sorted(set(parked))
    print(f"measured: {len(taken)} of {len(keys)} were taken by the broker before it died, {len(parked)} parked")
    distributed.execute("distributor", "DELETE FROM dead_letters")
    totals = await scene.check_sound(within=90)
    assert totals["repeats"] == 0


def _parked(distributed: Distributed) -> list[str]:
    return [row[0] for row in distributed.ask("distributor", "SELECT message_id FROM dead_letters")]


@soak
async def test_f18_no_message_is_held_however_long_the_mails_take(
    scene: Scene, broker: PrivateRabbitMQ, new_inboxes: Callable[..., Inboxes]
) -> None:
    """The broker takes a channel away from whoever holds a message for a minute; the drain takes longer than that."""
    scene.inboxes = new_inboxes(scene.deployment, "--delay", "0.5")
    began_at = datetime.now(UTC)
    began = held_since = time.monotonic()
    longest = 0.0
    await scene.publish()
    while scene.inboxes.count < len(EVERYBODY):
        listed = await asyncio.to_thread(broker.control, "list_queues", "messages_unacknowledged")
        if not any(line.strip().isdecimal() and int(line) for line in listed.splitlines()):
            held_since = time.monotonic()
        longest = max(longest, time.monotonic() - held_since)
    print(f"measured: the drain took {time.monotonic() - began:.0f} s, a message was held for {longest:.1f} s at most")
    assert time.monotonic() - began > 60
    assert longest < 30
    said = scene.deployment.log_lines(since=began_at)
    assert not [line for line in said if line["event"] == "queue_consume_failed"]
    await scene.check_sound()
