"""A distributor's ledger on both databases, with the words to feed it and a channel that only remembers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, select, text, update
from tests.servers.migrated import migrated_sqlite

from distributor.channels import Dispatch, Outcome, Sender
from distributor.delivery import DeliveryWorker
from distributor.follow_ups import FollowUpWorker
from distributor.handlers import Handlers
from distributor.ledger import attempts, deliveries
from distributor.recovery import RecoveryWorker
from distributor.retention import RetentionWorker
from distributor.settings import DistributorSettings
from distributor.states import SENT
from distributor.tallies import EXCLUDED, FIELDS, Standing, changes, fold, note, standing_of, tallies
from shared.clock import Clock, SystemClock
from shared.contracts.delivery import Channel
from shared.contracts.envelope import Envelope, Event
from shared.contracts.mail import Form, Lane, MailRequested, Recipient, SubjectKind
from shared.contracts.news import Audience, ItemSnapshot, ItemState, Kind, Locale
from shared.database import Database
from shared.ids import new_id
from shared.messaging.consumer import Received

CLOCK = SystemClock()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A migrated database of the distributor."""
    if request.param == "sqlite":
        return migrated_sqlite("distributor", tmp_path)
    return str(request.getfixturevalue("postgres_database")("distributor"))


Measured = Callable[[str, object], None]


@pytest.fixture
def measured() -> Measured:
    """Tell a figure: `pytest -rP` shows it, and docs/reliability.md is written from it."""
    return lambda what, value: print("measured:", what, value)


class MemorySender:
    """A channel whose receivers do what the test says; remembers every dispatch."""

    def __init__(self, channel: Channel = Channel.MAIL, slots: int = 4) -> None:
        self.channel = channel
        self.slots = slots
        self.bears = 1_000
        self.dispatched: list[Dispatch] = []
        self.answer: Callable[[Dispatch], Outcome] = lambda dispatch: Outcome(SENT, 250, reply="2.0.0 Ok: queued as A1")
        self.hold = asyncio.Event()
        self.hold.set()

    @property
    def room(self) -> int:
        return min(self.slots, self.bears)

    async def send(self, dispatch: Dispatch) -> Outcome:
        self.dispatched.append(dispatch)
        await self.hold.wait()
        await asyncio.sleep(0)
        return self.answer(dispatch)

    async def close(self) -> None:
        return None


@dataclass
class Room:
    """The distributor's ledger, as its neighbours see it."""

    url: str
    settings: DistributorSettings
    database: Database
    handlers: Handlers = field(default_factory=lambda: Handlers(CLOCK))
    sender: MemorySender = field(default_factory=MemorySender)
    clock: Clock = CLOCK

    async def hear(self, event: Event) -> None:
        """One event in one transaction, as the consumer does it."""
        handler = {
            "mail.requested": self.handlers.on_mail_requested,
            "news.published": self.handlers.on_news_published,
            "news.corrected": self.handlers.on_news_corrected,
            "news.withdrawn": self.handlers.on_news_withdrawn,
            "recipient.stopped": self.handlers.on_recipient_stopped,
            "recipient.resumed": self.handlers.on_recipient_resumed,
            "recipient.erased": self.handlers.on_recipient_erased,
        }[event.event_name]
        envelope = Envelope.wrap(
            event, event_id=new_id(), source="/test", subject="x", time=CLOCK.now(), correlation_id="c"
        )
        async with self.database.transaction() as session:
            await handler(session, Received(event, envelope))  # type: ignore[operator]

    def worker(self, sender: Sender | None = None) -> DeliveryWorker:
        return DeliveryWorker(sender or self.sender, self.database, self.clock, self.settings)

    async def drain(self, *, sender: MemorySender | None = None) -> None:
        """Send until nothing is due."""
        stop = asyncio.Event()
        task = asyncio.create_task(self.worker(sender).run(stop))
        await self.quiet()
        stop.set()
        await task

    async def quiet(self) -> None:
        for _ in range(2000):
            async with self.database.reading() as session:
                now = (await session.execute(select(self.database.now()))).scalar_one()
                channel = self.sender.channel
                due = await session.scalar(
                    select(deliveries.c.id).where(deliveries.c.next_attempt_at <= now, deliveries.c.channel == channel)
                )
                leased = await session.scalar(select(deliveries.c.id).where(deliveries.c.state == "leased"))
            if due is None and leased is None:
                return
            await asyncio.sleep(0.005)
        raise AssertionError("the ledger did not come to rest")

    async def follow_up(self) -> None:
        worker = FollowUpWorker(self.database, CLOCK)
        while await worker.step():
            pass

    def recovery(self) -> RecoveryWorker:
        return RecoveryWorker(self.database, CLOCK, self.settings)

    async def kill_senders(self) -> None:
        """As if every sender process had died long enough ago."""
        async with self.database.transaction() as session:
            await session.execute(text("DELETE FROM sender_leases"))

    async def owners(self) -> Sequence[str]:
        """The senders that hold a lease."""
        async with self.database.reading() as session:
            return (await session.scalars(text("SELECT owner FROM sender_leases"))).all()

    async def rows(self, **where: Any) -> list[Any]:
        query = select(deliveries).order_by(deliveries.c.revision, deliveries.c.recipient_id)
        for name, value in where.items():
            query = query.where(deliveries.c[name] == value)
        async with self.database.reading() as session:
            return list((await session.execute(query)).all())

    async def attempts(self) -> list[Any]:
        async with self.database.reading() as session:
            return list((await session.execute(select(attempts))).all())

    async def force(self, **values: Any) -> None:
        """Put every delivery where a test needs it, past all rules."""
        async with self.database.transaction() as session:
            await session.execute(update(deliveries).values(values))
        counted = await self._counted()
        async with self.database.transaction() as session:
            await session.execute(delete(changes))
            await session.execute(delete(tallies).where(tallies.c.state != EXCLUDED))
            await note(session, counted)

    async def _counted(self) -> Counter[Standing]:
        counted: Counter[Standing] = Counter()
        async with self.database.reading() as session:
            for row in await session.execute(select(deliveries)):
                state = (row.leased_from or "planned") if row.state == "leased" else row.state
                if standing := standing_of(row._asdict() | {"state": state}):
                    counted[standing] += 1
        return counted

    async def tallies_are_true(self) -> None:
        """What was noted as it moved is what counting the whole ledger finds: asked after every test."""
        noted: Counter[Standing] = Counter()
        async with self.database.transaction() as session:
            for subject_id in set(await session.scalars(select(changes.c.subject_id))):
                while not await fold(session, subject_id):
                    pass
            for row in await session.execute(select(tallies).where(tallies.c.state != EXCLUDED)):
                noted[Standing(*row[: len(FIELDS)])] += row.count - row.weeded
        assert noted == await self._counted()

    async def states(self) -> list[tuple[int, str, str, str]]:
        return [(row.revision, row.form, row.state, row.ended_reason) for row in await self.rows()]


