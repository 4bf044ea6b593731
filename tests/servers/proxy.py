"""A TCP proxy between two servers of a test: cuts, holds and changes direction, at once or when certain bytes pass.

    with TcpProxy(broker_port) as link:
        passed = link.when(b"\\x0enews.published", link.hold)   # before these bytes are forwarded
        ...
        passed.wait(10)
        link.release()

`port` stands from the start, so that a service can be told of it. It runs in a thread of its own; every method may be
called from any thread.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tests.servers.run import claim_port
from tests.servers.thread import ThreadedServer

Direction = Literal["there", "back"]
CHUNK = 65_536


@dataclass
class _Watch:
    """Waits for the n-th time that bytes pass in one direction, over all connections."""

    pattern: bytes
    act: Callable[[], None]
    direction: Direction
    nth: int
    seen: int = 0
    passed: threading.Event = field(default_factory=threading.Event)


class TcpProxy(ThreadedServer):
    """Forwards connections to `target`, a port on loopback, which may be changed for connections to come."""

    def __init__(self, target: int | None = None) -> None:
        super().__init__()
        self.port = claim_port()
        self.target = target
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
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
        self._call(self._abort_all)

    def close(self) -> None:
        """As if the server behind had ended: connections are reset, new ones too, until `lead_to`."""
        self.target = None
        self.cut()

    def lead_to(self, target: int) -> None:
        """From now on connections go there; those that lead elsewhere are reset."""
        self.target = target
        self.cut()

    def when(
        self, pattern: bytes, act: Callable[[], None], *, direction: Direction = "there", nth: int = 1
    ) -> threading.Event:
        """Before these bytes pass for the n-th time from now, do this once. `act` must not block."""
        watch = _Watch(pattern, act, direction, nth)
        self._watches.append(watch)
        return watch.passed

    def _call(self, act: Callable[[], object]) -> None:
        """In the server's thread, and done when this returns."""
        if threading.current_thread() is self._thread:
            act()
            return

        async def acted() -> None:
            act()

        self._run(acted())

    def _abort_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _open(self) -> None:
        self._listener = await asyncio.start_server(self._connected, self.host, self.port, backlog=512)

    async def _close(self) -> None:
        assert self._listener is not None
        self._listener.close()
        self._abort_all()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Cancelled only when the proxy stops; asyncio.streams would complain of that for each connection.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._flowing.wait()
            if self.target is None:
                raise ConnectionRefusedError
            far_reader, far_writer = await asyncio.open_connection(self.host, self.target)
            ends = {writer, far_writer}
            self._writers |= ends
            try:
                await asyncio.gather(self._pipe(reader, far_writer, "there"), self._pipe(far_reader, writer, "back"))
            finally:
                self._writers -= ends
                far_writer.transport.abort()
        writer.transport.abort()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        before = b""
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                before = self._look(before, data, direction)
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    def _look(self, before: bytes, data: bytes, direction: Direction) -> bytes:
        """Act on what the chunk holds; returns the end of it, in which a pattern may begin."""
        longest = max((len(watch.pattern) for watch in self._watches), default=1) - 1
        for watch in self._watches:
            if watch.direction != direction or watch.passed.is_set():
                continue
            overlap = before[-(len(watch.pattern) - 1) :] if len(watch.pattern) > 1 else b""
            watch.seen += (overlap + data).count(watch.pattern)
            if watch.seen >= watch.nth:
                watch.act()
                watch.passed.set()
        return (before + data)[-longest:] if longest else b""
