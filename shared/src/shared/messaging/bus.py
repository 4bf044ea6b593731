"""The port to the broker. Services see this; which transport stands behind it is a setting.

Both transports promise the same: a message whose publication returned is kept until somebody has answered for it; one
that no queue takes is refused; each queue is drained by its own task, one message after the other, in order as long
as nothing fails; a message may come more than once.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from shared.messaging.topology import RETRY_DELAYS_S, Queue

log = structlog.get_logger()

DIRECT = ""
"""The exchange that leads straight to the queue named by the routing key."""


class BusUnavailable(Exception):
    """The broker cannot be reached or does not answer. What was being published may or may not have arrived."""


class Unroutable(Exception):
    """No queue is bound for the message: it was not kept."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is handed to the broker."""

    message_id: str
    exchange: str
    routing_key: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Incoming:
    """What the broker hands over. `attempt` counts from 1 and grows with every retry that counts."""

    message_id: str
    body: bytes
    attempt: int
    given_up: bool = False
    """The broker gave it up by its own delivery limit; there is nothing left but to park it."""


@dataclass(frozen=True, slots=True)
class Ack:
    """Done."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Once more, after `delay_s` seconds. A fault that is not the message's own does not count as an attempt."""

    delay_s: int = RETRY_DELAYS_S[0]
    counts: bool = True


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """It will never work as it is: keep it for a person to look at."""

    reason: str
    detail: str = ""


Outcome = Ack | Retry | DeadLetter
Receive = Callable[[Incoming], Awaitable[Ack | Retry]]
"""Takes a message and answers for it. It is not to raise; a message whose receiver does comes again."""


async def answered(receive: Receive, incoming: Incoming) -> Ack | Retry:
    """What `receive` answers, whatever becomes of it: a queue does not stop at a fault in its receiver."""
    try:
        return await receive(incoming)
    except Exception as error:
        log.error("message_receiver_raised", message_id=incoming.message_id, exc_info=error)
        return Retry()


class Bus(Protocol):
    """A durable message broker."""

    async def start(self) -> None:
        """Connect and declare the topology; waits in the background where the broker is not up yet."""

    async def publish(self, messages: Sequence[Message]) -> list[Exception | None]:
        """Hand messages over; per message `None` once the broker has it for good, else `Unroutable` or
        `BusUnavailable`.
        """

    async def consume(self, queue: Queue, receive: Receive) -> None:
        """Give every message of `queue` to `receive`, until the bus is closed."""

    def is_ready(self) -> bool:
        """Whether messages can go out right now."""

    async def drain(self) -> None:
        """Take no new messages; wait for those in hand."""

    async def close(self) -> None:
        """Let go of the broker."""
