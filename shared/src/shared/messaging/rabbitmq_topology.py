"""What stands on RabbitMQ by `topology.py`: exchanges, queues, bindings, and the waiting rooms of retries.

Whoever connects declares all of it (docs/adr/0001), or, where the broker was given it at its start and its users may
declare nothing (docs/adr/0013), only looks whether it stands.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aio_pika.abc import AbstractChannel, ExchangeType
from pamqp.common import FieldTable

from shared.messaging.bus import DIRECT, Message
from shared.messaging.topology import BROKER_DELIVERY_LIMIT, EXCHANGES, RETRY_DELAYS_S, Queue, matches

DECLARE_TIMEOUT_S = 60.0
"""All of it is some eighty questions, each waiting for its answer: a line with a second's round trip needs as many
seconds. A broker that hangs is noticed by its heartbeat long before."""
STRAIGHT = "straight"
"""The exchange that leads to the queue named by the routing key. The broker's own, without a name, does the same for
whoever may use it at all; in this one a service can be held to its own queues."""
BACKSTOP: FieldTable = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
"""Of the queues for what was given up: from 4.0 on, a queue without a limit of its own drops at the 21st delivery."""


Binding = tuple[str, str, str]
"""Queue, exchange and routing key."""


@dataclass(frozen=True, slots=True)
class Part:
    """Something that stands or falls together: topic exchanges, a queue and what binds it to them."""

    exchanges: tuple[str, ...]
    queue: str
    arguments: FieldTable
    bindings: tuple[tuple[str, str], ...]
    """Exchange and routing key."""


async def bind(channel: AbstractChannel, bindings: Sequence[Binding]) -> None:
    """Put them up; those that stand are left as they are. They cost the wait for one answer, however many they are."""
    underlay = await channel.get_underlay_channel()
    for binding in bindings[:-1]:
        await underlay.queue_bind(*binding, nowait=True)
    await underlay.queue_bind(*bindings[-1])


class Topology:
    """Names and declares. Declaring what stands already changes nothing."""

    def __init__(
        self, namespace: str | None, queues: Sequence[Queue], retry_pace: float = 1.0, *, given: bool = False
    ) -> None:
        self.prefix = f"{namespace}." if namespace else ""
        self._queues = queues
        self._retry_pace = retry_pace
        self._given = given

    def waiting_exchange(self, delay_s: float) -> str:
        """Where a message goes that is to come back after (about) `delay_s`."""
        known = min(RETRY_DELAYS_S, key=lambda delay: abs(delay - delay_s))
        return f"{self.prefix}retry.{known}s"

    def target(self, message: Message) -> tuple[str, str]:
        """Exchange and routing key as the broker knows them."""
        if message.exchange == DIRECT:
            return self.prefix + STRAIGHT, self.prefix + message.routing_key
        return self.prefix + message.exchange, message.routing_key

    def shared_bindings(self, message: Message) -> list[Binding]:
        """What leads the message to its queues, where these are more than one: the broker confirms what one of them
        took, and never tells that another was unbound.
        """
        bindings = [
            (self.prefix + queue.name, self.prefix + queue.exchange, key)
            for queue in self._queues
            for key in queue.keys
            if queue.exchange == message.exchange and matches(key, message.routing_key)
        ]
        return bindings if len({queue for queue, _, _ in bindings}) > 1 else []

    def exchanges(self) -> list[str]:
        """All of them; some have no queue of ours."""
        return [self.prefix + name for name in (*EXCHANGES, STRAIGHT)]

    def parts(self) -> list[Part]:
        """Every queue with what it hangs on."""
        rooms = [self._waiting_room(delay) for delay in RETRY_DELAYS_S]
        return rooms + [part for queue in self._queues for part in self._parts_of(queue)]

    async def declare(self, channel: AbstractChannel) -> None:
        """All of it."""
        async with asyncio.timeout(DECLARE_TIMEOUT_S):
            await self._declare(channel, self.exchanges(), self.parts())

    async def declare_one(self, channel: AbstractChannel, queue: Queue) -> None:
        """What the consumer of `queue` stands on."""
        async with asyncio.timeout(DECLARE_TIMEOUT_S):
            await self._declare(channel, (), self._parts_of(queue))

    async def _declare(self, channel: AbstractChannel, exchanges: Iterable[str], parts: Sequence[Part]) -> None:
        for name in dict.fromkeys((*exchanges, *(name for part in parts for name in part.exchanges))):
            await channel.declare_exchange(name, ExchangeType.TOPIC, durable=True, passive=self._given)
        for part in parts:
            queue = await channel.declare_queue(part.queue, durable=True, passive=self._given, arguments=part.arguments)
            for exchange, key in () if self._given else part.bindings:
                await queue.bind(exchange, key)

    def _waiting_room(self, delay: int) -> Part:
        name = self.waiting_exchange(delay)
        arguments: FieldTable = {
            "x-queue-type": "quorum",
            "x-message-ttl": int(delay * 1000 * self._retry_pace),
            "x-dead-letter-exchange": "",  # by its own routing key: back to the queue that it came from
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        return Part((name,), name, arguments, ((name, "#"),))

    def _parts_of(self, queue: Queue) -> list[Part]:
        name, dead = self.prefix + queue.name, self.prefix + queue.dead
        exchange, straight = self.prefix + queue.exchange, self.prefix + STRAIGHT
        arguments: FieldTable = {
            "x-queue-type": "quorum",
            "x-delivery-limit": BROKER_DELIVERY_LIMIT,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        bindings = (*((exchange, key) for key in queue.keys), (straight, name))
        return [Part((), dead, BACKSTOP, ()), Part((exchange, straight), name, arguments, bindings)]
