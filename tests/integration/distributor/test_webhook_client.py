"""The client against servers that mean no good. Every server is real and on loopback; only names are looked up here."""

import asyncio
import contextlib
import gzip
import resource
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohappyeyeballs import AddrInfoType
from tests.eventually import eventually
from tests.integration.distributor.webhook_room import found
from tests.servers.certificates import CertificateAuthority
from tests.servers.receiver import CUT, HANG, HttpReceiver, drip, redirect
from tests.servers.receiver import Answer as Scripted

from distributor.webhooks.addresses import AddressPolicy
from distributor.webhooks.client import Answer, Silence, WebhookClient, Why
from distributor.webhooks.dialling import Dialler, Origin

LOOPBACK = AddressPolicy(allow_loopback=True)
HEADERS = {"Content-Type": "application/cloudevents+json", "webhook-id": "d-1"}
BODY = b'{"specversion":"1.0"}'


class Names:
    """A name server of our own: each look-up takes the next of a name's answers, the last one stays."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): list(said) for name, said in answers.items()}
        self.asked: list[str] = []

    async def look_up(self, host: str, port: int) -> list[AddrInfoType]:
        self.asked.append(host)
        if host not in self.answers:
            raise OSError(None, "NXDOMAIN")
        said = self.answers[host].pop(0) if len(self.answers[host]) > 1 else self.answers[host][0]
        return [found(address, port) for address in said]

    def close(self) -> None:
        return None


@asynccontextmanager
async def client(policy: AddressPolicy = LOOPBACK, **options: Any) -> AsyncIterator[WebhookClient]:
    async with WebhookClient(policy, **{"timeout_s": 5, **options}) as opened:
        yield opened


async def post(url: str, policy: AddressPolicy = LOOPBACK, **options: Any) -> Answer | Silence:
    async with client(policy, **options) as opened:
        return await opened.post(url, HEADERS, BODY)


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[str]:
    """A server whose connections are each served by `serve`. Yields its URL."""
    connections: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections[task] = writer
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()

    opened = await asyncio.start_server(served, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{opened.sockets[0].getsockname()[1]}/hook"
    finally:
        opened.close()
        for writer in connections.values():
            writer.transport.abort()
        await asyncio.gather(*connections, return_exceptions=True)


@asynccontextmanager
async def raw_server(*pieces: bytes, for_ever: bytes = b"", pause: float = 0) -> AsyncIterator[str]:
    """A server that reads a little, says `pieces`, then `for_ever` as long as somebody listens. Yields its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
        while for_ever:
            writer.write(for_ever)
            await writer.drain()
            await asyncio.sleep(pause)
        await writer.drain()

    async with server(serve) as url:
        yield url


async def test_what_is_sent_is_what_arrives(http_receiver: HttpReceiver) -> None:
    http_receiver.always("/hook", Scripted(202, {"Set-Cookie": "a=b", "Retry-After": "7"}, b"tack"))
    async with client() as opened:
        for _ in range(2):
            answer = await opened.post(http_receiver.url("/hook"), HEADERS, BODY)
            assert isinstance(answer, Answer)
            assert (answer.status, answer.body, answer.retry_after) == (202, b"tack", "7")
    for request in http_receiver.requests:
        assert (request.method, request.path, request.body) == ("POST", "/hook", BODY)
        assert request.header("content-type") == "application/cloudevents+json"
        assert request.header("webhook-id") == "d-1"
        assert request.header("accept-encoding") == "identity"
        assert request.header("cookie") is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(http_receiver: HttpReceiver, status: int) -> None:
    with HttpReceiver() as target:
        http_receiver.always("/hook", redirect(target.url("/"), status))
        answer = await post(http_receiver.url("/hook"))
        assert isinstance(answer, Answer)
        assert answer.status == status
        assert target.requests == []


