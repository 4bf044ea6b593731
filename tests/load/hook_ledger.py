"""A distributor's ledger with webhooks due, and what it takes to send them: for the bench of webhooks."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

from sqlalchemy import func, insert, select, update

import distributor
from distributor import ledger
from distributor.delivery import DeliveryWorker
from distributor.ledger import deliveries
from distributor.settings import DistributorSettings
from distributor.webhooks import endpoints
from distributor.webhooks.sending import WebhookSender, new_client, seal_of
from shared.clock import SystemClock
from shared.contracts.mail import Form, SubjectKind
from shared.contracts.news import Audience, ItemSnapshot, ItemState, Kind, Locale
from shared.database import Database
from shared.migrations import upgrade

CLOCK = SystemClock()
MIGRATIONS = Path(distributor.__file__).parent / "migrations"
TEXT = "Samordningsförbundet i Kalmar län har under året följt hur insatserna når fram. " * 8


class HookLedger:
    """One database with `count` endpoints at a receiver."""

    def __init__(self, database_url: str) -> None:
        upgrade(MIGRATIONS, database_url)
        self.settings = DistributorSettings(
            database_url=database_url, broker_url="embedded:x", secret_keys="k" * 40, webhook_allow_loopback=True
        )
        self.database = Database(database_url)

    async def register(self, base: str, count: int) -> list[UUID]:
        seal, at = seal_of(self.settings), CLOCK.now()
        async with self.database.transaction() as session:
            return [
                await endpoints.register(session, _endpoint(f"{base}/hook/{n}"), "", seal=seal, at=at)
                for n in range(count)
            ]

    async def plan(self, endpoint_ids: Sequence[UUID], items: int) -> None:
        """So many new items for each endpoint, due now, one after the other."""
        async with self.database.transaction() as session:
            for _ in range(items):
                at = CLOCK.now()
                item = snapshot(at)
                await ledger.note_revision(session, item.item_id, 1, withdrawn=False)
                await ledger.keep_content(
                    session, subject_kind=SubjectKind.ITEM, subject_id=item.item_id, revision=1, item=item, at=at
                )
                rows = [ledger.webhook_row(item.item_id, 1, endpoint, Form.NEWS, at, at) for endpoint in endpoint_ids]
                await session.execute(insert(deliveries), rows)

    async def drain(self, in_flight: int) -> None:
        """Send all that is due by one worker, until the last outcome is on disk; so many requests at a time."""
        client = new_client(self.settings, connections=in_flight)
        sender = WebhookSender(self.settings, self.database, CLOCK, client)
        stop = asyncio.Event()
        worker = asyncio.create_task(DeliveryWorker(sender, self.database, CLOCK, self.settings).run(stop))
        try:
            while await self._unsent():
                await asyncio.sleep(0.05)
        finally:
            stop.set()
            await worker

    async def _unsent(self) -> bool:
        async with self.database.reading() as session:
            left = select(deliveries.c.id).where(deliveries.c.state != "sent").limit(1)
            return await session.scalar(left) is not None

    async def begin_again(self) -> None:
        """Everything is due once more."""
        async with self.database.transaction() as session:
            again = update(deliveries).values(state="planned", next_attempt_at=deliveries.c.planned_at)
            await session.execute(again)

    async def count(self) -> int:
        async with self.database.reading() as session:
            return await session.scalar(select(func.count()).select_from(deliveries)) or 0


def snapshot(at: datetime | None = None) -> ItemSnapshot:
    """An item whose webhook has 2 kB."""
    at = at or datetime.now(UTC)
    return ItemSnapshot(
        item_id=uuid4(),
        revision=1,
        kind=Kind.NEWS,
        state=ItemState.PUBLISHED,
        language=Locale.SV,
        title="Fler vägar tillbaka till arbete",
        lead="Samordningsförbundet redovisar årets resultat.",
        body_html=f"<p>{TEXT}</p>",
        body_text=TEXT,
        slug="fler-vagar",
        url="https://forbundet.example/nyheter/fler-vagar",
        audiences=(Audience.AGENCY_OFFICIAL,),
        published_at=at,
        revised_at=at,
    )


def _endpoint(url: str) -> dict[str, object]:
    return {
        "name": "Insidan",
        "organisation": "Nybro kommun",
        "url": url,
        "contact_email": "webb@nybro.example",
        "audiences": ["agency_official"],
        "municipalities": [],
        "topics": [],
    }
