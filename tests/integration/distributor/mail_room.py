"""A distributor whose mail really goes out, on a clock that the test may move: a ledger, its worker, a relay.

The balance is drawn from what the mail server saw: who should have a mail against who has, and how often.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import structlog
from sqlalchemy import make_url, select, text, update
from tests.eventually import eventually
from tests.integration.distributor.conftest import Room, batch, people, snapshot
from tests.servers.postfix import SmtpSink
from tests.servers.smtp import SmtpServer
from tests.unit.distributor import mail_examples

from distributor import delivery
from distributor.leases import sender_leases
from distributor.mail.sending import MailSender
from distributor.progress import ProgressWorker
from shared.contracts.delivery import Channel, DeliveryProgress
from shared.contracts.mail import Lane
from shared.contracts.news import ItemSnapshot
from shared.database import Database
from shared.messaging.outbox import outbox

DATABASES = ("sqlite", "postgresql")
CONNECTIONS, PIPELINE = 4, 2
LONGEST_JITTER = 1.2
BATCH = 500

MOVABLE = """
CREATE SCHEMA travel;
CREATE TABLE travel.clock (ahead interval NOT NULL);
INSERT INTO travel.clock VALUES ('0');
CREATE FUNCTION travel.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS 'SELECT pg_catalog.clock_timestamp() + ahead FROM travel.clock';
ALTER DATABASE "{name}" SET search_path = travel, pg_catalog, public
"""
"""PostgreSQL tells the time itself; a function of the same name, found first, can be moved."""


class MovedClock:
    """The machine's clock, and as much ahead of it as the test says."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass(frozen=True)
class Copy:
    """One mail that a server read to its final dot."""

    to: str
    message_id: str
    sha256: str


@dataclass
class MailRoom:
    """`sending` runs a worker with a real relay; `go_on` lets time pass."""

    room: Room
    clock: MovedClock

    @asynccontextmanager
    async def sending(self, url: str, **changes: Any) -> AsyncIterator[MailSender]:
        """The worker sends to that relay, with settings changed so."""
        self.room.settings = settings_for(self.room.url, smtp_url=url, **changes)
        sender, stop = MailSender(self.room.settings), asyncio.Event()
        task = asyncio.create_task(self.room.worker(sender).run(stop))
        try:
            yield sender
        finally:
            stop.set()
            await task
            delivery.paused.labels(Channel.MAIL).set(0)

    async def publish(self, addresses: Sequence[str], *, lane: Lane = Lane.NEWS) -> ItemSnapshot:
        """One item to these people."""
        item = snapshot(uuid4())
        for at in range(0, len(addresses), BATCH):
            some = addresses[at : at + BATCH]
            told = (
                person.model_copy(update={"address": address})
                for person, address in zip(people(len(some)), some, strict=True)
            )
            await self.room.hear(batch(item, tuple(told), lane=lane))
        return item

    async def go_on(self, by: timedelta) -> None:
        """So much later. Those who live have renewed their leases meanwhile."""
        ahead = self.clock.ahead + by
        async with self.room.database.transaction() as session:
            for owner, held_until in (await session.execute(select(sender_leases))).all():
                renewed = update(sender_leases).where(sender_leases.c.owner == owner)
                await session.execute(renewed.values(held_until=held_until + by))
            if not self.room.database.is_sqlite:
                await session.execute(text("UPDATE travel.clock SET ahead = :ahead"), {"ahead": ahead})
        self.clock.ahead = ahead
        self.room.database.wake()

    async def states(self) -> dict[str, str]:
        """Every delivery's state by its address."""
        return {row.address: str(row.state) for row in await self.room.rows()}

    async def until(
        self, state: str, addresses: Iterable[str], *, within: float = 20, passing: timedelta = timedelta(0)
    ) -> None:
        """Until all their deliveries are in that state; the clock goes on by `passing` before each look."""
        wanted = dict.fromkeys(addresses, state)

        async def all_so() -> bool:
            if passing:
                await self.go_on(passing)
            states = await self.states()
            assert {address: states[address] for address in wanted} == wanted
            return True

        await eventually(all_so, within=within)

    async def until_tried(self, times: int, addresses: Iterable[str]) -> None:
        """Until each of their deliveries has counted so many tries."""

        async def all_tried() -> bool:
            rows = await self.room.rows()
            return {row.attempts for row in rows if row.address in addresses} == {times}

        await eventually(all_tried, within=20)

    async def progress(self, item: ItemSnapshot) -> list[DeliveryProgress]:
        """What content is told of it when it is counted now."""
        await ProgressWorker(self.room.database, self.clock).tell(item.item_id)
        async with self.room.database.reading() as session:
            rows = (await session.execute(outbox.select().where(outbox.c.routing_key == "delivery.progress"))).all()
        return [DeliveryProgress.model_validate(json.loads(row.body)["data"]) for row in rows]

    async def told_bounces(self) -> int:
        """How many addresses the others were told to suppress, each once."""
        async with self.room.database.reading() as session:
            rows = (await session.execute(outbox.select().where(outbox.c.routing_key == "delivery.bounced"))).all()
        bounces = [json.loads(row.body)["data"] for row in rows]
        assert all(bounce["kind"] == "hard" for bounce in bounces)
        return len({bounce["recipient_id"] for bounce in bounces})