async def test_no_proxy_is_asked(http_receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with HttpReceiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(""))
        assert isinstance(await post(http_receiver.url("/hook")), Answer)
        assert proxy.requests == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1", "[64:ff9b::7f00:1]"]
)
async def test_a_literal_address_is_judged_before_it_is_dialled(host: str, http_receiver: HttpReceiver) -> None:
    answer = await post(f"http://{host}:{http_receiver.port}/hook", AddressPolicy())
    assert isinstance(answer, Silence)
    assert answer.why is Why.DENIED
    assert http_receiver.requests == []


@pytest.mark.parametrize("odd", ["127.1", "0x7f000001", "2130706433", "0177.0.0.1"])
async def test_b31_odd_notations_are_never_dialled(odd: str, http_receiver: HttpReceiver) -> None:
    answer = await post(f"http://{odd}:{http_receiver.port}/hook", AddressPolicy())
    assert isinstance(answer, Silence)
    assert http_receiver.requests == []


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["169.254.169.254"],
        ["93.184.215.14", "127.0.0.1"],
        ["fd00:ec2::254"],
        ["0.0.0.0"],
    ],
)
async def test_a_name_is_judged_by_all_its_addresses(addresses: list[str], http_receiver: HttpReceiver) -> None:
    names = Names(intranat_example=[addresses])
    answer = await post(f"https://intranat.example:{http_receiver.port}/hook", AddressPolicy(), resolver=names)
    assert isinstance(answer, Silence)
    assert (answer.why, names.asked) == (Why.DENIED, ["intranat.example"])
    assert http_receiver.requests == []


async def test_a_name_that_is_rebound_is_judged_at_each_look_up(http_receiver: HttpReceiver) -> None:
    """First to an address that the settings allow, then to the metadata service."""
    names = Names(intranat_example=[["127.0.0.1"], ["169.254.169.254"]])
    url = f"http://intranat.example:{http_receiver.port}/hook"
    assert isinstance(await post(url, resolver=names), Answer)
    answer = await post(url, resolver=names)
    assert isinstance(answer, Silence)
    assert answer.why is Why.DENIED
    assert len(http_receiver.requests) == 1


