"""The service on a migrated database, SQLite and PostgreSQL in turn, with a clock that stands still."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from httpx2 import ASGITransport, AsyncClient, Response
from sqlalchemy import select, update
from tests.servers.migrated import migrated_sqlite

from shared.clock import FixedClock
from shared.contracts.envelope import Envelope
from shared.contracts.news import Audience, ItemSnapshot, ItemState, Kind, Locale
from shared.database import Database
from shared.ids import new_id
from shared.messaging.outbox import outbox
from shared.service import Service
from subscriptions.app import build
from subscriptions.fanout import FanoutWorker
from subscriptions.settings import SubscriptionsSettings

NOON = datetime(2026, 5, 12, 10, 0, tzinfo=UTC)
ADMIN = "admin-key-of-the-tests"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return migrated_sqlite("subscriptions", tmp_path)
    return str(request.getfixturevalue("postgres_database")("subscriptions"))


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOON)


@pytest.fixture
async def service(database_url: str, clock: FixedClock) -> AsyncIterator[Service]:
    settings = SubscriptionsSettings(
        database_url=database_url,
        broker_url="embedded:unused",
        secret_keys=("k" * 40,),
        public_url="https://nyheter.example",
        admin_key=ADMIN,
    )
    service = build(settings, clock)
    yield service
    await service.database.dispose()


@pytest.fixture
def database(service: Service) -> Database:
    return service.database


class Browser(AsyncClient):
    """Keeps cookies and follows where a link leads, as browsers do."""

    async def get(self, url: Any, **options: Any) -> Response:
        return await super().get(url, **{"follow_redirects": True, **options})


@pytest.fixture
async def reader(service: Service) -> AsyncIterator[AsyncClient]:
    """A reader's browser: no key."""
    async with Browser(transport=ASGITransport(service.app), base_url="https://nyheter.example") as client:
        yield client


@pytest.fixture
async def office(service: Service) -> AsyncIterator[AsyncClient]:
    """The office's program: the admin key."""
    transport = ASGITransport(service.app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {ADMIN}"}
    async with AsyncClient(transport=transport, base_url="https://nyheter.example", headers=headers) as client:
        yield client


@dataclass
class Register:
    """Fills the register through the API, and remembers ids by name."""

    office: AsyncClient
    places: dict[str, UUID] = field(default_factory=dict)

    async def organisation(self, kind: str, name: str, *municipalities: str) -> str:
        body = {"kind": kind, "name": name, "municipalities": list(municipalities)}
        return await self._created("/organisations", body)

    async def group(self, name: str, *municipalities: str) -> str:
        return await self._created("/groups", {"name": name, "municipalities": list(municipalities)})

    async def person(self, address: str, *roles: dict[str, Any], **more: Any) -> str:
        return await self._created("/subscribers", {"address": address, "roles": list(roles), **more})

    async def change(self, subscriber_id: str, **patch: Any) -> dict[str, Any]:
        answer = await self.office.patch(
            f"/api/subscriptions/v1/subscribers/{subscriber_id}", json=patch, headers={"If-Match": "*"}
        )
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def _created(self, path: str, body: dict[str, Any]) -> str:
        answer = await self.office.post(f"/api/subscriptions/v1{path}", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])


@pytest.fixture
def register(office: AsyncClient) -> Register:
    return Register(office)


def make_item(*audiences: str, revision: int = 1, state: str = "published", **fields: Any) -> ItemSnapshot:
    values: dict[str, Any] = {
        "item_id": new_id(),
        "revision": revision,
        "kind": Kind.NEWS,
        "state": ItemState(state),
        "language": Locale.SV,
        "title": "Ny samverkan i Kalmar",
        "lead": "Fler får stöd tillbaka till arbete.",
        "body_html": "<p>Text</p>",
        "body_text": "Text",
        "slug": "ny-samverkan",
        "url": "https://nyheter.example/nyheter/ny-samverkan",
        "audiences": tuple(Audience(audience) for audience in audiences),
        "published_at": NOON,
        "revised_at": NOON,
    }
    return ItemSnapshot(**{**values, **fields})


async def emitted(database: Database, name: str = "") -> list[Envelope]:
    """The events in the outbox, oldest first."""
    async with database.reading() as session:
        bodies = await session.scalars(select(outbox.c.body).order_by(outbox.c.created_at, outbox.c.id))
        envelopes = [Envelope.model_validate_json(body) for body in bodies]
    return [envelope for envelope in envelopes if name in envelope.type]


async def confirm_all(database: Database) -> int:
    """What the relay does once the broker has confirmed."""
    async with database.transaction() as session:
        done = update(outbox).where(outbox.c.published_at.is_(None)).values(published_at=NOON)
        return (await session.execute(done)).rowcount


async def run_dry(worker: FanoutWorker, database: Database) -> None:
    """Let the worker and the relay work until neither finds anything."""
    while True:
        moved = await worker.advance()
        confirmed = await confirm_all(database)
        if not moved and not confirmed:
            return


@pytest.fixture
def worker(service: Service) -> FanoutWorker:
    found = service.workers[0]
    assert isinstance(found, FanoutWorker)
    return found
