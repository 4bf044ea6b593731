"""The fault proxy strikes at the byte that it was told, and lets everything else pass unchanged."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.eventually import eventually
from tests.servers.proxy import TcpProxy


@pytest.fixture
async def heard() -> AsyncIterator[bytearray]:
    """What the server behind the proxy was sent; it sends all of it back."""
    yield bytearray()


@pytest.fixture
async def echo(heard: bytearray) -> AsyncIterator[int]:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                heard.extend(data)
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
def link(echo: int) -> Iterator[TcpProxy]:
    with TcpProxy(echo) as link:
        yield link


async def test_it_strikes_before_the_nth_match_and_holds_what_comes_behind(link: TcpProxy, heard: bytearray) -> None:
    passed = link.when(b"COMMIT", link.hold, nth=2)
    _, writer = await asyncio.open_connection("127.0.0.1", link.port)
    writer.write(b"a COMMIT b COMMIT c")
    await eventually(lambda: heard == b"a COMMIT b ")
    assert passed.is_set()
    link.release()
    await eventually(lambda: heard == b"a COMMIT b COMMIT c")
    writer.close()


async def test_it_strikes_after_the_match_and_on_the_way_back(link: TcpProxy, heard: bytearray) -> None:
    link.when(b"250 ", link.hold, direction="back", after=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    writer.write(b"x250 yz")
    assert await reader.readexactly(5) == b"x250 "
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    assert heard == b"x250 yz"
    writer.close()


async def test_a_match_that_lies_across_two_reads_is_seen(link: TcpProxy, heard: bytearray) -> None:
    passed = link.when(b"COMMIT", link.cut)
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    writer.write(b"COM")
    await eventually(lambda: heard == b"COM")
    writer.write(b"MIT")
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(10)
    assert passed.is_set()
    assert heard == b"COM"


async def test_connections_are_cut_after_so_many_octets(link: TcpProxy, heard: bytearray) -> None:
    link.cut_after = 10
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    writer.write(b"1234567890abc")
    with contextlib.suppress(ConnectionResetError):
        await reader.read()
    assert b"1234567890".startswith(heard)  # a reset takes along what was not read yet
    link.mend()
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    writer.write(b"whole and well")
    assert await reader.readexactly(14) == b"whole and well"
    writer.close()


async def test_a_delay_holds_each_read_up(link: TcpProxy) -> None:
    link.delay_s = 0.1
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    began = time.monotonic()
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
    assert time.monotonic() - began >= 0.2
    writer.close()