async def test_the_socket_itself_is_guarded(http_receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even were a look-up's answers waved through, no socket is made for a denied address."""

    async def careless(self: Dialler, origin: Origin) -> list[AddrInfoType]:
        return await self._resolver.look_up(origin.host, origin.port)

    monkeypatch.setattr(Dialler, "addresses", careless)
    for addresses in (["127.0.0.1"], ["127.0.0.1", "127.0.0.2"], ["127.0.0.1", "::1"]):
        names = Names(intranat_example=[addresses])
        answer = await post(f"https://intranat.example:{http_receiver.port}/hook", AddressPolicy(), resolver=names)
        assert isinstance(answer, Silence)
        assert answer.why is Why.DENIED
    assert http_receiver.requests == []


async def test_http_to_a_public_address_is_not_dialled() -> None:
    answer = await post("http://intranat.example:8080/", resolver=Names(intranat_example=[["93.184.215.14"]]))
    assert isinstance(answer, Silence)
    assert answer.why is Why.DENIED


async def test_a_name_that_is_not_there() -> None:
    answer = await post("http://intranat.example/", resolver=Names())
    assert isinstance(answer, Silence)
    assert answer.why is Why.LOOK_UP


async def test_a_closed_port(free_port: int) -> None:
    answer = await post(f"http://127.0.0.1:{free_port}/")
    assert isinstance(answer, Silence)
    assert answer.why is Why.CONNECT


async def test_a_server_that_says_nothing(http_receiver: HttpReceiver) -> None:
    http_receiver.always("/hook", HANG)
    began = time.monotonic()
    answer = await post(http_receiver.url("/hook"), timeout_s=0.5)
    assert isinstance(answer, Silence)
    assert answer.why is Why.TIMEOUT
    assert time.monotonic() - began < 3


async def test_a_server_that_hangs_up(http_receiver: HttpReceiver) -> None:
    http_receiver.always("/hook", CUT)
    answer = await post(http_receiver.url("/hook"))
    assert isinstance(answer, Silence)
    assert answer.why is Why.BROKEN


async def test_headers_that_drip_end_with_the_timeout() -> None:
    async with raw_server(b"HTTP/1.1 200 OK\r\n", for_ever=b"x-drip: 1\r\n", pause=0.05) as url:
        began = time.monotonic()
        answer = await post(url, timeout_s=0.7)
    assert isinstance(answer, Silence)
    assert answer.why is Why.TIMEOUT
    assert time.monotonic() - began < 3


async def test_a_body_that_drips_takes_nothing_from_the_status(http_receiver: HttpReceiver) -> None:
    http_receiver.always("/hook", drip(200, pause=0.05))
    began = time.monotonic()
    answer = await post(http_receiver.url("/hook"), timeout_s=0.7)
    assert isinstance(answer, Answer)
    assert answer.status == 200
    assert answer.body.startswith(b".")
    assert time.monotonic() - began < 3


async def test_a_body_without_end_is_read_to_its_limit() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with raw_server(b"HTTP/1.1 500 Oj\r\n\r\n", for_ever=b"x" * 65536) as url:
        began = time.monotonic()
        answer = await post(url)
    assert isinstance(answer, Answer)
    assert answer.status == 500
    assert 65_000 < len(answer.body) <= 65_536  # its headers count too
    assert time.monotonic() - began < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


async def test_a_gzip_bomb_stays_packed() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
    async with raw_server(head, bomb) as url:
        answer = await post(url)
    assert isinstance(answer, Answer)
    assert len(answer.body) <= 65536
    assert answer.body.startswith(b"\x1f\x8b")


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000 + b"\r\n",
        b"HTTP/1.1 200 " + b"O" * 1_000_000 + b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"\x00\xff" * 100,
        b"",
    ],
    ids=["long header", "many headers", "long reason", "ssh", "status", "lengths", "header", "noise", "nothing"],
)
async def test_what_is_no_http_is_no_answer(said: bytes) -> None:
    async with raw_server(said) as url:
        answer = await post(url)
    assert isinstance(answer, Silence)
    assert answer.why is Why.BROKEN


async def test_interim_answers_without_end_are_left() -> None:
    async with raw_server(for_ever=b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100) as url:
        began = time.monotonic()
        answer = await post(url, timeout_s=1)
    assert isinstance(answer, Silence)
    assert time.monotonic() - began < 5


async def test_a_broken_body_takes_nothing_from_the_status() -> None:
    async with raw_server(b"HTTP/1.1 201 OK\r\nContent-Length: 500\r\n\r\nhalf") as url:
        answer = await post(url)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (201, b"half")


async def test_tls_with_an_authority_of_ones_own(certificate_authority: CertificateAuthority, tmp_path: Path) -> None:
    pem = str(certificate_authority.write(tmp_path / "authority.pem"))
    names = Names(intranat_example=[["127.0.0.1"]])
    with HttpReceiver(tls_context=certificate_authority.server_context("intranat.example")) as receiver:
        answer = await post(f"https://intranat.example:{receiver.port}/hook", ca_file=pem, resolver=names)
        assert isinstance(answer, Answer)
        assert receiver.requests[0].header("host") == f"intranat.example:{receiver.port}"


@pytest.mark.parametrize("fault", ["unknown authority", "other name", "expired", "no TLS"])
async def test_tls_that_cannot_be_trusted(
    fault: str, certificate_authority: CertificateAuthority, tmp_path: Path
) -> None:
    pem = "" if fault == "unknown authority" else str(certificate_authority.write(tmp_path / "authority.pem"))
    name = "other.example" if fault == "other name" else "intranat.example"
    context: ssl.SSLContext | None = certificate_authority.server_context(name, expired=fault == "expired")
    with HttpReceiver(tls_context=None if fault == "no TLS" else context) as receiver:
        names = Names(intranat_example=[["127.0.0.1"]])
        answer = await post(f"https://intranat.example:{receiver.port}/hook", ca_file=pem, resolver=names)
        assert isinstance(answer, Silence)
        assert answer.why is Why.TLS
        assert receiver.requests == []


