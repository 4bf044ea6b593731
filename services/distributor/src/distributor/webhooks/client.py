"""Posts one webhook to a server that nobody vouches for, and comes back in time whatever that server does.

Promises: the address that is really dialled is one that the policy allows (names are looked up once, every answer is
judged, and the socket for an address is only made after the address was judged again, so that no rebinding name slips
through); no redirect is followed, no cookie kept, no proxy asked; the whole exchange ends within the timeout; at most
64 kB of an answer are read and none of it is unpacked. TLS is verified.

It returns an `Answer` when the server said a status, else a `Silence` that says why not; it raises for neither.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache, partial
from types import TracebackType
from typing import Any, Self

from aiohttp import (
    AddrInfoType,
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientConnectorSSLError,
    ClientError,
    ClientOSError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    ServerDisconnectedError,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from distributor.webhooks.addresses import ALLOWING, AddressPolicy, Reach

MAX_READ = 64 * 1024
READ_BUFFER = 16 * 1024
"""The transport is paused at twice this, so that a server that pours cannot fill our memory."""

RECEIVE_BUFFER = 16 * 1024
"""Of the socket. A flood of interim answers (1xx) is parsed a buffer at a time: a small one lets others have a turn."""

MAX_HEADER_LINE = 4096
MAX_HEADERS = 64

CONNECT_S = 10.0
REPLY_S = 5.0
"""How long the body of an answer is waited for: the status, which decides, is known by then."""

KEEP_ALIVE_S = 4.0
"""Shorter than common servers' own five seconds: a connection that closes as we use it costs a retry."""

KEPT_URLS = 4096
"""Addresses that are kept taken apart."""

LOOK_UP_THREADS = 16
"""Look-ups block a thread for as long as a name server is silent; these are nobody else's threads."""

USER_AGENT = "Budkavle/1 (+https://www.standardwebhooks.com)"


class AddressDenied(OSError):
    """The policy refused an address. An `OSError`, since that is what connectors expect and hand on."""

    def __init__(self, reach: Reach) -> None:
        mend = f" and {ALLOWING} does not name its network" if reach is Reach.PRIVATE else ""
        super().__init__(f"url_not_allowed: the address is {reach}{mend}")


class Why(StrEnum):
    """Why there was no answer."""

    DENIED = "url_not_allowed"
    LOOK_UP = "look_up_failed"
    CONNECT = "connection_failed"
    TLS = "tls_failed"
    TIMEOUT = "timeout"
    BROKEN = "broken_answer"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said. `body` is its first 64 kB at most, as they came."""

    status: int
    body: bytes
    retry_after: str | None
    duration: timedelta


@dataclass(frozen=True, slots=True)
class Silence:
    """The server said no status. `detail` is for a person."""

    why: Why
    detail: str
    duration: timedelta


class CheckedResolver(AbstractResolver):
    """Looks names up by `inner` and refuses a name if any of its addresses is denied."""

    def __init__(self, inner: AbstractResolver, policy: AddressPolicy, *, encrypted: bool) -> None:
        self._inner = inner
        self._policy = policy
        self._encrypted = encrypted

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for result in found:
            _refuse_denied(result["host"], self._policy, encrypted=self._encrypted)
        return found

    async def close(self) -> None:
        """`inner` is closed by whoever made it."""


class SystemResolver(AbstractResolver):
    """The machine's own resolver, on threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOK_UP_THREADS, thread_name_prefix="webhook-look-up")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _look_up, host, port, family)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class BoundedAnswer(ResponseHandler):
    """aiohttp's end of a connection, given no more than `MAX_READ` of one answer: headers and interim answers (1xx),
    of which a server may send any number, included. Then the line is hung up; a status that came before stands.
    """

    _left = MAX_READ

    def set_response_params(self, **told: Any) -> None:
        """A request goes out: an answer begins."""
        self._left = MAX_READ
        super().set_response_params(**told)

    def data_received(self, data: bytes) -> None:
        given = data[: self._left]
        self._left -= len(given)
        super().data_received(given)
        if not self._left and self.transport is not None:
            self.transport.abort()


class BoundedConnector(TCPConnector):
    """Connections whose answers are bounded. aiohttp has no setting for it."""

    def __init__(self, **told: Any) -> None:
        super().__init__(**told)
        self._factory = partial(BoundedAnswer, loop=asyncio.get_running_loop())  # type: ignore[assignment]


