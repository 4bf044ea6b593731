"""The two transports, as the behaviour suite sees them, and receivers that note what they were given."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.eventually import eventually

from shared.messaging.bus import Ack, Bus, Incoming, Message, Retry
from shared.messaging.embedded import EmbeddedBus
from shared.messaging.rabbitmq import RabbitMQBus
from shared.messaging.topology import DELIVERY, NEWS, Queue

FIRST = Queue("tests.first", NEWS, ("news.*",))
SECOND = Queue("tests.second", NEWS, ("news.published",))
OTHER = Queue("tests.other", DELIVERY, ("delivery.#",))
QUEUES = (FIRST, SECOND, OTHER)
PACE = 0.02  # of the real waits: 1 s becomes 20 ms


class Transport(Protocol):
    """A broker, and as many doors to it as a test opens."""

    async def open(self) -> Bus: ...

    async def shut(self) -> None: ...


class RabbitMQTransport:
    def __init__(self, url: str) -> None:
        self._url = url
        self._open: list[Bus] = []

    async def open(self) -> Bus:
        bus = RabbitMQBus(self._url, queues=QUEUES, retry_pace=PACE)
        self._open.append(bus)
        await bus.start()
        await eventually(bus.is_ready, within=20)
        return bus

    async def shut(self) -> None:
        for bus in self._open:
            await bus.close()


class EmbeddedTransport:
    """One process has the file: a second door is the first again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bus: EmbeddedBus | None = None

    async def open(self) -> Bus:
        if self._bus is None or not self._bus.is_ready():
            self._bus = EmbeddedBus(self._path, queues=QUEUES, retry_pace=PACE)
            await self._bus.start()
        return self._bus

    async def shut(self) -> None:
        if self._bus is not None:
            await self._bus.close()


Answer = Callable[[Incoming], Ack | Retry | Awaitable[Ack | Retry]]


@dataclass
class Collector:
    """Notes every message, then answers as `answer` says."""

    answer: Answer = lambda _incoming: Ack()
    seen: list[Incoming] = field(default_factory=list)

    async def __call__(self, incoming: Incoming) -> Ack | Retry:
        self.seen.append(incoming)
        outcome = self.answer(incoming)
        return outcome if isinstance(outcome, Ack | Retry) else await outcome

    @property
    def ids(self) -> list[str]:
        return [incoming.message_id for incoming in self.seen]

    def has(self, *ids: str) -> Callable[[], bool]:
        return lambda: set(ids) <= set(self.ids)


async def hang(_incoming: Incoming) -> Ack | Retry:
    await asyncio.Event().wait()
    raise AssertionError("for ever")


def news(key: str, *, body: bytes = b"{}", routing_key: str = "news.published") -> Message:
    return Message(key, NEWS, routing_key, body)


async def published(bus: Bus, *messages: Message) -> None:
    assert await bus.publish(messages) == [None] * len(messages)
