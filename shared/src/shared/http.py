"""The HTTP habits of every service: problems, correlation, strict JSON, security headers, sessions, health.

A request is one transaction: `Writing` commits when the path function has returned and before the answer is sent, so
that a 2xx means that it is on disk. `Reading` never writes.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request, Response
from prometheus_client import Histogram
from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import admission, problems
from shared.clock import Clock
from shared.correlation import accepted, correlated
from shared.database import Database
from shared.openapi import Application
from shared.rates import Rates
from shared.routes import EVERY_PATH_NEEDS, operation_name
from shared.settings import Settings
from shared.strict_json import StrictJsonMiddleware
from shared.uploads import UPLOADS_AT_ONCE

CORRELATION_HEADER = "x-correlation-id"

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' https: data:; font-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "interest-cohort=()",
}

request_seconds = Histogram("budkavle_http_request_seconds", "Time to answer", ["service", "method", "route", "status"])


class RequestModel(BaseModel):
    """Base of request bodies: unknown fields are refused, so that nobody sets what is not theirs to set. Texts come as
    they were sent: what trims them is `shared.plain_text.TRIMMED`, after the limits that a schema tells of.
    """

    model_config = ConfigDict(extra="forbid")


def create_app(service: str, title: str, *, settings: Settings, database: Database, clock: Clock) -> Application:
    """A FastAPI application with the house's habits; `state` holds settings, database and clock."""
    app = Application(
        title=title,
        version="1.0.0",
        openapi_url=f"/api/{service}/openapi.json",
        docs_url=None,
        redoc_url=None,
        strict_content_type=True,
        dependencies=EVERY_PATH_NEEDS,
        generate_unique_id_function=operation_name,
    )
    app.state.service = service
    app.state.settings = settings
    app.state.database = database
    app.state.clock = clock
    app.state.rates = Rates(settings.requests_per_key)
    app.state.uploads = asyncio.Semaphore(UPLOADS_AT_ONCE)
    problems.install(app)
    app.add_middleware(StrictJsonMiddleware)
    app.add_middleware(EdgeMiddleware, service=service)
    return app


class EdgeMiddleware:
    """Correlation id in and out, security headers, the time that a request took."""

    def __init__(self, app: ASGIApp, *, service: str) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        trail = accepted(headers.get(CORRELATION_HEADER.encode()), headers.get(b"traceparent"))
        began_at = time.perf_counter()
        answered = False

        async def send_with_headers(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                _add_headers(message, trail.correlation_id, scope["path"])
                self._observe(scope, message["status"], time.perf_counter() - began_at)
            await send(message)

        with correlated(trail):
            try:
                refused = admission.refusal(scope)
                await (problems.response(refused) if refused else self._app)(scope, receive, send_with_headers)
            except Exception as error:
                if answered:
                    problems.tell_crash(Request(scope, receive), error)
                    raise
                await _answer_crash(error, scope, receive, send_with_headers)

    def _observe(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        request_seconds.labels(self._service, scope["method"], route, str(status)).observe(seconds)


async def _answer_crash(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer here what Starlette would answer outside of us, without headers and without the correlation id."""
    handler = scope["app"].exception_handlers[Exception]
    response: Response = await handler(Request(scope, receive), error)
    await response(scope, receive, send)


def _add_headers(message: Message, correlation_id: str, path: str) -> None:
    headers = MutableHeaders(scope=message)
    headers[CORRELATION_HEADER] = correlation_id
    if message["status"] == 307:
        headers["location"] = _on_this_site(headers["location"])
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)
    if path.startswith("/api/"):
        headers.setdefault("Cache-Control", "no-store")  # names and addresses, for who holds a key


def _on_this_site(location: str) -> str:
    """The framework leads to an address without its slash by the Host that the caller claims: that is left out."""
    return "/" + location.partition("//")[2].partition("/")[2].lstrip("/")


async def _writing(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.app.state.database.transaction() as session:
        yield session


async def _reading(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.app.state.database.reading() as session:
        yield session


# scope="function": leave the block when the path function has returned, not after the answer went out.
Writing = Annotated[AsyncSession, Depends(_writing, scope="function")]
Reading = Annotated[AsyncSession, Depends(_reading, scope="function")]

NoStore = Callable[[Response], Awaitable[None]]


async def no_store(response: Response) -> None:
    """A dependency for pages behind a personal link: kept by no cache, told to no other site, found by no engine."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Robots-Tag"] = "noindex, nofollow"