@asynccontextmanager
async def lasting_server(answer: bytes) -> AsyncIterator[tuple[str, list[int]]]:
    """A server that says `answer` to each request and keeps the line; yields its URL, and how many came on each line."""
    served: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        place = len(served)
        served.append(0)
        while True:
            await reader.readuntil(BODY)
            served[place] += 1
            writer.write(answer)

    async with server(serve) as url:
        yield url, served


async def test_a_line_is_kept_for_the_next_webhook() -> None:
    async with lasting_server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK") as (url, served), client() as opened:
        for _ in range(3):
            answer = await opened.post(url, HEADERS, BODY)
            assert isinstance(answer, Answer)
            assert answer.body == b"OK"
        assert served == [3]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500 Oj\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["one answer too many", "close", "HTTP/1.0"],
)
async def test_a_line_that_may_not_be_used_again_is_not(answer: bytes) -> None:
    async with lasting_server(answer) as (url, served), client() as opened:
        for _ in range(2):
            said = await opened.post(url, HEADERS, BODY)
            assert isinstance(said, Answer)
            assert said.status == 200
        assert served == [1, 1]


async def test_a_server_that_speaks_unasked_is_hung_up_on() -> None:
    """What comes between two webhooks must not be taken for the answer to the second."""
    speak = asyncio.Event()
    lines: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append(writer)
        await reader.readuntil(BODY)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        if len(lines) == 1:
            await speak.wait()
            writer.write(b"HTTP/1.1 204 No\r\n\r\n")
        await reader.read()

    async with server(serve) as url, client() as opened:
        await opened.post(url, HEADERS, BODY)
        speak.set()
        await eventually(lambda: not opened._resting)
        answer = await opened.post(url, HEADERS, BODY)
        assert isinstance(answer, Answer)
        assert (answer.status, len(lines)) == (200, 2)


async def test_no_more_lines_rest_than_may_be_in_use(http_receiver: HttpReceiver) -> None:
    with HttpReceiver() as one, HttpReceiver() as two:
        async with client(connections=2) as opened:
            for receiver in (http_receiver, one, two):
                assert isinstance(await opened.post(receiver.url("/hook"), HEADERS, BODY), Answer)
            assert [origin.port for origin in opened._resting.values()] == [one.port, two.port]


async def test_a_webhook_that_is_called_off_leaves_no_line_behind(http_receiver: HttpReceiver) -> None:
    http_receiver.script("/hook", HANG)
    async with client(connections=1) as opened:
        task = asyncio.create_task(opened.post(http_receiver.url("/hook"), HEADERS, BODY))
        await eventually(lambda: http_receiver.requests)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not opened._resting
        assert isinstance(await opened.post(http_receiver.url("/hook"), HEADERS, BODY), Answer)


@pytest.mark.parametrize("path", ["a b", "a\r\nx: y", "å", "a\x7f"])
async def test_a_path_that_could_say_more_is_not_sent(path: str, http_receiver: HttpReceiver) -> None:
    answer = await post(http_receiver.url(f"/{path}"))
    assert isinstance(answer, Silence)
    assert http_receiver.requests == []


async def test_a_slow_server_holds_up_no_other(http_receiver: HttpReceiver) -> None:
    http_receiver.always("/slow", HANG)
    async with client(timeout_s=3, connections=8) as opened:
        slow = [asyncio.create_task(opened.post(http_receiver.url("/slow"), HEADERS, BODY)) for _ in range(4)]
        began = time.monotonic()
        for _ in range(20):
            assert isinstance(await opened.post(http_receiver.url("/fast"), HEADERS, BODY), Answer)
        assert time.monotonic() - began < 2
        assert all(isinstance(answer, Silence) for answer in await asyncio.gather(*slow))
