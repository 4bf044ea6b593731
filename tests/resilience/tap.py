"""Hears every event of an exchange, as one more consumer: which ids came, how often, and whether their bytes were the same."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from tests.deployments import Distributed


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
