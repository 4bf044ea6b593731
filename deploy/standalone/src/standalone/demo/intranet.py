"""The demo's intranets: receive webhooks at `/demo/intranet/{name}`, verify them with the reference library, show them.

Each intranet knows its own secret, as a real one would. What does not verify is answered 401, and kept all the same,
so that the page shows it. The newest 200 are kept.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from sqlalchemy import Boolean, Column, Integer, String, Table, delete, func, select
from standardwebhooks import Webhook, WebhookVerificationError

from shared.clock import Clock
from shared.database import Database, Instant
from shared.problems import Problem
from shared.routes import Router
from shared.web.pages import Pages
from standalone.tables import metadata

KEPT = 200
MAX_BODY_BYTES = 1_000_000

received_webhooks = Table(
    "received_webhooks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("received_at", Instant, nullable=False),
    Column("intranet", String(100), nullable=False),
    Column("webhook_id", String(200), nullable=False),
    Column("event_type", String(200), nullable=False),
    Column("title", String(500), nullable=False),
    Column("verified", Boolean, nullable=False),
    Column("reason", String(200), nullable=False),
)

SecretOf = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class ReceivedWebhook:
    """One call as the page shows it. `reason` says why a signature did not verify."""

    received_at: datetime
    intranet: str
    webhook_id: str
    event_type: str
    title: str
    verified: bool
    reason: str


class IntranetLog:
    """What the intranets received."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def keep(self, row: dict[str, Any]) -> None:
        """Write one call down; the oldest makes room."""
        table = received_webhooks
        async with self._database.transaction() as session:
            await session.execute(table.insert().values(row | {"received_at": self._clock.now()}))
            newest = await session.scalar(select(func.max(table.c.id))) or 0
            await session.execute(delete(table).where(table.c.id <= newest - KEPT))

    async def listing(self) -> list[ReceivedWebhook]:
        """All that are kept, newest first."""
        columns = [column for column in received_webhooks.c if column.name != "id"]
        async with self._database.reading() as session:
            rows = await session.execute(select(*columns).order_by(received_webhooks.c.id.desc()))
            return [ReceivedWebhook(**row) for row in rows.mappings()]


def intranet_router(log: IntranetLog, secret_of: SecretOf, pages: Pages) -> Router:
    """The receiver and its page. `secret_of` gives an intranet's secret, or `None` for one that is not known."""
    router = Router(include_in_schema=False)

    @router.get("/demo/intranet")
    async def page(request: Request) -> Response:
        return pages.render(request, "intranet.html", received=await log.listing(), kept=KEPT)

    @router.get("/demo/intranet.json")
    async def for_programs() -> JSONResponse:
        return JSONResponse({"data": jsonable_encoder(await log.listing())})

    @router.post("/demo/intranet/{name}")
    async def receive(request: Request, name: str) -> Response:
        secret = secret_of(name)
        if secret is None:
            raise Problem(404)
        body = await _body(request)
        reason = _refusal(secret, body, dict(request.headers))
        await log.keep(_row(name, request.headers.get("webhook-id", ""), body, reason))
        return Response(status_code=401 if reason else 204)

    return router


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise Problem(413)
    return bytes(body)


def _refusal(secret: str, body: bytes, headers: dict[str, str]) -> str:
    """Why the call is not believed; empty when its signature verifies."""
    try:
        Webhook(secret).verify(body, headers)
    except WebhookVerificationError as error:
        return str(error)
    except ValueError:  # the library lets bad base64 and bad UTF-8 through as they are
        return "Malformed signature or body"
    return ""


def _row(name: str, webhook_id: str, body: bytes, reason: str) -> dict[str, Any]:
    event_type, title = _told(body)
    return {
        "intranet": name[:100],
        "webhook_id": webhook_id[:200],
        "event_type": event_type[:200],
        "title": title[:500],
        "verified": not reason,
        "reason": reason[:200],
    }


def _told(body: bytes) -> tuple[str, str]:
    """The event's type and the item's title, as far as the body holds them; a withdrawal tells no title."""
    try:
        event = json.loads(body)
        return str(event.get("type", "")), str(event.get("data", {}).get("title", ""))
    except (ValueError, AttributeError):
        return "", ""
