"""What a stranger may do to a connection: B43 (requests that two readers read differently) and B44 (slow clients)."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from fastapi import Request
from starlette.responses import StreamingResponse

from shared.clock import SystemClock
from shared.database import Database
from shared.http import create_app
from shared.service import SLOW_CLIENT_S, HttpServer
from shared.settings import Settings

ROUND = b"GET /healthy HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Site:
    port: int
    limit_s: float

    async def say(self, *parts: bytes, every: float = 0.0, until_s: float = 5.0) -> tuple[bytes, float]:
        """Send the parts, then listen: what came back, and after how long the connection was over."""
        began = time.monotonic()
        async with self.line() as (reader, writer):
            answer = asyncio.create_task(_read(reader))
            for part in parts:
                writer.write(part)
                await asyncio.sleep(every)
                if answer.done():
                    break
            given = await asyncio.wait_for(answer, until_s + self.limit_s)
        return given, time.monotonic() - began

    @asynccontextmanager
    async def line(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1_000)
        try:
            yield reader, writer
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Everything until the end, or until the line was cut."""
    given = bytearray()
    try:
        while part := await reader.read(1_000_000):
            given += part
    except ConnectionError:
        pass
    return bytes(given)


@pytest.fixture(params=[1.0, pytest.param(SLOW_CLIENT_S, marks=pytest.mark.soak)])
async def site(request: pytest.FixtureRequest, tmp_path: Path, free_port: int) -> AsyncIterator[Site]:
    url = f"sqlite:///{tmp_path}/x.sqlite3"
    settings = Settings(
        database_url=url, broker_url="embedded:x", secret_keys=("k" * 40,), host="127.0.0.1", port=free_port
    )
    app = create_app("tests", "Tests", settings=settings, database=Database(url), clock=SystemClock())

    @app.get("/healthy")
    async def healthy() -> str:
        return "ok"

    @app.get("/large")
    async def large() -> StreamingResponse:
        async def pour() -> AsyncIterator[bytes]:
            for _ in range(1_000):
                yield b"x" * 100_000

        return StreamingResponse(pour())

    @app.post("/taken")
    async def taken(asked: Request) -> int:
        return len(await asked.body())

    server = HttpServer(app, settings, slow_client_s=request.param)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield Site(free_port, request.param)
    server.should_exit = True
    await serving
    await app.state.database.dispose()


@pytest.mark.parametrize(
    "head",
    [
        b"POST /taken HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /taken HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        b"POST /taken HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /taken HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST /taken HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST /taken HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfourteen\r\n",
        b"GET /healthy HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /healthy HTTP/1.1\r\n\r\n",
        b"GET /healthy HTTP/1.1\r\nHost: x\r\nX-Long: a\r\n b\r\n\r\n",
        b"GET /healthy HTTP/1.1\r\nHost: x\r\nX-Nul: a\0b\r\n\r\n",
        b"GET /healthy HTTP/1.1\r\nHost: x\r\nX-Endless: " + b"a" * 100_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=lambda head: head[:60].decode("latin-1").replace("\r\n", "|"),
)
async def test_b43_a_request_with_two_meanings_is_refused_and_the_line_is_closed(site: Site, head: bytes) -> None:
    answer, _ = await site.say(head)
    assert answer.startswith(b"HTTP/1.1 400 "), answer[:200]
    assert answer.count(b"HTTP/1.1") == 1, "nothing behind it was taken for a request"
    head_given, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head_given and b"x-content-type-options: nosniff" in head_given.lower()
    assert json.loads(body)["status"] == 400


async def test_b44_a_slow_client_is_cut_off_and_a_quick_one_is_not(site: Site) -> None:
    head = b"POST /taken HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    drip = site.limit_s / 8
    slow = {
        "says nothing": site.say(),
        "a header, letter by letter": site.say(*[b"%c" % byte for byte in b"GET /healthy HTTP/1.1\r\nX: "], every=drip),
        "a body, letter by letter": site.say(head, *[b"x"] * 60, every=drip),
        "half a body": site.say(head, b"x" * 1_000),
        "a second head that never ends": site.say(ROUND, b"GET /hea", every=drip),
    }
    ends = dict(zip(slow, await asyncio.gather(*slow.values()), strict=True))
    for what, (answer, after_s) in ends.items():
        assert after_s <= site.limit_s * 1.5 + 0.5, (what, after_s)
        assert answer.count(b"HTTP/1.1 200") == (1 if "second" in what else 0), what
    steady, _ = await site.say(
        head.replace(b"1000000", b"40000") + b"", *[b"x" * 2_000] * 20, every=site.limit_s / 10, until_s=30
    )
    assert steady.startswith(b"HTTP/1.1 200") and steady.endswith(b"40000")


async def test_b44_who_does_not_read_the_answer_is_cut_off(site: Site) -> None:
    async with site.line() as (reader, writer):
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(site.limit_s * 1.5)
        given = await asyncio.wait_for(_read(reader), 5)
    assert given.startswith(b"HTTP/1.1 200")
    assert len(given) < 50_000_000, "of a hundred: the rest was never sent"


async def test_b44_five_hundred_slow_clients_hold_up_nobody(site: Site) -> None:
    async with AsyncExitStack() as lines, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{site.port}") as quick:
        slow = [await lines.enter_async_context(site.line()) for _ in range(500)]
        for _, writer in slow:
            writer.write(b"GET /healthy HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        took = []
        for _ in range(20):
            began = time.monotonic()
            assert (await quick.get("/healthy")).status_code == 200
            took.append(time.monotonic() - began)
        assert sorted(took)[-2] < 0.5
        ends = await asyncio.wait_for(asyncio.gather(*(_read(reader) for reader, _ in slow)), site.limit_s * 1.5 + 3)
    assert set(ends) == {b""}


async def test_b3_a_body_that_goes_on_after_the_refusal_is_cut_off(site: Site) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    head = b"POST /taken HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with site.line() as (reader, writer):

        async def pour() -> None:
            writer.write(head)
            while True:
                writer.write(chunk)
                await writer.drain()

        pouring, began = asyncio.create_task(pour()), time.monotonic()
        answer = await asyncio.wait_for(_read(reader), site.limit_s * 2 + 3)
        pouring.cancel()
        await asyncio.gather(pouring, return_exceptions=True)
    assert answer.startswith(b"HTTP/1.1 413 ") or answer == b""
    assert time.monotonic() - began <= site.limit_s * 1.5 + 2
