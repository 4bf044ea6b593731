"""What content hears from the others, and what `reach` makes of it."""

from datetime import timedelta
from uuid import UUID, uuid4

from shared.contracts.delivery import DeliveryCount, DeliveryProgress, ExclusionCount
from shared.contracts.envelope import Envelope
from shared.contracts.mail import AudienceTotal, FanoutCompleted
from shared.messaging.bus import Ack, Incoming


async def hear(content, event, queue):
    """Hand the event to the service's own consumer, as the bus would."""
    envelope = Envelope.wrap(
        event,
        event_id=uuid4(),
        source="/budkavle/test",
        subject=str(event.item_id),
        time=content.clock.now(),
        correlation_id="test",
    )
    [consumer] = [consumer for consumer in content.service.consumers if consumer.queue.name == queue]
    incoming = Incoming(message_id=str(uuid4()), body=envelope.model_dump_json().encode(), attempt=1)
    assert isinstance(await consumer.receive(incoming), Ack)


def progress(content, item, sequence, *deliveries, exclusions=()):
    return DeliveryProgress(
        item_id=UUID(item["id"]),
        sequence=sequence,
        counted_at=content.clock.now() + timedelta(seconds=sequence),
        deliveries=[DeliveryCount(revision=1, form="news", **delivery) for delivery in deliveries],
        exclusions=exclusions,
    )


def mail(state, count, audience="public"):
    return {"channel": "mail", "audience": audience, "state": state, "count": count}


async def reach_of(content, item):
    answer = await content.api.get(f"/items/{item['id']}/reach")
    assert answer.status_code == 200
    return answer.json()


async def test_before_anything_is_heard_reach_is_empty(content):
    item = await content.published()
    reach = await reach_of(content, item)
    assert (reach["sequence"], reach["adds_up"], reach["audiences"]) == (0, None, [])
    assert reach["total"]["planned"] == 0
    assert reach["fanout"]["complete"] is False


async def test_the_highest_snapshot_wins_in_whatever_order_they_come(content):
    item = await content.published()
    for sequence, sent in [(2, 5), (1, 3), (2, 5), (3, 8), (1, 3)]:
        told = progress(content, item, sequence, mail("sent", sent), mail("planned", 10 - sent))
        await hear(content, told, "content.progress")
    reach = await reach_of(content, item)
    assert (reach["sequence"], reach["total"]["sent"], reach["total"]["waiting"]) == (3, 8, 2)
    assert reach["counts"][0]["count"] == 8


async def test_reach_adds_up_to_the_last_person(content):
    item = await content.published(audiences=["newsroom", "public"])
    left_out = [ExclusionCount(audience="public", reason="paused", count=2)]
    counts = [mail("sent", 7), mail("bounced", 1), mail("sent", 3, "newsroom")]
    endpoint = {"channel": "webhook", "state": "sent", "count": 4}
    totals = FanoutCompleted(
        item_id=UUID(item["id"]),
        revision=1,
        totals=[
            AudienceTotal(audience="newsroom", planned=3, excluded=0),
            AudienceTotal(audience="public", planned=8, excluded=2),
        ],
    )
    await hear(content, progress(content, item, 1, mail("sent", 7), exclusions=left_out), "content.progress")
    await hear(content, totals, "content.fanouts")
    await hear(content, totals, "content.fanouts")
    assert (await reach_of(content, item))["adds_up"] is None, "three batches are still on their way"
    content.clock.advance(timedelta(minutes=1))
    await hear(content, progress(content, item, 2, *counts[:2], exclusions=left_out), "content.progress")
    assert (await reach_of(content, item))["adds_up"] is None, "the distributor is busy, and still accepting"
    content.clock.advance(timedelta(minutes=1, seconds=2))
    assert (await reach_of(content, item))["adds_up"] is False, "whoever is missing by now is missing"
    await hear(content, progress(content, item, 3, *counts, endpoint, exclusions=left_out), "content.progress")
    reach = await reach_of(content, item)
    assert reach["adds_up"] is True
    assert [
        (row["channel"], row["audience"], row["planned"], row["sent"], row["failed"], row["excluded"])
        for row in reach["audiences"]
    ] == [
        ("mail", "newsroom", 3, 3, 0, 0),
        ("mail", "public", 8, 7, 1, 2),
        ("webhook", None, 4, 4, 0, 0),
    ]
    assert (reach["total"]["planned"], reach["excluded"]) == (15, 2)
