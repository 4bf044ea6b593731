"""Declares on RabbitMQ what `topology.py` says: exchanges, queues, bindings, and the waiting rooms of retries."""

import asyncio
from collections.abc import Sequence

from aio_pika.abc import AbstractChannel, ExchangeType
from pamqp.common import FieldTable

from shared.messaging.bus import DIRECT, Message
from shared.messaging.topology import BROKER_DELIVERY_LIMIT, EXCHANGES, RETRY_DELAYS_S, Queue

DECLARE_TIMEOUT_S = 60.0
"""All of it is some fifty questions, each waiting for its answer: a line with a second's round trip needs as many
seconds. A broker that hangs is noticed by its heartbeat long before."""
BACKSTOP: FieldTable = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
"""Of the queues for what was given up: from 4.0 on, a queue without a limit of its own drops at the 21st delivery."""


class Topology:
    """Declares exchanges, queues and bindings. Declaring what stands already changes nothing."""

    def __init__(self, namespace: str | None, queues: Sequence[Queue], retry_pace: float) -> None:
        self.prefix = f"{namespace}." if namespace else ""
        self._queues = queues
        self._retry_pace = retry_pace

    def waiting_exchange(self, delay_s: float) -> str:
        """Where a message goes that is to come back after (about) `delay_s`."""
        known = min(RETRY_DELAYS_S, key=lambda delay: abs(delay - delay_s))
        return f"{self.prefix}retry.{known}s"

    def target(self, message: Message) -> tuple[str, str]:
        """Exchange and routing key as the broker knows them."""
        if message.exchange == DIRECT:
            return "", self.prefix + message.routing_key
        return self.prefix + message.exchange, message.routing_key

    async def declare(self, channel: AbstractChannel) -> None:
        """All of it."""
        async with asyncio.timeout(DECLARE_TIMEOUT_S):
            for name in EXCHANGES:
                await channel.declare_exchange(self.prefix + name, ExchangeType.TOPIC, durable=True)
            for delay in RETRY_DELAYS_S:
                await self._declare_wait(channel, delay)
            for queue in self._queues:
                await self._declare_queue(channel, queue)

    async def declare_one(self, channel: AbstractChannel, queue: Queue) -> None:
        """What the consumer of `queue` stands on."""
        async with asyncio.timeout(DECLARE_TIMEOUT_S):
            await channel.declare_exchange(self.prefix + queue.exchange, ExchangeType.TOPIC, durable=True)
            await self._declare_queue(channel, queue)

    async def _declare_wait(self, channel: AbstractChannel, delay: int) -> None:
        name = self.waiting_exchange(delay)
        await channel.declare_exchange(name, ExchangeType.FANOUT, durable=True)
        waiting = await channel.declare_queue(
            name,
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                "x-message-ttl": int(delay * 1000 * self._retry_pace),
                "x-dead-letter-exchange": "",  # by its own routing key: back to the queue that it came from
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            },
        )
        await waiting.bind(name)

    async def _declare_queue(self, channel: AbstractChannel, queue: Queue) -> None:
        arguments: FieldTable = {
            "x-queue-type": "quorum",
            "x-delivery-limit": BROKER_DELIVERY_LIMIT,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self.prefix + queue.dead,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        await channel.declare_queue(self.prefix + queue.dead, durable=True, arguments=BACKSTOP)
        declared = await channel.declare_queue(self.prefix + queue.name, durable=True, arguments=arguments)
        for key in queue.keys:
            await declared.bind(self.prefix + queue.exchange, key)
