"""A TCP proxy between two servers of a test: cuts, holds, slows and changes direction, at once or when certain bytes pass.

    with TcpProxy(broker_port) as link:
        passed = link.when(b"\\x0enews.published", link.hold)   # before these bytes are forwarded
        ...
        passed.wait(10)
        link.release()

What came before those bytes has been forwarded by then, and nothing of what comes behind them (but for a pattern that
lies across two reads: its beginning has gone). `port` stands from the start, so that a service can be told of it. It runs in a thread of its own; every method may be
called from any thread.
"""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tests.servers.run import claim_port
from tests.servers.thread import ThreadedServer

Direction = Literal["there", "back"]
CHUNK = 65_536
LONGEST_PATTERN = 256
NO_FAREWELL = struct.pack("ii", 1, 0)
"""Lingering for no time: the socket is closed by a reset, and what was on its way is gone."""


@dataclass
class _Watch:
    """Waits for the n-th time that bytes pass in one direction, over all connections."""

    pattern: bytes
    act: Callable[[], None]
    direction: Direction
    nth: int
    after: bool
    seen: int = 0
    passed: threading.Event = field(default_factory=threading.Event)

    def place_in(self, before: bytes, data: bytes) -> int | None:
        """Where in `data` it strikes, if it does; `before` is the end of what came earlier."""
        if self.seen >= self.nth:
            return None
        overlap = before[-(len(self.pattern) - 1) :] if len(self.pattern) > 1 else b""
        whole, start = overlap + data, -1
        while self.seen < self.nth:
            start = whole.find(self.pattern, start + 1)
            if start == -1:
                return None
            self.seen += 1
        return max(start - len(overlap) + len(self.pattern) * self.after, 0)


@dataclass(eq=False)
class _Connection:
    """Both ends of one connection, and how much it has carried."""

    writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    carried: int = 0

    def end(self) -> None:
        """What has been forwarded arrives."""
        for writer in self.writers:
            writer.transport.abort()

    def reset(self) -> None:
        """What has been forwarded and not been read is gone too."""
        for writer in self.writers:
            with contextlib.suppress(OSError):  # it may have been closed already
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_FAREWELL)
            writer.transport.abort()


class TcpProxy(ThreadedServer):
    """Forwards connections to `target`, a port on loopback, which may be changed for connections to come."""

    def __init__(self, target: int | None = None) -> None:
        super().__init__()
        self.port = claim_port()
        self.target = target
        self._listener: asyncio.Server | None = None
        self.delay_s = 0.0
        """Each read waits so long before it goes on: latency, and a slow line."""
        self.cut_after: int | None = None
        """Connections are reset when they have carried so many octets, in both directions together."""
        self.asked_at: list[float] = []
        """When connections were asked for (`time.monotonic`), whether or not there was anything behind."""
        self.most_at_once = 0
        """Connections to the target that were open together."""
        self._connections: set[_Connection] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._watches: list[_Watch] = []

    def hold(self) -> None:
        """Let nothing through any more; connections stay open, and new ones are taken and left waiting."""
        self._call(self._flowing.clear)

    def release(self) -> None:
        """Let everything through again, also what was held."""
        self._call(self._flowing.set)

    def cut(self) -> None:
        """Reset all connections. New ones are taken as ever."""
        self._call(self._reset_all)

    def drop(self) -> None:
        """End all connections as those of a process that died: nothing more is forwarded, what was arrives."""
        self._call(self._end_all)

    def close(self) -> None:
        """As if the server behind had ended: connections are reset, new ones too, until `lead_to`."""
        self.target = None
        self.cut()

    def lead_to(self, target: int) -> None:
        """From now on connections go there; those that lead elsewhere are reset."""
        self.target = target
        self.cut()

    def mend(self) -> None:
        """An ordinary line again: nothing held, slowed, cut or watched for; connections are new where it was not one."""
        self._watches = []
        if self.delay_s or self.cut_after is not None or not self._flowing.is_set():
            self.delay_s, self.cut_after = 0.0, None
            self.cut()  # first, so that nothing that was held gets through
            self.release()

    def when(
        self,
        pattern: bytes,
        act: Callable[[], None],
        *,
        direction: Direction = "there",
        nth: int = 1,
        after: bool = False,
    ) -> threading.Event:
        """Before (or `after`) these bytes pass for the n-th time from now, do this once. `act` must not block."""
        watch = _Watch(pattern, act, direction, nth, after)
        self._watches = [*(known for known in self._watches if not known.passed.is_set()), watch]
        return watch.passed

    def _call(self, act: Callable[[], object]) -> None:
        """In the server's thread, and done when this returns."""
        if threading.current_thread() is self._thread:
            act()
            return

        async def acted() -> None:
            act()

        self._run(acted())

    def _reset_all(self) -> None:
        for connection in list(self._connections):
            connection.reset()

    def _end_all(self) -> None:
        for connection in list(self._connections):
            connection.end()

    async def _open(self) -> None:
        self._listener = await asyncio.start_server(self._connected, self.host, self.port, backlog=512)

    async def _close(self) -> None:
        assert self._listener is not None
        self._listener.close()
        self._reset_all()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Cancelled only when the proxy stops; asyncio.streams would complain of that for each connection.
        self.asked_at.append(time.monotonic())
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._flowing.wait()
            if self.target is None:
                raise ConnectionRefusedError
            far_reader, far_writer = await asyncio.open_connection(self.host, self.target)
            connection = _Connection((writer, far_writer))
            self._connections.add(connection)
            self.most_at_once = max(self.most_at_once, len(self._connections))
            try:
                await asyncio.gather(
                    self._pipe(connection, reader, far_writer, "there"),
                    self._pipe(connection, far_reader, writer, "back"),
                )
            finally:
                self._connections.discard(connection)
                far_writer.transport.abort()
        writer.transport.abort()

    async def _pipe(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction
    ) -> None:
        before = b""
        try:
            while data := await reader.read(CHUNK):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                done = 0
                for place, watch in self._struck(before, data, direction):
                    await self._forward(connection, writer, data[done:place])
                    done = place
                    watch.act()
                    watch.passed.set()
                await self._forward(connection, writer, data[done:])
                before = (before + data)[-LONGEST_PATTERN:]
            writer.write_eof()
        except OSError:  # a reset at one end is one at the other
            connection.reset()

    async def _forward(self, connection: _Connection, writer: asyncio.StreamWriter, data: bytes) -> None:
        await self._flowing.wait()
        room = len(data) if self.cut_after is None else max(self.cut_after - connection.carried, 0)
        connection.carried += len(data)
        if writer.transport.is_closing():
            raise ConnectionResetError
        writer.write(data[:room])
        await writer.drain()
        if room < len(data):
            connection.reset()

    def _struck(self, before: bytes, data: bytes, direction: Direction) -> list[tuple[int, _Watch]]:
        """The watches that strike within `data`, with their places, in order."""
        waiting = [watch for watch in self._watches if watch.direction == direction and not watch.passed.is_set()]
        places = [(watch.place_in(before, data), watch) for watch in waiting]
        return sorted(((place, watch) for place, watch in places if place is not None), key=lambda found: found[0])
