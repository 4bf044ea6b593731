"""Posts one webhook to a server that nobody vouches for, and comes back in time whatever that server does.

Promises: the address that is really dialled is one that the policy allows (`dialling`); no redirect is followed, no
cookie kept, no proxy asked; the whole exchange ends within the timeout; at most 64 kB of an answer are read and none
of it is unpacked (`exchange`). TLS is verified.

It returns an `Answer` when the server said a status, else a `Silence` that says why not; it raises for neither.
"""

import asyncio
import ssl
import time
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from types import TracebackType
from typing import NamedTuple, Self

from yarl import URL

from distributor.webhooks.addresses import AddressPolicy
from distributor.webhooks.dialling import AddressDenied, Dialler, LookUpFailed, Origin, Resolver, SystemResolver
from distributor.webhooks.exchange import Broken, Line
from distributor.webhooks.own_headers import NONE, OwnHeaders

CONNECT_S = 10.0

KEEP_ALIVE_S = 4.0
"""Shorter than common servers' own five seconds: a connection that closes as we use it costs a retry."""

KEPT_URLS = 4096
"""Addresses that are kept taken apart."""

USER_AGENT = "Budkavle/1 (+https://www.standardwebhooks.com)"
USUAL_PORTS = {True: 443, False: 80}


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


class Target(NamedTuple):
    """A URL taken apart: whom to dial, and how each request begins."""

    origin: Origin
    opening: str


class NotConnected(TimeoutError):
    """The server took too long to accept the connection."""


class WebhookClient:
    """Connections are kept and shared; make one client, close it at the end. `connections` are in use at most, and as
    many more may rest.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        *,
        timeout_s: float = 15,
        ca_file: str = "",
        connections: int = 32,
        resolver: Resolver | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._connections = connections
        self._resolver = resolver or SystemResolver()
        self._dialler = Dialler(policy, self._resolver, ca_file)
        self._places = asyncio.Semaphore(connections)
        self._resting: dict[Line, Origin] = {}
        self._at_rest: dict[Origin, list[Line]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        resting = list(self._resting)
        for line in resting:
            line.hang_up()
        await asyncio.gather(*(line.lost for line in resting))
        self._resolver.close()

    async def post(self, url: str, headers: dict[str, str], body: bytes, own: OwnHeaders = NONE) -> Answer | Silence:
        """Post `body` to `url`, which `checked_url` passed once; `headers` are ours, `own` the endpoint's."""
        async with self._places:
            started = time.perf_counter()
            try:
                target = taken_apart(url)
                return await self._exchange(target.origin, request(target, headers, body, own), started)
            except (TimeoutError, LookUpFailed, Broken, OSError, ValueError) as error:
                why, detail = explained(error)
                return Silence(why, detail, _since(started))

    async def _exchange(self, origin: Origin, said: bytes, started: float) -> Answer:
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        line = self._rested(origin) or await self._dial(origin, deadline)
        try:
            answer = await line.ask(said, deadline)
            retry_after = answer.retry_after.decode("latin-1") if answer.retry_after is not None else None
            return Answer(answer.status, answer.body, retry_after, _since(started))
        finally:
            self._leave(line, origin)

    async def _dial(self, origin: Origin, deadline: float) -> Line:
        async with asyncio.timeout_at(deadline):
            addresses = await self._dialler.addresses(origin)
        try:
            async with asyncio.timeout_at(min(deadline, asyncio.get_running_loop().time() + CONNECT_S)):
                return await self._dialler.dial(origin, addresses, lambda: Line(self._forget))
        except TimeoutError as error:
            raise NotConnected from error

    # Connections at rest

    def _rested(self, origin: Origin) -> Line | None:
        """The one that was used last: the others may go."""
        lines = self._at_rest.get(origin)
        if not lines:
            return None
        line = lines[-1]
        self._forget(line)
        return line

    def _leave(self, line: Line, origin: Origin) -> None:
        if not line.reusable:
            line.hang_up()
            return
        if len(self._resting) >= self._connections:
            next(iter(self._resting)).hang_up()
        self._resting[line] = origin
        self._at_rest.setdefault(origin, []).append(line)
        line.rest(asyncio.get_running_loop().time() + KEEP_ALIVE_S)

    def _forget(self, line: Line) -> None:
        origin = self._resting.pop(line, None)
        if origin is None:
            return
        lines = self._at_rest[origin]
        lines.remove(line)
        if not lines:
            del self._at_rest[origin]


CAUSES: tuple[tuple[type[Exception], Why, str], ...] = (
    (AddressDenied, Why.DENIED, ""),
    (LookUpFailed, Why.LOOK_UP, "the name cannot be looked up"),
    (NotConnected, Why.TIMEOUT, "the connection was not accepted in time"),
    (TimeoutError, Why.TIMEOUT, "no answer in time"),
    (Broken, Why.BROKEN, ""),
    (ssl.SSLCertVerificationError, Why.TLS, "the certificate was not accepted"),
    (ssl.SSLError, Why.TLS, "TLS failed"),
    (OSError, Why.CONNECT, "no connection"),
)
"""From the narrow to the wide: the first that fits explains."""


def explained(error: Exception) -> tuple[Why, str]:
    """What went wrong, as one of ours and in words."""
    for kind, why, words in CAUSES:
        if isinstance(error, kind):
            return why, ": ".join(part for part in (words, str(error)) if part)
    return Why.BROKEN, f"the address cannot be dialled ({type(error).__name__})"


@lru_cache(KEPT_URLS)
def taken_apart(url: str) -> Target:
    """`url` as it is dialled; raises `ValueError` for what could say more than one request line."""
    parsed = URL(url, encoded=True)
    host, port, path = parsed.raw_host or "", parsed.port or 0, parsed.raw_path_qs
    named = f"[{host}]" if ":" in host else host
    if not (host + path).isascii() or not (host + path).isprintable() or " " in host + path:
        raise ValueError(url)
    encrypted = parsed.scheme == "https"
    where = named if port == USUAL_PORTS[encrypted] else f"{named}:{port}"
    opening = (
        f"POST {path} HTTP/1.1\r\nHost: {where}\r\nUser-Agent: {USER_AGENT}\r\n"
        "Accept: */*\r\nAccept-Encoding: identity\r\n"
    )
    return Target(Origin(host, port, encrypted), opening)


def request(target: Target, headers: dict[str, str], body: bytes, own: OwnHeaders = NONE) -> bytes:
    """All that is said; `headers` are ours, never a caller's, and what a caller may add is in `own`."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return f"{target.opening}{own.lines}{lines}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body


def _since(started: float) -> timedelta:
    return timedelta(seconds=time.perf_counter() - started)
