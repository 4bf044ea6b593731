"""What may happen to events on the whole system, by the numbers of docs/reliability.md (F21, F24). What each service makes of
them alone is in `tests/integration/distributor/test_event_faults.py` and `tests/integration/subscriptions`."""

import asyncio
import json
import re
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
        for queue in queues:
            for body in POISON.values():
                message = aio_pika.Message(body, message_id=str(uuid4()))
                await channel.default_exchange.publish(message, f"{distributed.namespace}.{queue.name}")
        began = time.monotonic()
        await scene.publish_to_few()
        await eventually(lambda: parked(distributed) == len(queues) * len(POISON), within=10)
        assert time.monotonic() - began < 5 * PARKED_WITHIN_S  # a busy machine
        print(f"measured: parked within {time.monotonic() - began:.2f} s")
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


def parked(distributed: Distributed) -> int:
    return sum(distributed.ask(service, PARKED)[0][0] for service in SERVICES)
