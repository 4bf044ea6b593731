"""What services may count on, whichever transport is behind the port: one suite, run on both."""

import asyncio
from collections import Counter

from tests.eventually import eventually
from tests.integration.shared.transports import FIRST, OTHER, SECOND, Collector, Transport, hang, news, published

from shared.messaging.bus import DIRECT, Ack, Incoming, Message, Retry, Unroutable
from shared.messaging.topology import DELIVERY


async def test_one_consumer_gets_a_queue_in_the_order_of_publication(transport: Transport) -> None:
    bus, seen = await transport.open(), Collector()
    for number in range(100):
        await published(bus, news(str(number)))
    await bus.consume(FIRST, seen)
    await eventually(lambda: len(seen.ids) == 100)
    assert seen.ids == [str(number) for number in range(100)]


async def test_every_bound_queue_gets_its_own_copy_and_no_other_does(transport: Transport) -> None:
    bus = await transport.open()
    first, second, other = Collector(), Collector(), Collector()
    for queue, collector in ((FIRST, first), (SECOND, second), (OTHER, other)):
        await bus.consume(queue, collector)
    await published(
        bus, news("a"), news("b", routing_key="news.corrected"), Message("c", DELIVERY, "delivery.progress", b"c")
    )
    await eventually(lambda: len(first.ids) == 2 and second.ids and other.ids)
    assert (sorted(first.ids), second.ids, other.ids) == (["a", "b"], ["a"], ["c"])


async def test_a_message_arrives_as_it_was_sent(transport: Transport) -> None:
    bus, seen = await transport.open(), Collector()
    await bus.consume(FIRST, seen)
    body = bytes(range(256)) * 8192  # 2 MiB, and no text at all
    await published(bus, news("large", body=body))
    await eventually(seen.has("large"))
    assert seen.seen == [Incoming("large", body, 1)]


async def test_what_waits_outlives_every_door_to_the_broker(transport: Transport) -> None:
    bus = await transport.open()
    await published(bus, news("kept"))
    await bus.close()
    again, seen = await transport.open(), Collector()
    await again.consume(FIRST, seen)
    await eventually(seen.has("kept"))


async def test_a_consumer_that_dies_with_a_message_in_hand_leaves_it_to_the_next(transport: Transport) -> None:
    bus, dying = await transport.open(), Collector(hang)
    await bus.consume(FIRST, dying)
    await published(bus, news("a"), news("b"))
    await eventually(dying.has("a"))
    await bus.close()
    again, seen = await transport.open(), Collector()
    await again.consume(FIRST, seen)
    await eventually(seen.has("a", "b"))
    assert seen.ids == ["a", "b"]


async def test_what_was_answered_for_does_not_come_again(transport: Transport) -> None:
    bus, seen = await transport.open(), Collector()
    await bus.consume(FIRST, seen)
    await published(bus, *(news(str(number)) for number in range(30)))
    await eventually(lambda: len(seen.ids) == 30)
    await bus.drain()
    await bus.close()
    again, rest = await transport.open(), Collector()
    await again.consume(FIRST, rest)
    await published(again, news("last"))
    await eventually(rest.has("last"))
    assert rest.ids == ["last"]


async def test_a_poisoned_or_hanging_receiver_holds_up_no_other_queue(transport: Transport) -> None:
    def poisoned(_incoming: Incoming) -> Ack:
        raise RuntimeError("poison")

    bus, raising, hanging, seen = await transport.open(), Collector(poisoned), Collector(hang), Collector()
    await bus.consume(FIRST, raising)
    await bus.consume(SECOND, hanging)
    await bus.consume(OTHER, seen)
    await published(bus, news("poison"))
    await eventually(lambda: raising.ids and hanging.ids)
    await published(bus, *(Message(str(number), DELIVERY, "delivery.bounced", b"") for number in range(20)))
    await eventually(lambda: len(seen.ids) == 20, within=5)
    assert hanging.ids == ["poison"]


async def test_a_receiver_that_raises_gets_the_message_again(transport: Transport) -> None:
    def second_time(incoming: Incoming) -> Ack:
        if incoming.attempt < 2:
            raise RuntimeError("not yet")
        return Ack()

    bus, seen = await transport.open(), Collector(second_time)
    await bus.consume(FIRST, seen)
    await published(bus, news("a"))
    await eventually(lambda: [incoming.attempt for incoming in seen.seen] == [1, 2])


async def test_a_retry_that_counts_grows_the_attempt_and_one_that_does_not_leaves_it(transport: Transport) -> None:
    def answer(_incoming: Incoming) -> Ack | Retry:
        return [Retry(1), Retry(1, counts=False), Retry(5), Ack()][len(seen.seen) - 1]

    bus = await transport.open()
    seen = Collector(answer)
    await bus.consume(FIRST, seen)
    await published(bus, news("a", body=b"the same"))
    await eventually(lambda: len(seen.seen) == 4)
    assert [incoming.attempt for incoming in seen.seen] == [1, 2, 2, 3]
    assert {(incoming.message_id, incoming.body) for incoming in seen.seen} == {("a", b"the same")}


