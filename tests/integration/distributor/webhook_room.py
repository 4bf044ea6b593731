"""A distributor whose webhooks really go out: a ledger, its workers, an API and a receiver."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2
from aiohappyeyeballs import AddrInfoType
from sqlalchemy import func, select, update
from tests.eventually import eventually
from tests.integration.distributor.conftest import Room, snapshot

from distributor.app import build
from distributor.delivery import DeliveryWorker
from distributor.follow_ups import FollowUpWorker
from distributor.ledger import attempts, contents, deliveries
from distributor.settings import DistributorSettings
from distributor.webhooks.care import EndpointCareWorker
from distributor.webhooks.contact_mail import ContactMail
from distributor.webhooks.links import EndpointLinks
from distributor.webhooks.sending import WebhookSender
from shared.clock import Clock, FixedClock, SystemClock
from shared.contracts.news import ItemSnapshot, NewsPublished
from shared.database import Database
from shared.ids import new_id
from shared.tokens import TokenSigner

ADMIN = "a" * 40
URL = "/api/distributor/v1/endpoints"
CLOCK = SystemClock()
QUICK = 1e-6
"""Scales 75 hours to a quarter of a second."""


def settings_for(database_url: str, **changes: Any) -> DistributorSettings:
    fields: dict[str, Any] = {
        "database_url": database_url,
        "broker_url": "embedded:x",
        "secret_keys": "k" * 40,
        "admin_key": ADMIN,
        "public_url": "https://forbundet.example",
        "webhook_allow_loopback": True,
        "webhook_timeout_s": 5,
        "retry_scale": QUICK,
    }
    return DistributorSettings(**{**fields, **changes})


def found(address: str, port: int) -> AddrInfoType:
    """An address as a look-up gives it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))


@dataclass
class HookRoom:
    """Endpoints are made by the API, items by events; `sending` runs senders."""

    settings: DistributorSettings
    room: Room
    api: httpx2.AsyncClient
    secrets: dict[UUID, str] = field(default_factory=dict)
    replicas: list[Database] = field(default_factory=list)
    """Of the senders that run now."""

    @property
    def database(self) -> Database:
        return self.room.database

    async def endpoint(self, url: str, **more: Any) -> UUID:
        wanted = {"name": "Insidan", "organisation": "Nybro", "url": url, "contact_email": "webb@nybro.example"}
        answer = await self.api.post(URL, json={**wanted, **more})
        assert answer.status_code == 201, answer.text
        key = UUID(answer.json()["id"])
        self.secrets[key] = answer.json()["secret"]
        return key

    def stranger(self) -> httpx2.AsyncClient:
        """Somebody without a key."""
        return httpx2.AsyncClient(transport=self.api._transport, base_url=self.settings.public_url)

    async def shown(self, key: UUID) -> dict[str, Any]:
        answer = await self.api.get(f"{URL}/{key}")
        assert answer.status_code == 200
        return dict(answer.json())

    async def enable(self, key: UUID) -> None:
        answer = await self.api.patch(f"{URL}/{key}", json={"state": "enabled"}, headers={"If-Match": "*"})
        assert answer.status_code == 200

    async def publish(self, count: int = 1) -> list[ItemSnapshot]:
        items = [snapshot(new_id()) for _ in range(count)]
        for item in items:
            await self.room.hear(NewsPublished(item=item))
        return items

    @asynccontextmanager
    async def sending(self, replicas: int = 1) -> AsyncIterator[None]:
        """Senders run; each has a database of its own, as another process has."""
        stop, databases = asyncio.Event(), [Database(self.settings.database_url) for _ in range(replicas)]
        self.replicas = databases
        senders = [WebhookSender(self.settings, database, CLOCK) for database in databases]
        workers = [
            DeliveryWorker(sender, database, CLOCK, self.settings)
            for sender, database in zip(senders, databases, strict=True)
        ]
        followers = [FollowUpWorker(database, CLOCK) for database in databases]
        tasks = [asyncio.create_task(worker.run(stop)) for worker in (*workers, *followers)]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)
            for database in databases:
                await database.dispose()

    async def settled(self, *, within: float = 30) -> None:
        """Until no webhook is due or under way.

        The senders are woken meanwhile, as by commits: what comes due by the clock alone they find once a second.
        """

        async def none_left() -> bool:
            for database in self.replicas:
                database.wake()
            async with self.database.reading() as session:
                open_ = deliveries.c.state.in_(["planned", "leased", "deferred", "uncertain"])
                query = select(deliveries.c.id).where(open_, deliveries.c.channel == "webhook").limit(1)
                return await session.scalar(query) is None

        await eventually(none_left, within=within)

    async def states(self) -> dict[str, int]:
        async with self.database.reading() as session:
            query = select(deliveries.c.state, func.count().label("total")).where(deliveries.c.channel == "webhook")
            rows = (await session.execute(query.group_by(deliveries.c.state))).all()
        return {row.state: row.total for row in rows}

    async def tried(self) -> list[Any]:
        async with self.database.reading() as session:
            return list((await session.execute(select(attempts).order_by(attempts.c.number))).all())

    async def care(self, *, later: timedelta = timedelta(0)) -> None:
        """The sweeper looks until there is nothing to do, perhaps some days from now."""
        worker = care_worker(self.settings, self.database, FixedClock(CLOCK.now() + later))
        while await worker.step():
            pass

    async def mails(self) -> list[tuple[str, str, str]]:
        """Mails to contacts that are planned: address, subject, all words and the link."""
        async with self.database.reading() as session:
            query = (
                select(deliveries.c.address, deliveries.c.lane, deliveries.c.form, contents.c.request)
                .join(contents, contents.c.subject_id == deliveries.c.subject_id)
                .where(deliveries.c.channel == "mail")
                .order_by(deliveries.c.created_at)
            )
            rows = (await session.execute(query)).all()
        assert all((row.lane, row.form) == (0, "endpoint") for row in rows)
        return [(row.address, row.request["subject"], json.dumps(row.request, ensure_ascii=False)) for row in rows]

    async def all_mails_become(self, state: str) -> None:
        """What the receivers' servers say of each."""
        async with self.database.transaction() as session:
            await session.execute(update(deliveries).where(deliveries.c.channel == "mail").values(state=state))

    async def subjects(self) -> Sequence[str]:
        return [subject for _, subject, _ in await self.mails()]


def care_worker(settings: DistributorSettings, database: Database, clock: Clock = CLOCK) -> EndpointCareWorker:
    keys = [key.get_secret_value() for key in settings.secret_keys]
    links = EndpointLinks(settings.public_url, TokenSigner(keys))
    return EndpointCareWorker(database, clock, ContactMail(links, settings.office_address))


@asynccontextmanager
async def opened(database_url: str, **changes: Any) -> AsyncIterator[HookRoom]:
    settings = settings_for(database_url, **changes)
    service = build(settings)
    room = Room(database_url, settings, service.database)
    transport = httpx2.ASGITransport(app=service.app)
    headers = {"Authorization": f"Bearer {ADMIN}"}
    async with httpx2.AsyncClient(transport=transport, base_url="https://forbundet.example", headers=headers) as api:
        yield HookRoom(settings, room, api)
    await service.database.dispose()
