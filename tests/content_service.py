"""The content service in a test, called over HTTP; its outbox read with what the service did not write."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2
from sqlalchemy import text

from content.app import build
from content.settings import ContentSettings
from shared import keys
from shared.clock import FixedClock
from shared.database import instant
from shared.keys import Scope
from shared.service import Service

SITE = "https://nyheter.example"
START = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)


@dataclass
class Content:
    """A built service with its database migrated, and clients that hold keys."""

    service: Service
    clock: FixedClock
    api: httpx2.AsyncClient
    site: httpx2.AsyncClient

    async def key(self, *scopes: Scope) -> dict[str, str]:
        """Headers with a fresh key."""
        async with self.service.database.transaction() as session:
            key = await keys.create(session, name="test", scopes=scopes, at=START)
        return {"Authorization": f"Bearer {key}"}

    async def present(self) -> datetime:
        """By the clock that decides what is due, and dates what becomes public."""
        async with self.service.database.reading() as session:
            return await instant(session, self.clock)

    async def outbox(self) -> list[dict[str, Any]]:
        """Every event so far, as bare JSON, by revision (the outbox promises no order)."""
        async with self.service.database.reading() as session:
            rows = await session.execute(text("SELECT body FROM outbox"))
            events = [json.loads(bytes(row.body)) for row in rows]
        return sorted(events, key=lambda event: event["data"]["item"]["revision"])

    async def draft(self, **fields: Any) -> dict[str, Any]:
        """A saved draft that is fit to be published."""
        body = {"kind": "news", "title": "Fler får stöd", "audiences": ["public"], **fields}
        answer = await self.api.post("/items", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def published(self, **fields: Any) -> dict[str, Any]:
        """A published item."""
        draft = await self.draft(**fields)
        answer = await self.api.post(f"/items/{draft['id']}/publish")
        assert answer.status_code == 202, answer.text
        return answer.json()

    async def edited(self, item_id: str, **changes: Any) -> dict[str, Any]:
        """The item after an edit of its working copy."""
        etag = (await self.api.get(f"/items/{item_id}")).headers["etag"]
        answer = await self.api.patch(f"/items/{item_id}", json=changes, headers={"If-Match": etag})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def corrected(self, item_id: str, note: str, **changes: Any) -> dict[str, Any]:
        """The item after an edit that was made public."""
        await self.edited(item_id, **changes)
        answer = await self.api.post(f"/items/{item_id}/correct", json={"note": note})
        assert answer.status_code == 202, answer.text
        return answer.json()


@asynccontextmanager
async def running_content(database_url: str) -> AsyncIterator[Content]:
    """The service on a fresh, migrated database."""
    settings = ContentSettings(
        database_url=database_url,
        broker_url="embedded:unused",
        secret_keys="0" * 32,
        admin_key="bootstrap-key-of-the-tests",
        public_url=SITE,
        postal_address="Box 1, 391 20 Kalmar",
        contact_email="press@forbundet.example",
        contact_phone="0480-123 45",
        facebook_url="https://www.facebook.com/forbundet.example",
    )
    clock = FixedClock(START)
    service = build(settings, clock)
    transport = httpx2.ASGITransport(app=service.app)
    bearer = {"Authorization": "Bearer bootstrap-key-of-the-tests"}
    async with (
        httpx2.AsyncClient(transport=transport, base_url=f"{SITE}/api/content/v1", headers=bearer) as api,
        httpx2.AsyncClient(transport=transport, base_url=SITE) as site,
    ):
        yield Content(service, clock, api, site)
    await service.database.dispose()
