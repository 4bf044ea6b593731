"""Hears every event of an exchange, as one more consumer: which ids came, how often, and whether their bytes were the same.
`multiplied` says all of it again."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aio_pika
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage
from tests.deployments import Distributed

from shared.messaging.topology import EXCHANGES

COPY = "x-tests-copy"


@dataclass
class Tap:
    """What has been heard."""

    heard: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def repeats(self) -> int:
        """Copies beyond the first of each id, which must have its bytes."""
        assert len(set(self.heard)) == len({key for key, _ in self.heard}), "one id, different bytes"
        return sum(Counter(key for key, _ in self.heard).values()) - len(set(self.heard))

    async def put(self, message: AbstractIncomingMessage) -> None:
        self.heard.append((message.message_id or "", message.body))
        await message.ack()


@asynccontextmanager
async def tapped(deployment: Distributed, exchange: str) -> AsyncIterator[Tap]:
    tap = Tap()
    async with await aio_pika.connect(deployment.amqp_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(f"{deployment.namespace}.{exchange}", "#")
        await queue.consume(tap.put)
        yield tap


@asynccontextmanager
async def multiplied(deployment: Distributed, times: int) -> AsyncIterator[Counter[str]]:
    """Every event on every exchange comes so many times, the same to the byte; counts what was copied, by event."""
    copied: Counter[str] = Counter()
    async with await aio_pika.connect(deployment.amqp_url) as connection:
        channel = await connection.channel()
        for exchange in [await channel.get_exchange(f"{deployment.namespace}.{name}") for name in EXCHANGES]:
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind(exchange, "#")
            await queue.consume(_copier(exchange, times - 1, copied))
        yield copied


def _copier(
    exchange: AbstractExchange, times: int, copied: Counter[str]
) -> Callable[[AbstractIncomingMessage], Awaitable[None]]:
    async def copy(message: AbstractIncomingMessage) -> None:
        if COPY not in message.headers:
            again = aio_pika.Message(
                message.body, headers={**message.headers, COPY: 1}, message_id=message.message_id, delivery_mode=2
            )
            for _ in range(times):
                await exchange.publish(again, message.routing_key or "")
            copied[message.routing_key or ""] += 1
        await message.ack()

    return copy