@pytest.fixture
async def room(database_url: str) -> AsyncIterator[Room]:
    settings = DistributorSettings(
        database_url=database_url, broker_url="embedded:x", secret_keys="k" * 40, retry_scale=0.0001
    )
    database = Database(database_url)
    room = Room(database_url, settings, database)
    yield room
    try:
        await room.tallies_are_true()
    finally:
        await database.dispose()


class Later:
    """A clock that is ahead by so much."""

    def __init__(self, by: timedelta) -> None:
        self._by = by

    def now(self) -> datetime:
        return CLOCK.now() + self._by


def retention_in(room: Room, wait: timedelta) -> RetentionWorker:
    return RetentionWorker(room.database, Later(wait), room.settings)


def snapshot(item_id: UUID, revision: int = 1, state: ItemState = ItemState.PUBLISHED, **changes: Any) -> ItemSnapshot:
    """A published item."""
    fields: dict[str, Any] = {
        "item_id": item_id,
        "revision": revision,
        "kind": Kind.NEWS,
        "state": state,
        "language": Locale.SV,
        "title": "Fler vägar tillbaka till arbete",
        "lead": "Samordningsförbundet redovisar årets resultat.",
        "body_html": "<p>Text</p>",
        "body_text": "Text",
        "slug": "fler-vagar",
        "url": "https://forbundet.example/nyheter/fler-vagar",
        "audiences": (Audience.POLITICIAN, Audience.AGENCY_OFFICIAL),
        "published_at": CLOCK.now(),
        "revised_at": CLOCK.now(),
    }
    return ItemSnapshot(**(fields | changes))


def people(count: int, audience: Audience = Audience.POLITICIAN) -> tuple[Recipient, ...]:
    """Recipients nobody has met before."""
    return tuple(
        Recipient(
            recipient_id=uuid4(),
            address=f"person{number}@kommun.example",
            locale=Locale.SV,
            audience=audience,
            reason="Du får det här eftersom du är ledamot.",
            preferences_url="https://forbundet.example/prenumeration/t",
            unsubscribe_url="https://forbundet.example/avregistrera/t",
            one_click_url="https://forbundet.example/avregistrera/t",
        )
        for number in range(count)
    )


def batch(item: ItemSnapshot, recipients: tuple[Recipient, ...], **changes: Any) -> MailRequested:
    """A batch of an item."""
    fields: dict[str, Any] = {
        "batch_id": uuid4(),
        "subject_kind": SubjectKind.ITEM,
        "subject_id": item.item_id,
        "revision": item.revision,
        "form": Form.NEWS,
        "lane": Lane.NEWS,
        "planned_at": CLOCK.now(),
        "item": item,
        "recipients": recipients,
    }
    return MailRequested(**(fields | changes))
