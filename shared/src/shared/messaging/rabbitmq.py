"""
The RabbitMQ transport: quorum queues, persistent messages, publisher confirms, mandatory routing.

Written for RabbitMQ 3.10 (Debian 12) and 4.x alike: a message is never given back with nack, because 4.3 does not
count that against the delivery limit; a retry is published to a waiting queue of its length (`retry.5s`) and the
original acknowledged after the confirm, with the attempt counted in a header of ours. What the broker itself gives up
goes to `<queue>.dead`, which the same service drains into its dead letters.

Publishing and consuming use separate connections: an alarm at the broker blocks publishers alone. Any publication
ends within `PUBLISH_TIMEOUT_S`; one that timed out may still arrive. A connection that hangs is noticed by its
heartbeat, and surfaces in aio-pika as a CancelledError that nobody asked for, so that is taken as a loss too.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog
from aio_pika import DeliveryMode, connect_robust
from aio_pika import Message as AmqpMessage
from aio_pika.abc import (
    AbstractExchange,
    AbstractIncomingMessage,
    AbstractRobustChannel,
    AbstractRobustConnection,
    ExchangeType,
)
from aio_pika.exceptions import ChannelClosed, PublishError
from yarl import URL

from shared.contracts.envelope import CONTENT_TYPE
from shared.messaging.bus import DIRECT, BusUnavailable, Incoming, Message, Receive, Retry, Unroutable
from shared.messaging.topology import BROKER_DELIVERY_LIMIT, EXCHANGES, QUEUES, RETRY_DELAYS_S, Queue

log = structlog.get_logger()

PUBLISH_TIMEOUT_S = 3.0
HEARTBEAT_S = 10
RECONNECT_S = 1.0
ATTEMPT_HEADER = "x-budkavle-attempt"


class RabbitMQBus:
    """
    The bus on a RabbitMQ. A `?namespace=x` in the URL puts `x.` before every name, so that installations can
    share a broker.
    """

    def __init__(self, url: str, *, queues: Sequence[Queue] = QUEUES) -> None:
        parsed = URL(url)
        namespace = parsed.query.get("namespace")
        self._prefix = f"{namespace}." if namespace else ""
        self._url = str(parsed.without_query_params("namespace").update_query(heartbeat=HEARTBEAT_S))
        self._queues = queues
        self._publishing: AbstractRobustConnection | None = None
        self._consuming: AbstractRobustConnection | None = None
        self._channel: AbstractRobustChannel | None = None
        self._exchanges: dict[str, AbstractExchange] = {}
        self._consumers: list[_QueueConsumer] = []
        self._connecting: asyncio.Task[None] | None = None
        self._declared = asyncio.Event()

    async def start(self) -> None:
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect(), name="bus connect")

    async def publish(self, messages: Sequence[Message]) -> list[Exception | None]:
        if not self.is_ready():
            return [BusUnavailable("not connected to the broker") for _ in messages]
        return list(await asyncio.gather(*(self._publish_one(message) for message in messages)))

    async def consume(self, queue: Queue, receive: Receive) -> None:
        for name, given_up in ((queue.name, False), (queue.dead, True)):
            consumer = _QueueConsumer(self, self._prefix + name, queue.prefetch, receive, given_up=given_up)
            self._consumers.append(consumer)
            consumer.start()

    def is_ready(self) -> bool:
        return self._declared.is_set() and self._publishing is not None and self._publishing.connected.is_set()

    async def drain(self) -> None:
        await asyncio.gather(*(consumer.drain() for consumer in self._consumers))

    async def close(self) -> None:
        if self._connecting:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        await asyncio.gather(*(consumer.close() for consumer in self._consumers), return_exceptions=True)
        for connection in (self._publishing, self._consuming):
            if connection is not None:
                await connection.close()

    async def open_channel(self, prefetch: int) -> AbstractRobustChannel:
        """A channel of its own on the consuming connection, once the topology stands."""
        await self._declared.wait()
        assert self._consuming is not None
        channel = await self._consuming.channel()
        await channel.set_qos(prefetch_count=prefetch)
        return channel

    async def retry(self, queue: str, message: AbstractIncomingMessage, outcome: Retry) -> None:
        """Publish a copy that comes back to `queue` after the wait; raises unless the broker has it."""
        attempt = _attempt(message) + int(outcome.counts)
        delay = min(RETRY_DELAYS_S, key=lambda known: abs(known - outcome.delay_s))
        body = _amqp_message(message.message_id or "", message.body, attempt)
        exchange = self._exchanges[_retry_name(delay)]
        await exchange.publish(body, routing_key=queue, mandatory=True, timeout=PUBLISH_TIMEOUT_S)

    async def _connect(self) -> None:
        while not self._declared.is_set():
            try:
                self._publishing = await connect_robust(self._url, reconnect_interval=RECONNECT_S, timeout=5)
                self._consuming = await connect_robust(self._url, reconnect_interval=RECONNECT_S, timeout=5)
                await self._declare()
                self._declared.set()
            except asyncio.CancelledError:
                if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise
            except Exception as error:  # noqa: BLE001 - the broker may come up later than we do
                log.warning("broker_unreachable", error=type(error).__name__)
                await asyncio.sleep(RECONNECT_S)

    async def _declare(self) -> None:
        assert self._publishing is not None
        channel = await self._publishing.channel(publisher_confirms=True, on_return_raises=True)
        self._channel = channel
        self._exchanges[DIRECT] = channel.default_exchange
        for name in EXCHANGES:
            self._exchanges[name] = await channel.declare_exchange(
                self._prefix + name, ExchangeType.TOPIC, durable=True
            )
        for delay in RETRY_DELAYS_S:
            await self._declare_wait(channel, delay)
        await asyncio.gather(*(self._declare_queue(channel, queue) for queue in self._queues))

    async def _declare_wait(self, channel: Any, delay: int) -> None:
        name = self._prefix + _retry_name(delay)
        exchange = await channel.declare_exchange(name, ExchangeType.FANOUT, durable=True)
        waiting = await channel.declare_queue(
            name,
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                "x-message-ttl": delay * 1000,
                "x-dead-letter-exchange": "",  # by its own routing key: back to the queue that it came from
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            },
        )
        await waiting.bind(exchange)
        self._exchanges[_retry_name(delay)] = exchange

    async def _declare_queue(self, channel: Any, queue: Queue) -> None:
        arguments = {
            "x-queue-type": "quorum",
            "x-delivery-limit": BROKER_DELIVERY_LIMIT,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self._prefix + queue.dead,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        await channel.declare_queue(self._prefix + queue.dead, durable=True, arguments={"x-queue-type": "quorum"})
        declared = await channel.declare_queue(self._prefix + queue.name, durable=True, arguments=arguments)
        for key in queue.keys:
            await declared.bind(self._prefix + queue.exchange, key)

    async def _publish_one(self, message: Message) -> Exception | None:
        direct = message.exchange == DIRECT
        routing_key = self._prefix + message.routing_key if direct else message.routing_key
        try:
            await self._exchanges[message.exchange].publish(
                _amqp_message(message.message_id, message.body, 1),
                routing_key=routing_key,
                mandatory=True,
                timeout=PUBLISH_TIMEOUT_S,
            )
        except PublishError as error:
            await self._declare_again()
            return Unroutable(f"{message.exchange}/{message.routing_key}: {type(error).__name__}")
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise
            return BusUnavailable("the connection was lost")
        except ChannelClosed as error:
            await self._declare_again()
            return BusUnavailable(f"{type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001 - a nack, a timeout, a lost socket: all mean "not confirmed"
            return BusUnavailable(type(error).__name__)
        return None

    async def _declare_again(self) -> None:
        """Somebody removed a queue, a binding or an exchange: put it back, the outbox will come again."""
        try:
            await asyncio.wait_for(self._declare(), 5)
            log.warning("broker_topology_declared_again")
        except Exception as error:  # noqa: BLE001
            log.warning("broker_topology_failed", error=type(error).__name__)


class _QueueConsumer:
    """Drains one queue, one message after the other."""

    def __init__(self, bus: RabbitMQBus, name: str, prefetch: int, receive: Receive, *, given_up: bool) -> None:
        self._bus = bus
        self._name = name
        self._prefetch = prefetch
        self._receive = receive
        self._given_up = given_up
        self._draining = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._inbox: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"bus {self._name}")

    async def drain(self) -> None:
        self._draining.set()
        if self._task:
            await asyncio.gather(self._task, return_exceptions=True)

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while not self._draining.is_set():
            try:
                await self._consume()
            except asyncio.CancelledError:
                if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise
            except Exception as error:  # noqa: BLE001 - a queue must be drained again when the fault is over
                log.warning("queue_consume_failed", queue=self._name, error=type(error).__name__)
                await asyncio.sleep(RECONNECT_S)

    async def _consume(self) -> None:
        channel = await self._bus.open_channel(self._prefetch)
        queue = await channel.get_queue(self._name, ensure=False)
        tag = await queue.consume(self._inbox.put)
        stop = asyncio.create_task(self._draining.wait())
        try:
            while not self._draining.is_set():
                arrival = asyncio.create_task(self._inbox.get())
                await asyncio.wait({arrival, stop}, return_when=asyncio.FIRST_COMPLETED)
                if not arrival.done():
                    arrival.cancel()
                    break
                await self._answer(arrival.result())
            await queue.cancel(tag)
        finally:
            stop.cancel()
            await channel.close()

    async def _answer(self, message: AbstractIncomingMessage) -> None:
        incoming = Incoming(message.message_id or "", message.body, _attempt(message), self._given_up)
        outcome = await self._receive(incoming)
        try:
            if isinstance(outcome, Retry):
                await self._bus.retry(self._name.removesuffix(".dead"), message, outcome)
            await message.ack()
        except Exception as error:  # noqa: BLE001 - the channel is gone: the broker delivers it again
            log.warning("message_ack_failed", queue=self._name, error=type(error).__name__)
            if isinstance(outcome, Retry) and not message.channel.is_closed:
                await message.reject(requeue=True)


def _amqp_message(message_id: str, body: bytes, attempt: int) -> AmqpMessage:
    return AmqpMessage(
        body,
        message_id=message_id,
        content_type=CONTENT_TYPE,
        delivery_mode=DeliveryMode.PERSISTENT,
        headers={ATTEMPT_HEADER: attempt},
    )


def _attempt(message: AbstractIncomingMessage) -> int:
    value = message.headers.get(ATTEMPT_HEADER, 1)
    return value if isinstance(value, int) else 1


def _retry_name(delay_s: int) -> str:
    return f"retry.{delay_s}s"
