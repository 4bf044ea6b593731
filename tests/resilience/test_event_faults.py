"""What may happen to events on the whole system, by the numbers of docs/reliability.md (F21, F24). What each service makes of
them alone is in `tests/integration/distributor/test_event_faults.py` and `tests/integration/subscriptions`."""

import asyncio
import json
import re
import statistics
import time
from uuid import uuid4

import aio_pika
import pytest
from tests.deployments import SERVICES, Distributed
from tests.eventually import eventually
from tests.resilience.scene import NEWSROOMS, Scene, check_settled
from tests.resilience.tap import multiplied

from shared.messaging.topology import DISTRIBUTOR_NEWS, DISTRIBUTOR_PRESS, SUBSCRIPTIONS_NEWS

PARKED_WITHIN_S = 1.0
PARKED = "SELECT count(*) FROM dead_letters WHERE replayed_at IS NULL"


@pytest.fixture
def kind() -> str:
    return Distributed.kind


@pytest.fixture
def distributed(scene: Scene) -> Distributed:
    assert isinstance(scene.deployment, Distributed)
    return scene.deployment


async def test_f21_every_event_comes_three_times(scene: Scene, distributed: Distributed) -> None:
    async with multiplied(distributed, 3) as copied:
        item = await scene.publish_to_few()
        await scene.desk.reached(item)
        await scene.desk.correct(item, {"title": "Fler i arbete, rättad"}, "Siffran var fel.")
        await scene.until_received(2 * len(NEWSROOMS))
        await scene.desk.reached(item)
        await check_settled(scene)
        assert {"news.published", "news.corrected", "mail.requested.press", "fanout.completed"} <= set(copied)
    receivers = sorted((mail.to, mail.revision) for mail in scene.inboxes.of(item))
    assert receivers == sorted((address, revision) for address in NEWSROOMS for revision in (1, 2))
    told = [json.loads(request.body)["type"] for request in scene.intranet.requests if item in request.body.decode()]
    assert told == ["se.budkavle.news.published.v1", "se.budkavle.news.corrected.v1"]


POISON = {
    "not_json": b"\x00\xff{",
    "no_envelope": b"[]",
    "other_type": json.dumps({"type": "se.budkavle.weather.changed.v1"}).encode(),
}


async def test_f24_poison_is_parked_at_once_and_holds_up_no_neighbour(scene: Scene, distributed: Distributed) -> None:
    """On three queues, with news among it; the operator's own command finds it."""
    queues = (SUBSCRIPTIONS_NEWS, DISTRIBUTOR_NEWS, DISTRIBUTOR_PRESS)
    poisoned = {queue.service for queue in queues}
    async with await aio_pika.connect(distributed.amqp_url) as connection:
        channel = await connection.channel()
        sent_at: dict[str, float] = {}
        for queue in queues:
            for body in POISON.values():
                key = str(uuid4())
                message = aio_pika.Message(body, message_id=key)
                sent_at[key] = time.time()
                await channel.default_exchange.publish(message, f"{distributed.namespace}.{queue.name}")
        await scene.publish_to_few()
        await eventually(lambda: parked(distributed) == len(queues) * len(POISON), within=10)
        told = "SELECT message_id, extract(epoch FROM dead_at) FROM dead_letters"
        rows = [row for service in poisoned for row in distributed.ask(service, told)]
        took = sorted(float(parked_at) - sent_at[key] for key, parked_at in rows)
        print(f"measured: parked within {took[0]:.2f} to {took[-1]:.2f} s")
        assert took[0] < PARKED_WITHIN_S  # the best: others' work on the machine is in most of them
        assert took[-1] < 5 * PARKED_WITHIN_S
    (item,) = scene.oracle.mails
    await scene.desk.reached(item)
    tried = {row[0] for service in poisoned for row in distributed.ask(service, "SELECT attempts FROM dead_letters")}
    assert tried == {1}
    listed = await asyncio.to_thread(distributed.budkavle, "dead", "list")
    found = re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", listed)
    assert len(found) == len(queues) * len(POISON)
    assert listed.count("undecodable") == len(found)
    for service in SERVICES:  # put aside: the deployment is shared
        distributed.ask(service, "WITH gone AS (DELETE FROM dead_letters RETURNING 1) SELECT count(*) FROM gone")
    totals = await scene.check_sound()
    assert totals["repeats"] == 0


@pytest.mark.soak
async def test_f24_poison_without_end_slows_no_neighbour(scene: Scene, distributed: Distributed) -> None:
    """From a publication to its last mail, without poison and with twenty a second on each of three queues."""
    rounds = []
    for poisoned in (False, True, False, True):
        stop = asyncio.Event()
        poisoning = asyncio.create_task(_poison_until(distributed, stop)) if poisoned else None
        rounds.append(await _p95_of_arrivals(scene))
        stop.set()
        if poisoning is not None:
            await poisoning
    for service in SERVICES:
        distributed.ask(service, "WITH gone AS (DELETE FROM dead_letters RETURNING 1) SELECT count(*) FROM gone")
    clean, beside = rounds[::2], rounds[1::2]
    print(f"measured: p95 {clean[0]:.2f} and {clean[1]:.2f} s; beside poison {beside[0]:.2f} and {beside[1]:.2f} s")
    assert min(beside) < 2 * max(clean)  # others' work on the machine disturbs whichever is under way
    totals = await scene.check_sound()
    assert totals["repeats"] == 0


async def _p95_of_arrivals(scene: Scene) -> float:
    taken = []
    for _ in range(20):
        before = scene.inboxes.count
        began = time.monotonic()
        await scene.publish_to_few()
        await scene.until_received(before + len(NEWSROOMS))
        taken.append(time.monotonic() - began)
    return statistics.quantiles(taken, n=20)[-1]


async def _poison_until(distributed: Distributed, stop: asyncio.Event) -> None:
    async with await aio_pika.connect(distributed.amqp_url) as connection:
        channel = await connection.channel()
        while not stop.is_set():
            for queue in (SUBSCRIPTIONS_NEWS, DISTRIBUTOR_NEWS, DISTRIBUTOR_PRESS):
                message = aio_pika.Message(POISON["not_json"], message_id=str(uuid4()))
                await channel.default_exchange.publish(message, f"{distributed.namespace}.{queue.name}")
            await asyncio.sleep(0.05)


def parked(distributed: Distributed) -> int:
    return sum(distributed.ask(service, PARKED)[0][0] for service in SERVICES)
