"""A receiver of webhooks: an HTTP server that remembers all requests and answers as told.

It runs in a thread of its own; every method may be called from any thread.

    with HttpReceiver() as receiver:
        receiver.script("/hook", 503, 200)          # the first request, then the second; after that 204
        receiver.always("/gone", 410)
        receiver.always("/elsewhere", redirect("http://127.0.0.1:1/"))
"""

import asyncio
import ssl
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from aiohttp import web

from tests.servers.thread import ThreadedServer

BODY_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """How to answer one request. `manner`: all at once; nothing, with the connection open; the connection cut;
    the body drop by drop, a byte every `pause` seconds for ever."""

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    manner: Literal["whole", "hang", "cut", "drip"] = "whole"
    pause: float = 0.2


HANG = Answer(manner="hang")
CUT = Answer(manner="cut")


def redirect(to: str, status: int = 302) -> Answer:
    return Answer(status, {"Location": to})


def drip(status: int = 200, pause: float = 0.2) -> Answer:
    return Answer(status, manner="drip", pause=pause)


@dataclass(frozen=True)
class ReceivedRequest:
    """One request as it came. `headers` keep the sender's order and case; look up with `header()`."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    received_at: datetime
    status: int | None

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def header_map(self) -> dict[str, str]:
        """Names in lower case, as Standard Webhooks' library wants them."""
        return {key.lower(): value for key, value in self.headers}


class HttpReceiver(ThreadedServer):
    """An HTTP (or, with a `tls_context`, HTTPS) server on loopback that takes any method and path."""

    def __init__(self, *, port: int = 0, tls_context: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.port = port
        self._tls = tls_context
        self._lock = threading.Lock()
        self._requests: list[ReceivedRequest] = []
        self._under_way: Counter[str] = Counter()
        self._most_under_way: Counter[str] = Counter()
        self._scripts: dict[str, list[Answer]] = defaultdict(list)
        self._standing: dict[str, Answer] = {}
        self._default = Answer()
        self._runner: web.ServerRunner | None = None

    def url(self, path: str = "/") -> str:
        return f"{'http' if self._tls is None else 'https'}://{self.host}:{self.port}{path}"

    @property
    def requests(self) -> list[ReceivedRequest]:
        """All, in the order in which their bodies were complete."""
        with self._lock:
            return list(self._requests)

    def requests_to(self, path: str) -> list[ReceivedRequest]:
        return [request for request in self.requests if request.path == path]

    def most_under_way(self, path: str) -> int:
        """How many requests to it were there at one time at most."""
        with self._lock:
            return self._most_under_way[path]

    def script(self, path: str, *answers: int | Answer) -> None:
        """One answer a request, in this order; then what `always` or `by_default` says."""
        with self._lock:
            self._scripts[path].extend(map(_answer, answers))

    def always(self, path: str, answer: int | Answer) -> None:
        with self._lock:
            self._standing[path] = _answer(answer)

    def by_default(self, answer: int | Answer) -> None:
        with self._lock:
            self._default = _answer(answer)

    async def _open(self) -> None:
        self._runner = web.ServerRunner(
            web.Server(self._counted, handler_cancellation=True), handle_signals=False, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, ssl_context=self._tls, backlog=512)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _close(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _counted(self, request: web.BaseRequest) -> web.StreamResponse:
        with self._lock:
            self._under_way[request.path] += 1
            self._most_under_way |= self._under_way
        try:
            return await self._receive(request)
        finally:
            with self._lock:
                self._under_way[request.path] -= 1

    async def _receive(self, request: web.BaseRequest) -> web.StreamResponse:
        request._client_max_size = BODY_LIMIT
        body = await request.read()
        answer = self._noted(request, body)
        if answer.manner == "whole":
            return web.Response(status=answer.status, headers=answer.headers, body=answer.body or None)
        if answer.manner == "drip":
            return await _dripped(request, answer)
        if answer.manner == "hang":
            await asyncio.Event().wait()
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    def _noted(self, request: web.BaseRequest, body: bytes) -> Answer:
        with self._lock:
            script = self._scripts[request.path]
            answer = script.pop(0) if script else self._standing.get(request.path, self._default)
            self._requests.append(
                ReceivedRequest(
                    method=request.method,
                    path=request.path,
                    headers=tuple(request.headers.items()),
                    body=body,
                    received_at=datetime.now(UTC),
                    status=None if answer.manner in ("hang", "cut") else answer.status,
                )
            )
            return answer


def _answer(answer: int | Answer) -> Answer:
    return Answer(answer) if isinstance(answer, int) else answer


async def _dripped(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    await response.prepare(request)
    while True:
        await response.write(b".")
        await asyncio.sleep(answer.pause)
