"""A fast receiver of webhooks in a process of its own: it reads a request, says 200, and notes when.

    python -m tests.load.hook_sink --log seen.log

It prints `listening PORT`, then appends a line for each request: unix time and path. It knows just enough HTTP/1.1 to
be posted to on connections that are kept.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.process import ServerProcess

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nOK"
LENGTH = b"content-length:"


class Connection(asyncio.Protocol):
    def __init__(self, log: "Log") -> None:
        self._log = log
        self._buffer = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (head := self._buffer.find(b"\r\n\r\n")) != -1:
            lines = bytes(self._buffer[:head]).lower()
            at = lines.find(LENGTH)
            length = int(lines[at + len(LENGTH) :].split(b"\r\n", 1)[0]) if at != -1 else 0
            if len(self._buffer) < head + 4 + length:
                return
            self._log.note(self._buffer[: self._buffer.index(b"\r\n")].split()[1].decode())
            del self._buffer[: head + 4 + length]
            self._transport.write(ANSWER)


class Log:
    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._lines: list[str] = []

    def note(self, path: str) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_soon(self._write)
        self._lines.append(f"{time.time():.6f} {path}\n")

    def _write(self) -> None:
        self._file.write("".join(self._lines).encode())
        self._lines.clear()


async def serve(log: Path) -> None:
    kept = Log(log)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(kept), "127.0.0.1", 0, backlog=2048)
    print(f"listening {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


@contextmanager
def hook_sink(directory: Path) -> Iterator[tuple[str, Path]]:
    """A running one: its address, and the log of what it was sent."""
    seen = directory / "hooks.log"
    process = ServerProcess(
        [sys.executable, "-m", "tests.load.hook_sink", "--log", str(seen)],
        directory / "hook_sink.out",
        cwd=Path(__file__).parents[2],
    )
    process.start(lambda: b"listening " in process.log.read_bytes(), within=30)
    try:
        port = int(process.log.read_bytes().split(b"listening ", 1)[1].split()[0])
        yield f"http://127.0.0.1:{port}", seen
    finally:
        process.kill()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--log", type=Path, required=True)
    asyncio.run(serve(arguments.parse_args().log))