async def test_a_retried_message_lets_those_behind_it_pass(transport: Transport) -> None:
    bus = await transport.open()
    seen = Collector(lambda incoming: Retry(15) if incoming.message_id == "late" and incoming.attempt == 1 else Ack())
    await bus.consume(FIRST, seen)
    await published(bus, news("late"))
    await published(bus, news("b"), news("c"))
    await eventually(lambda: len(seen.ids) == 4)
    assert (seen.ids[0], seen.ids[-1]) == ("late", "late")
    assert sorted(seen.ids[1:3]) == ["b", "c"]


async def test_a_retry_goes_back_to_its_own_queue_alone(transport: Transport) -> None:
    bus, second = await transport.open(), Collector()
    first = Collector(lambda incoming: Retry(1) if incoming.attempt == 1 else Ack())
    await bus.consume(FIRST, first)
    await bus.consume(SECOND, second)
    await published(bus, news("a"))
    await eventually(lambda: len(first.ids) == 2 and second.ids)
    await published(bus, news("end"))
    await eventually(second.has("end"))
    assert second.ids == ["a", "end"]


async def test_short_waits_are_not_held_up_by_long_ones(transport: Transport) -> None:
    def answer(incoming: Incoming) -> Ack | Retry:
        return Retry(60 if incoming.message_id == "long" else 1) if incoming.attempt == 1 else Ack()

    bus, seen = await transport.open(), Collector(answer)
    await bus.consume(FIRST, seen)
    await published(bus, news("long"))
    await published(bus, news("short"))
    await eventually(lambda: len(seen.ids) == 4)
    assert seen.ids == ["long", "short", "short", "long"]


async def test_what_no_queue_takes_is_refused_and_the_rest_of_the_batch_is_kept(transport: Transport) -> None:
    bus, seen = await transport.open(), Collector()
    await bus.consume(FIRST, seen)
    answers = await bus.publish(
        [
            news("a"),
            news("lost", routing_key="weather.changed"),
            Message("gone", DIRECT, "tests.nowhere", b""),
            news("b"),
        ]
    )
    assert [type(answer) for answer in answers] == [type(None), Unroutable, Unroutable, type(None)]
    await eventually(seen.has("a", "b"))
    assert "lost" not in seen.ids


async def test_a_message_can_be_sent_straight_to_one_queue(transport: Transport) -> None:
    bus, first, second = await transport.open(), Collector(), Collector()
    await bus.consume(FIRST, first)
    await bus.consume(SECOND, second)
    await published(bus, Message("straight", DIRECT, SECOND.name, b""))
    await eventually(second.has("straight"))
    assert first.ids == []


async def test_two_consumers_share_a_queue_and_no_message_is_handled_twice(transport: Transport) -> None:
    async def slowly(_incoming: Incoming) -> Ack:
        await asyncio.sleep(0.002)
        return Ack()

    one, other = await transport.open(), await transport.open()
    left, right = Collector(slowly), Collector(slowly)
    await one.consume(FIRST, left)
    await other.consume(FIRST, right)
    sent: list[str] = []

    def all_came() -> bool:
        return len(left.ids) + len(right.ids) >= len(sent)

    for _ in range(10):  # one may have a whole lot done before the other looks
        lot = [str(len(sent) + number) for number in range(200)]
        await published(one, *map(news, lot))
        sent += lot
        await eventually(all_came)
        if left.ids and right.ids:
            break
    assert Counter(left.ids + right.ids) == Counter(sent)
    assert left.ids and right.ids


async def test_a_drained_bus_finishes_what_is_in_hand_and_begins_nothing_more(transport: Transport) -> None:
    release = asyncio.Event()

    async def finish_late(_incoming: Incoming) -> Ack:
        await release.wait()
        return Ack()

    bus, seen = await transport.open(), Collector(finish_late)
    await bus.consume(FIRST, seen)
    await published(bus, *(news(str(number)) for number in range(5)))
    await eventually(lambda: seen.ids)
    draining = asyncio.create_task(bus.drain())
    assert (await asyncio.wait({draining}, timeout=0.2))[1], "it waits for the message in hand"
    release.set()
    await draining
    assert seen.ids == ["0"]
    await bus.close()
    again, rest = await transport.open(), Collector()
    await again.consume(FIRST, rest)
    await eventually(lambda: len(rest.ids) == 4)
    assert rest.ids == ["1", "2", "3", "4"]


async def test_a_closed_bus_leaves_no_task_behind(transport: Transport) -> None:
    before = asyncio.all_tasks()
    bus, seen = await transport.open(), Collector(hang)
    for queue in (FIRST, SECOND, OTHER):
        await bus.consume(queue, seen)
    await published(bus, news("a"))
    await eventually(lambda: len(seen.ids) == 2)
    await bus.close()
    await eventually(lambda: asyncio.all_tasks() <= before, within=5)
    assert not bus.is_ready()
    assert [type(answer).__name__ for answer in await bus.publish([news("b")])] == ["BusUnavailable"]


async def test_many_publishers_at_once_lose_nothing(transport: Transport) -> None:
    bus, seen = await transport.open(), Collector()
    await bus.consume(FIRST, seen)
    keys = [[f"{batch}-{number}" for number in range(50)] for batch in range(10)]
    answers = await asyncio.gather(*(bus.publish([news(key) for key in batch]) for batch in keys))
    assert [answer for batch in answers for answer in batch] == [None] * 500
    await eventually(lambda: len(seen.ids) == 500)
    assert Counter(seen.ids) == Counter(key for batch in keys for key in batch)
