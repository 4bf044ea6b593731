"""The RabbitMQ transport: quorum queues, persistent messages, publisher confirms, mandatory routing.

Written for RabbitMQ 3.10 (Debian 12) and 4.x alike: a message is never given back with nack, because 4.3 does not
count that against the delivery limit; a retry is published to a waiting queue of its length (`retry.5s`) and the
original acknowledged after the confirm, with the attempt counted in a header of ours. What the broker gives up by
its delivery limit goes to `<queue>.dead`, which the same service drains into its dead letters. From 4.3 on a consumer
that dies does not count against that limit, so there the consumer reads the broker's count of deliveries itself.

Publishing and consuming use separate connections: an alarm at the broker blocks publishers alone. Any publication
ends within `PUBLISH_TIMEOUT_S`; one that timed out may still arrive. While the broker blocks publishers nothing is
sent, so that a long alarm leaves no heap of repeats behind it.

Each connection is made anew, with everything that hangs on it, whenever it is lost: channels, declarations and
consumers do not outlive it, and messages of the old one that were not begun are dropped, for the broker delivers them
again. A connection that hangs is noticed by its heartbeat; what waited on it then ends in a CancelledError that
nobody asked for, which is taken as the loss that it is.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import structlog
from aio_pika import DeliveryMode
from aio_pika import Message as AmqpMessage
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import ChannelNotFoundEntity, PublishError
from aiormq.exceptions import ChannelAccessRefused
from yarl import URL

from shared.contracts.envelope import CONTENT_TYPE
from shared.messaging.bus import BusUnavailable, Incoming, Message, Receive, Retry, Unroutable, answered
from shared.messaging.rabbitmq_link import (
    CLOSE_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    HEARTBEAT_S,
    RECONNECT_S,
    Link,
    close,
    loss_raised,
)
from shared.messaging.rabbitmq_topology import Topology, bind
from shared.messaging.topology import BROKER_DELIVERY_LIMIT, QUEUES, Queue
from shared.tasks import end

log = structlog.get_logger()

PUBLISH_TIMEOUT_S = 3.0
BIND_TIMEOUT_S = 1.5
"""Where a node of a cluster hangs, RabbitMQ 3 binds nothing until the others give it up, a minute later. Quorum queues
go on taking what is published, so it is: that a binding is removed just then would be a second fault."""
RENEW_S = 60.0
"""After so long without a message a consumer declares and subscribes anew: a deleted queue that was put back at once
keeps silent about it."""
PREFETCH = 1
"""A consumer that dies gives back all that it was handed, and on 3.10 each of these counts against the delivery
limit: with more than one, a message that kills its consumer would take its neighbours along. A message is a
transaction, beside which the round trip is small."""
ATTEMPT_HEADER = "x-budkavle-attempt"


class RabbitMQBus:
    """The bus on a RabbitMQ. A `?namespace=x` in the URL puts `x.` before every name, so that installations can
    share a broker; `?heartbeat=8` is in seconds; with `?topology=given` it looks whether all of it stands, and declares
    nothing. `retry_pace` stretches the waits before a retry, for tests.
    """

    def __init__(self, url: str, *, queues: Sequence[Queue] = QUEUES, retry_pace: float = 1.0) -> None:
        parsed = URL(url)
        query = {"heartbeat": str(HEARTBEAT_S), **parsed.without_query_params("namespace", "topology").query}
        self._url = str(parsed.with_query(query))
        given = parsed.query.get("topology") == "given"
        self.topology = Topology(parsed.query.get("namespace"), queues, retry_pace, given=given)
        self._publisher = _Publisher(self.topology, self._renew)
        self._consuming = Link(self._url, "consuming")
        self._links = (Link(self._url, "publishing", self._publisher.open), self._consuming)
        self._consumers: list[_QueueConsumer] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        if not self._tasks:
            self._tasks = [asyncio.create_task(link.keep(), name=f"bus {link.name}") for link in self._links]

    async def publish(self, messages: Sequence[Message]) -> list[Exception | None]:
        return await self._publisher.publish(messages)

    async def consume(self, queue: Queue, receive: Receive) -> None:
        for dead in (False, True):
            consumer = _QueueConsumer(self._consuming, self._publisher, self.topology, queue, receive, dead=dead)
            self._consumers.append(consumer)
            consumer.start()

    def is_ready(self) -> bool:
        return self._publisher.is_ready()

    def _renew(self) -> None:
        for consumer in self._consumers:
            consumer.renew()

    async def drain(self) -> None:
        await asyncio.gather(*(consumer.drain() for consumer in self._consumers))

    async def close(self) -> None:
        await asyncio.gather(*(consumer.close() for consumer in self._consumers), return_exceptions=True)
        self._consumers.clear()
        await end(self._tasks)
        self._tasks.clear()


class _Publisher:
    """Publishes over one confirming channel. Whatever closes the channel costs the connection, and begins anew."""

    def __init__(self, topology: Topology, declared_again: Callable[[], None]) -> None:
        self._topology = topology
        self._declared_again = declared_again
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._binding: AbstractChannel | None = None
        self._lost = asyncio.Event()
        self._blocked = False
        self._silent_batches = 0
        self._declared_at = 0.0
        self._declaring = asyncio.Lock()

    async def open(self, connection: AbstractConnection, lost: asyncio.Event) -> None:
        """Prepare `connection` for publishing; `lost` is set when it is of no more use."""
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        await self._topology.declare(channel)
        channel.close_callbacks.add(lambda *_: lost.set())
        self._binding = await connection.channel(publisher_confirms=False)
        self._connection, self._channel, self._lost = connection, channel, lost
        self._silent_batches = 0

    def is_ready(self) -> bool:
        return self._channel is not None and not self._lost.is_set() and not self._blocked

    async def publish(self, messages: Sequence[Message]) -> list[Exception | None]:
        channel, connection = self._channel, self._connection
        if channel is None or connection is None or self._lost.is_set():
            return [BusUnavailable("not connected to the broker") for _ in messages]
        deadline = asyncio.get_running_loop().time() + PUBLISH_TIMEOUT_S
        self._blocked = not await _takes_publications(connection, deadline)
        if self._blocked:
            return [BusUnavailable("the broker blocks publishers (an alarm)") for _ in messages]
        lack = await self._bind_shared(connection, messages)
        publishing = (self._publish_one(channel, message, deadline, lack) for message in messages)
        results = await asyncio.gather(*publishing)
        self._judge(results)
        if any(isinstance(result, Unroutable) for result in results):
            await self._declare_again(connection)
        return list(results)

    async def wait(self, queue: str, delay_s: float, message: AmqpMessage) -> None:
        """Publish a message that comes back to `queue` after the wait; raises unless the broker has it."""
        channel, connection = self._channel, self._connection
        if channel is None or connection is None or self._lost.is_set():
            raise BusUnavailable("not connected to the broker")
        deadline = asyncio.get_running_loop().time() + PUBLISH_TIMEOUT_S
        try:
            await _publish(channel, self._topology.waiting_exchange(delay_s), queue, message, deadline)
        except PublishError:
            await self._declare_again(connection)
            raise

    async def _publish_one(
        self, channel: AbstractChannel, message: Message, deadline: float, lack: Exception | None
    ) -> Exception | None:
        if lack and self._topology.shared_bindings(message):
            return lack
        exchange, routing_key = self._topology.target(message)
        try:
            await _publish(channel, exchange, routing_key, _amqp_message(message.message_id, message.body, 1), deadline)
        except PublishError as error:
            return Unroutable(f"{message.exchange}/{message.routing_key}: {type(error).__name__}")
        except TimeoutError:
            return BusUnavailable("no confirm in time")
        except Exception as error:  # noqa: BLE001 - a nack, a lost socket: all mean "not confirmed"
            return BusUnavailable(type(error).__name__)
        return None

    async def _bind_shared(self, connection: AbstractConnection, messages: Sequence[Message]) -> Unroutable | None:
        """Bind each queue of what goes to more than one, before it goes: a binding that somebody removed is back before
        its queue misses anything. Returns what is in the way of that, and then none of it may go.
        """
        bindings = list(dict.fromkeys(one for message in messages for one in self._topology.shared_bindings(message)))
        if not bindings:
            return None
        try:
            with loss_raised():
                async with asyncio.timeout(BIND_TIMEOUT_S):
                    if self._binding is None or self._binding.is_closed:
                        self._binding = await connection.channel(publisher_confirms=False)
                    await bind(self._binding, bindings)
        except (ChannelNotFoundEntity, ChannelAccessRefused) as error:
            return Unroutable(str(error))
        except Exception:  # noqa: BLE001 - no answer: if it is the broker's, the publication ends in it too
            self._binding = None
        return None

    def _judge(self, results: Sequence[Exception | None]) -> None:
        """Two batches without a single answer, and no alarm announced: the broker hangs. Do not wait for heartbeats."""
        silent = all(isinstance(result, BusUnavailable) for result in results)
        self._silent_batches = self._silent_batches + 1 if silent else 0
        if self._silent_batches > 1:
            self._lost.set()

    async def _declare_again(self, connection: AbstractConnection) -> None:
        """Somebody removed a queue or a binding: put it back, the outbox will come again."""
        now = asyncio.get_running_loop().time()
        if self._declaring.locked() or now - self._declared_at < RECONNECT_S:
            return
        async with self._declaring:
            self._declared_at = now
            try:
                with loss_raised():
                    async with asyncio.timeout(PUBLISH_TIMEOUT_S), connection.channel() as channel:
                        await self._topology.declare(channel)
                log.warning("broker_topology_declared_again")
                self._declared_again()
            except Exception as error:  # noqa: BLE001 - the next refusal tries again
                log.warning("broker_topology_failed", error=type(error).__name__)


class _Anew(Exception):
    """Declare and subscribe anew, at once: nothing has come for a while, or the queue was deleted."""


class _QueueConsumer:
    """Drains one queue, one message after the other. With `dead` it drains what the broker gave up."""

    def __init__(
        self,
        link: Link,
        publisher: _Publisher,
        topology: Topology,
        queue: Queue,
        receive: Receive,
        *,
        dead: bool,
    ) -> None:
        self._link = link
        self._publisher = publisher
        self._topology = topology
        self._queue = queue
        self._home = topology.prefix + queue.name
        self._name = topology.prefix + (queue.dead if dead else queue.name)
        self._receive = receive
        self._dead = dead
        self._draining = False
        self._task: asyncio.Task[None] | None = None
        self._inbox: _Inbox | None = None
        self._unsubscribe: Callable[[], Awaitable[object]]

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"bus {self._name}")

    async def drain(self) -> None:
        self._draining = True
        inbox = self._inbox
        if inbox is None:  # nothing can be in hand
            await self.close()
            return
        with suppress(Exception), loss_raised():  # a channel that is gone delivers nothing more
            await self._unsubscribe()
        inbox.end()
        if self._task:
            await asyncio.gather(self._task, return_exceptions=True)

    async def close(self) -> None:
        if self._task:
            await end([self._task])

    async def _run(self) -> None:
        while not self._draining:
            try:
                with loss_raised():
                    await self._consume()
            except _Anew:
                continue
            except Exception as error:  # noqa: BLE001 - a queue must be drained again when the fault is over
                log.warning("queue_consume_failed", queue=self._name, error=type(error).__name__)
            if not self._draining:
                await asyncio.sleep(RECONNECT_S)

    async def _consume(self) -> None:
        connection = await self._link.connection()
        channel = await asyncio.wait_for(connection.channel(), CONNECT_TIMEOUT_S)
        try:
            await channel.set_qos(prefetch_count=PREFETCH, timeout=CONNECT_TIMEOUT_S)
            await self._topology.declare_one(channel, self._queue)
            self._inbox = _Inbox(channel)
            await self._subscribe(channel, self._inbox)
            await self._empty(self._inbox)
        finally:
            self._inbox = None
            await close(channel)

    async def _subscribe(self, channel: AbstractChannel, inbox: "_Inbox") -> None:
        queue = await channel.get_queue(self._name, ensure=False)
        underlay = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(lambda _: self._was_deleted(inbox))
        tag = await queue.consume(inbox.put, timeout=CONNECT_TIMEOUT_S)
        self._unsubscribe = partial(queue.cancel, tag, timeout=CLOSE_TIMEOUT_S)

    def _was_deleted(self, inbox: "_Inbox") -> None:
        """It is put back at once; what lay in it is gone, and only a person can say from when on to publish again."""
        log.error("queue_deleted", queue=self._name)
        inbox.end(anew=True)

    def renew(self) -> None:
        """Subscribe anew. The broker tells a consumer that its queue was deleted, but not when the queue was put back
        in the same moment: the subscription is then to a queue that is no more.
        """
        if self._inbox:
            self._inbox.end(anew=True)

    async def _empty(self, inbox: "_Inbox") -> None:
        while message := await inbox.get():
            await self._answer(message, inbox)
        if inbox.begins_anew:
            raise _Anew

    async def _answer(self, message: AbstractIncomingMessage, inbox: "_Inbox") -> None:
        given_up = self._dead or _deliveries(message) > BROKER_DELIVERY_LIMIT
        incoming = Incoming(message.message_id or "", message.body, _attempt(message), given_up)
        outcome = await answered(self._receive, incoming)
        if isinstance(outcome, Retry):
            await self._put_back(message, outcome, inbox)
        await message.ack()

    async def _put_back(self, message: AbstractIncomingMessage, outcome: Retry, inbox: "_Inbox") -> None:
        """Keep at it for as long as the channel lives: giving the message back would only have it handled at once."""
        attempt = _attempt(message) + int(outcome.counts)
        again = _amqp_message(message.message_id or "", message.body, attempt)
        while True:
            try:
                return await self._publisher.wait(self._home, outcome.delay_s, again)
            except Exception as error:
                if inbox.ended and not inbox.begins_anew:
                    raise
                log.warning("message_retry_not_taken", queue=self._name, error=type(error).__name__)
                await asyncio.sleep(RECONNECT_S)


class _Inbox:
    """What one channel has delivered; ends with the channel, or with the queue."""

    def __init__(self, channel: AbstractChannel) -> None:
        self._arrived: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()
        self.ended = self.begins_anew = False
        channel.close_callbacks.add(lambda *_: self.end())

    async def put(self, message: AbstractIncomingMessage) -> None:
        self._arrived.put_nowait(message)

    def end(self, *, anew: bool = False) -> None:
        self.ended, self.begins_anew = True, anew
        self._arrived.put_nowait(None)

    async def get(self) -> AbstractIncomingMessage | None:
        """The next message; `None` at the end, whatever else had been delivered: it comes again."""
        try:
            async with asyncio.timeout(RENEW_S):
                message = await self._arrived.get()
        except TimeoutError as error:
            raise _Anew from error
        return None if self.ended else message


async def _takes_publications(connection: AbstractConnection, deadline: float) -> bool:
    """Whether the broker lets us publish. Under an alarm it says so; then this waits for its end, or the deadline."""
    try:
        async with asyncio.timeout_at(deadline):
            if connection.transport is not None:
                await connection.transport.ready()
    except TimeoutError:
        return False
    return True


async def _publish(
    channel: AbstractChannel, exchange: str, routing_key: str, message: AmqpMessage, deadline: float
) -> None:
    with loss_raised():
        async with asyncio.timeout_at(deadline):
            outlet = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
            await outlet.publish(message, routing_key=routing_key, mandatory=True)


def _amqp_message(message_id: str, body: bytes, attempt: int) -> AmqpMessage:
    return AmqpMessage(
        body,
        message_id=message_id,
        content_type=CONTENT_TYPE,
        delivery_mode=DeliveryMode.PERSISTENT,
        headers={ATTEMPT_HEADER: attempt},
    )


def _attempt(message: AbstractIncomingMessage) -> int:
    return _count(message, ATTEMPT_HEADER) or 1


def _deliveries(message: AbstractIncomingMessage) -> int:
    """How often the broker has handed it out before: 4.3 counts that apart from failures."""
    return max(_count(message, "x-acquired-count"), _count(message, "x-delivery-count"))


def _count(message: AbstractIncomingMessage, header: str) -> int:
    value = message.headers.get(header, 0)
    return value if isinstance(value, int) else 0