class WebhookClient:
    """Connections are kept and shared; make one client, close it at the end."""

    def __init__(
        self,
        policy: AddressPolicy,
        *,
        timeout_s: float = 15,
        ca_file: str = "",
        connections: int = 32,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._policy = policy
        self._timeout_s = timeout_s
        self._ca_file = ca_file
        self._connections = connections
        self._resolver = resolver or SystemResolver()
        self._sessions: dict[bool, ClientSession] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()
        await self._resolver.close()

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Answer | Silence:
        """Post `body` to `url`, which `checked_url` passed once."""
        started = time.perf_counter()
        try:
            return await self._exchange(_parsed(url), headers, body, started)
        except (TimeoutError, ClientError, OSError, ValueError) as error:
            why, detail = explained(error)
            return Silence(why, detail, _since(started))

    async def _exchange(self, url: URL, headers: dict[str, str], body: bytes, started: float) -> Answer:
        session = self._session(encrypted=url.scheme == "https")
        clock = asyncio.get_running_loop()
        deadline = clock.time() + self._timeout_s
        async with asyncio.timeout_at(deadline):
            response = await session.post(url, data=body, headers=headers, allow_redirects=False)
        async with response:
            said = await _first_bytes(response, until=min(deadline, clock.time() + REPLY_S))
            return Answer(response.status, said, response.headers.get("Retry-After"), _since(started))

    def _session(self, *, encrypted: bool) -> ClientSession:
        """One session for https and one for http: without TLS the policy is narrower."""
        if encrypted not in self._sessions:
            self._sessions[encrypted] = ClientSession(
                connector=self._connector(encrypted=encrypted),
                timeout=ClientTimeout(total=None, sock_connect=min(CONNECT_S, self._timeout_s)),
                cookie_jar=DummyCookieJar(),
                headers={"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"},
                auto_decompress=False,
                trust_env=False,
                read_bufsize=READ_BUFFER,
                max_line_size=MAX_HEADER_LINE,
                max_field_size=MAX_HEADER_LINE,
                max_headers=MAX_HEADERS,
            )
        return self._sessions[encrypted]

    def _connector(self, *, encrypted: bool) -> TCPConnector:
        def checked_socket(info: AddrInfoType) -> socket.socket:
            family, kind, proto, _, address = info
            _refuse_denied(str(address[0]), self._policy, encrypted=encrypted)
            made = socket.socket(family, kind, proto)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            return made

        return BoundedConnector(
            resolver=CheckedResolver(self._resolver, self._policy, encrypted=encrypted),
            socket_factory=checked_socket,
            ssl=_tls(self._ca_file),
            limit=self._connections,
            keepalive_timeout=KEEP_ALIVE_S,
        )


async def _first_bytes(response: ClientResponse, *, until: float) -> bytes:
    """The beginning of the answer's body. A body that drips, breaks off or never ends takes nothing from its status."""
    if response.content.is_eof():  # all of it came with its status: the usual "OK"
        return response.content.read_nowait()[:MAX_READ]
    said = bytearray()
    with contextlib.suppress(TimeoutError, ClientError, OSError):
        async with asyncio.timeout_at(until):
            while len(said) < MAX_READ:
                piece = await response.content.read(MAX_READ - len(said))
                if not piece:
                    return bytes(said)
                said += piece
    response.close()  # whatever else it has to say is not for us; the connection cannot be used again
    return bytes(said)


CAUSES: tuple[tuple[type[Exception], Why, str], ...] = (
    (ConnectionTimeoutError, Why.TIMEOUT, "the connection was not accepted in time"),
    (TimeoutError, Why.TIMEOUT, "no answer in time"),
    (ClientConnectorDNSError, Why.LOOK_UP, "the name cannot be looked up"),
    (ClientConnectorCertificateError, Why.TLS, "the certificate was not accepted"),
    (ClientConnectorSSLError, Why.TLS, "TLS failed"),
    (ClientConnectorError, Why.CONNECT, "no connection"),
    (ServerDisconnectedError, Why.BROKEN, "the connection was closed without an answer"),
    (ClientOSError, Why.BROKEN, "the connection broke off"),
)
"""From the narrow to the wide: the first that fits explains."""


def explained(error: Exception) -> tuple[Why, str]:
    """What went wrong, as one of ours and in words."""
    cause = getattr(error, "os_error", None) or getattr(error, "certificate_error", None)
    if isinstance(cause, AddressDenied):
        return Why.DENIED, str(cause)
    for kind, why, words in CAUSES:
        if isinstance(error, kind):
            return why, f"{words}: {cause}" if cause else words
    return Why.BROKEN, f"the answer is no HTTP that we understand ({type(error).__name__})"


@lru_cache(KEPT_URLS)
def _parsed(url: str) -> URL:
    return URL(url, encoded=True)


def _refuse_denied(address: str, policy: AddressPolicy, *, encrypted: bool) -> None:
    denied = policy.denial(address, encrypted=encrypted)
    if denied is not None:
        raise AddressDenied(denied)


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[AddrInfoType]:
    return list(socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG))


def _tls(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return context


def _since(started: float) -> timedelta:
    return timedelta(seconds=time.perf_counter() - started)
