"""Receivers that mean no good, in a process of their own, so that what they cost is not taken for what we spend.

    python -m tests.integration.distributor.webhook_hostile

It prints a JSON object: the port of each kind.
"""

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable

BOMB = gzip.compress(b"\0" * 100_000_000)
Kind = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def loris(writer: asyncio.StreamWriter) -> None:
    await pour(writer, b"HTTP/1.1 200 OK\r\n", b"x-drip: 1\r\n", pause=0.1)


async def drip(writer: asyncio.StreamWriter) -> None:
    await pour(writer, b"HTTP/1.1 500 Oj\r\n\r\n", b".", pause=0.1)


async def endless(writer: asyncio.StreamWriter) -> None:
    await pour(writer, b"HTTP/1.1 500 Oj\r\n\r\n", b"x" * 65536)


async def huge(writer: asyncio.StreamWriter) -> None:
    await pour(writer, b"HTTP/1.1 500 Oj\r\nContent-Length: 1073741824\r\n\r\n", b"x" * 65536)


async def bomb(writer: asyncio.StreamWriter) -> None:
    head = f"HTTP/1.1 500 Oj\r\nContent-Encoding: gzip\r\nContent-Length: {len(BOMB)}\r\n\r\n"
    writer.write(head.encode() + BOMB)
    await writer.drain()


async def interim(writer: asyncio.StreamWriter) -> None:
    await pour(writer, b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20, pause=0.01)


async def flood(writer: asyncio.StreamWriter) -> None:
    await pour(writer, b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)


async def headers(writer: asyncio.StreamWriter) -> None:
    await pour(writer, b"HTTP/1.1 500 Oj\r\n", b"x: " + b"y" * 4000 + b"\r\n")


KINDS: tuple[Kind, ...] = (silent, loris, drip, endless, huge, bomb, interim, flood, headers)


async def pour(writer: asyncio.StreamWriter, head: bytes, piece: bytes, pause: float = 0) -> None:
    writer.write(head)
    while True:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(pause)


async def main() -> None:
    ports = {}
    for kind in KINDS:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: Kind = kind) -> None:
            try:
                await reader.readuntil(b"\r\n\r\n")
                await kind(writer)
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.transport.abort()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        ports[kind.__name__] = server.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
