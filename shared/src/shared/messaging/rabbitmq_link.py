"""One connection to RabbitMQ that is made again whenever it is lost.

What waits on a connection that hangs ends, when its heartbeat gives it up, in a CancelledError that nobody asked for.
`loss_raised` makes an ordinary error of it, so that no loop of ours takes it for an order to stop.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog
from aio_pika import connect
from aio_pika.abc import AbstractChannel, AbstractConnection

from shared.messaging.bus import BusUnavailable

log = structlog.get_logger()

CONNECT_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 4.0
HEARTBEAT_S = 8
"""The client takes a connection for dead after three of these and a half: about half a minute."""
RECONNECT_S = 1.0
"""With up to as much again drawn on top, so that many clients do not come back in one moment."""

Prepare = Callable[[AbstractConnection, asyncio.Event], Awaitable[None]]


class Link:
    """One connection, made again whenever it is lost; `open` prepares what hangs on it."""

    def __init__(self, url: str, name: str, prepare: "Prepare | None" = None) -> None:
        self.name = name
        self._url = url
        self._prepare = prepare
        self._connection: AbstractConnection | None = None
        self._up = asyncio.Event()

    async def connection(self) -> AbstractConnection:
        """The connection, once there is one."""
        while self._connection is None:
            await self._up.wait()
        return self._connection

    async def keep(self) -> None:
        """Hold the connection, for ever."""
        while True:
            try:
                with loss_raised():
                    await self._hold()
            except Exception as error:  # noqa: BLE001 - the broker may come up later than we do
                log.warning("broker_unreachable", connection=self.name, error=type(error).__name__)
            await asyncio.sleep(RECONNECT_S * random.uniform(1, 2))  # noqa: S311 - spreads, hides nothing

    async def _hold(self) -> None:
        lost = asyncio.Event()
        connection = await connect(self._url, timeout=CONNECT_TIMEOUT_S)
        connection.close_callbacks.add(lambda *_: lost.set())
        try:
            if self._prepare:
                await self._prepare(connection, lost)
            self._connection = connection
            self._up.set()
            await lost.wait()
            log.warning("broker_connection_lost", connection=self.name)
        finally:
            self._connection = None
            self._up.clear()
            await close(connection)


@contextmanager
def loss_raised() -> Iterator[None]:
    """Make a `BusUnavailable` of a cancellation that nobody asked for: a connection was given up."""
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BusUnavailable("the connection was lost") from None


async def close(closable: AbstractConnection | AbstractChannel) -> None:
    """Close without waiting for ever for a broker that does not answer. aiormq gives the broker two seconds for its
    good-bye; interrupted within these it waits for ever, and only a second interruption ends that.
    """
    closing = asyncio.ensure_future(closable.close())
    closing.add_done_callback(lambda done: done.cancelled() or done.exception())  # looked at, and of no consequence
    for patience_s in (CLOSE_TIMEOUT_S, 0.1, 0.1):
        _, late = await asyncio.wait({closing}, timeout=patience_s)
        if not late:
            return
        closing.cancel()