def settings_for(database_url: str, **changes: Any) -> Any:
    told = {
        "database_url": database_url,
        "smtp_connections": CONNECTIONS,
        "smtp_pipeline": PIPELINE,
        "smtp_timeout_s": 5,
        "smtp_dot_timeout_s": 5,
    }
    return mail_examples.settings(**(told | changes))


@asynccontextmanager
async def opened(database_url: str) -> AsyncIterator[MailRoom]:
    clock = MovedClock()
    if not database_url.startswith("sqlite"):
        await _let_it_be_moved(database_url)
    database = Database(database_url, clock=clock)
    yield MailRoom(Room(database_url, settings_for(database_url), database, clock=clock), clock)
    await database.dispose()


async def _let_it_be_moved(database_url: str) -> None:
    database = Database(database_url)
    async with database.transaction() as session:
        for statement in MOVABLE.format(name=make_url(database_url).database).split(";\n"):
            await session.execute(text(statement.replace(":", "\\:")))
    await database.dispose()


def copies(server: SmtpServer | SmtpSink) -> list[Copy]:
    """All that came to a final dot."""
    if isinstance(server, SmtpSink):
        return [Copy(mail.recipients[0], mail.message_id, mail.sha256) for mail in server.mails]
    mails = [(mail, mail.content) for mail in server.mails]
    return [
        Copy(mail.recipients[0], mail_examples.parsed(data).message_id, hashlib.sha256(data).hexdigest())
        for mail, data in mails
    ]


def check_balance(seen: Iterable[Copy], expected: Iterable[str], *, each_at_most: int = 1) -> int:
    """Nobody lost, nobody unexpected; repeats only where allowed, and then the same to the byte. Gives their number."""
    by_address: dict[str, list[Copy]] = {}
    for one in seen:
        by_address.setdefault(one.to, []).append(one)
    assert set(by_address) == set(expected)
    assert all(len(same) <= each_at_most for same in by_address.values())
    assert all(len(set(same)) == 1 for same in by_address.values()), "a repeat must be the same mail"
    return sum(len(same) - 1 for same in by_address.values())


def spread(*values: Any, rare: Sequence[Any] = ()) -> list[Any]:
    """Parameters with the database first: each value on one of the two, in turn; the other, and what is rare, for
    `make soak`."""

    def case(database: str, value: Any, *marks: Any) -> Any:
        told = value if isinstance(value, tuple) else (value,)
        words = " ".join(" ".join(part) if isinstance(part, tuple) else str(part) for part in told[:2])
        return pytest.param(database, *told, id=f"{database} {words}"[:60], marks=marks)

    soak = pytest.mark.soak
    quick = [case(DATABASES[number % 2], value) for number, value in enumerate(values)]
    other = [case(DATABASES[1 - number % 2], value, soak) for number, value in enumerate(values)]
    return quick + other + [case(database, value, soak) for value in rare for database in DATABASES]


def said(logs: Sequence[Any], event: str) -> list[Any]:
    return [line for line in logs if line["event"] == event]


def addresses(count: int, domain: str = "kommun.example") -> list[str]:
    return [f"person{number}@{domain}" for number in range(count)]


capture_logs = structlog.testing.capture_logs
