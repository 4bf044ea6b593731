"""A fan-out survives what may happen to it: crashes, replays, corrections, withdrawals, another worker beside it."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, update
from tests.integration.subscriptions.conftest import NOON, confirm_all, emitted, make_item, run_dry

from shared.clock import FixedClock
from shared.contracts.envelope import Envelope, Event
from shared.contracts.news import Audience, ItemSnapshot, Locale, NewsCorrected, NewsPublished, NewsWithdrawn
from shared.database import Database
from shared.ids import new_id
from shared.messaging.bus import Ack, Incoming
from shared.messaging.outbox import outbox
from shared.service import Service
from shared.tokens import TokenSigner
from subscriptions import fanouts
from subscriptions.addresses import parse
from subscriptions.fanout import FanoutWorker, record
from subscriptions.links import Links
from subscriptions.models import Organisation, Role, Subscriber
from subscriptions.people import role_values
from subscriptions.subscribing import values_of

DESKS, READERS = 3, 25


class TickingClock(FixedClock):
    """Each look is a millisecond later, so that events have an order."""

    def now(self) -> datetime:
        self.advance(timedelta(milliseconds=1))
        return super().now()


@pytest.fixture
def clock() -> FixedClock:
    return TickingClock(NOON)


@pytest.fixture
async def crowd(database: Database) -> set[str]:
    """Three desks and twenty-five public readers; their ids."""
    paper = new_id()
    people: list[dict[str, Any]] = []
    roles: list[dict[str, Any]] = []
    for number in range(DESKS + READERS):
        key = new_id()
        people.append({"id": key, **values_of(parse(f"p{number}@kalmar.example"), "", Locale.SV, NOON)})
        is_desk = number < DESKS
        roles.append(role_values(key, Audience.NEWSROOM if is_desk else Audience.PUBLIC, paper if is_desk else None))
    async with database.transaction() as session:
        row = {"id": paper, "kind": "newsroom", "name": "Barometern", "name_key": "barometern", "created_at": NOON}
        await session.execute(insert(Organisation), [{**row, "municipalities": frozenset()}])
        await session.execute(insert(Subscriber), people)
        await session.execute(insert(Role), roles)
    return {str(row["id"]) for row in people}


@pytest.fixture
def make_worker(database: Database, clock: FixedClock) -> Callable[..., FanoutWorker]:
    links = Links("https://nyheter.example", TokenSigner(["k" * 40]))
    return lambda size=4: FanoutWorker(database, clock, links, batch_size=size)


async def publish(database: Database, item: ItemSnapshot) -> None:
    async with database.transaction() as session:
        await record(session, item, NOON)


async def receive(service: Service, event: Event) -> None:
    """The event as the bus would bring it."""
    envelope = Envelope.wrap(
        event, event_id=new_id(), source="/budkavle/content", subject="item", time=NOON, correlation_id="c-1"
    )
    consumer = service.consumers[0]
    answer = await consumer.receive(Incoming(str(envelope.id), envelope.model_dump_json().encode(), 1))
    assert isinstance(answer, Ack)


async def planned(database: Database) -> Counter[str]:
    """How often each recipient was planned."""
    batches = await emitted(database, "mail.requested")
    return Counter(recipient["recipient_id"] for batch in batches for recipient in batch.data["recipients"])


async def completed(database: Database) -> list[dict[str, Any]]:
    return [envelope.data for envelope in await emitted(database, "fanout.completed")]


async def test_everybody_is_in_one_batch_of_at_most_the_size(
    crowd: set[str], make_worker: Callable[..., FanoutWorker], database: Database
) -> None:
    await publish(database, make_item("newsroom", "public"))
    await run_dry(make_worker(4), database)
    assert await planned(database) == Counter(crowd)
    batches = await emitted(database, "mail.requested")
    assert max(len(batch.data["recipients"]) for batch in batches) <= 4
    assert batches[0].data["form"] == "press"  # newsrooms first
    [done] = await completed(database)
    assert [(total["audience"], total["planned"]) for total in done["totals"]] == [("newsroom", 3), ("public", 25)]
    assert done["cut_short"] is False


async def test_a_crash_after_any_step_skips_nobody_and_repeats_nobody(
    crowd: set[str], make_worker: Callable[..., FanoutWorker], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second transaction dies after all its writes, right before the commit."""
    await publish(database, make_item("newsroom", "public"))
    true_move_on = fanouts.move_on
    steps = 0

    async def dying_move_on(*args: Any, **kwargs: Any) -> None:
        nonlocal steps
        steps += 1
        await true_move_on(*args, **kwargs)
        if steps % 2:
            raise asyncio.CancelledError

    monkeypatch.setattr(fanouts, "move_on", dying_move_on)
    for _ in range(100):
        try:  # a new process each time
            await run_dry(make_worker(4), database)
            break
        except asyncio.CancelledError:
            continue
    assert steps > 12
    assert await planned(database) == Counter(crowd)
    assert [done["totals"][1]["planned"] for done in await completed(database)] == [READERS]


async def test_published_twice_is_carried_out_once(
    crowd: set[str], service: Service, worker: FanoutWorker, database: Database
) -> None:
    item = make_item("public")
    await receive(service, NewsPublished(item=item))
    await run_dry(worker, database)
    await receive(service, NewsPublished(item=item))
    await run_dry(worker, database)
    assert set((await planned(database)).values()) == {1}
    assert len(await completed(database)) == 1


async def test_two_workers_share_without_a_repeat(
    crowd: set[str], make_worker: Callable[..., FanoutWorker], database: Database
) -> None:
    items = [make_item("newsroom", "public") for _ in range(3)]
    for item in items:
        await publish(database, item)
    workers = [make_worker(3), make_worker(3)]
    stop = asyncio.Event()
    running = [asyncio.create_task(one.run(stop)) for one in workers]

    async def all_done() -> bool:
        await confirm_all(database)
        return len(await completed(database)) == 3

    for _ in range(600):
        if await all_done():
            break
        await asyncio.sleep(0.02)
    stop.set()
    await asyncio.gather(*running)
    by_item: Counter[tuple[str, str]] = Counter(
        (batch.data["subject_id"], recipient["recipient_id"])
        for batch in await emitted(database, "mail.requested")
        for recipient in batch.data["recipients"]
    )
    assert by_item == Counter((str(item.item_id), person) for item in items for person in crowd)


async def test_completed_only_when_the_broker_has_everything(
    crowd: set[str], make_worker: Callable[..., FanoutWorker], database: Database
) -> None:
    await publish(database, make_item("public"))
    worker = make_worker(10)
    while await worker.advance():
        pass
    assert await completed(database) == []
    batches = await emitted(database, "mail.requested")
    async with database.transaction() as session:  # all but the last are confirmed
        confirmed = [batch.id for batch in batches[:-1]]
        await session.execute(update(outbox).where(outbox.c.id.in_(confirmed)).values(published_at=NOON))
    assert await worker.advance() is False
    await confirm_all(database)
    await run_dry(worker, database)
    assert len(await completed(database)) == 1


async def test_confirmed_rows_that_were_purged_count_as_confirmed(
    crowd: set[str], make_worker: Callable[..., FanoutWorker], database: Database
) -> None:
    await publish(database, make_item("public"))
    worker = make_worker(10)
    while await worker.advance():
        pass
    async with database.transaction() as session:
        await session.execute(outbox.delete())
    await run_dry(worker, database)
    assert [done["totals"][0]["planned"] for done in await completed(database)] == [READERS]


async def test_planning_waits_for_the_relay(
    crowd: set[str], make_worker: Callable[..., FanoutWorker], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subscriptions.fanout.AHEAD", 5)
    await publish(database, make_item("public"))
    worker = make_worker(2)
    while await worker.advance():
        pass
    assert len(await emitted(database, "mail.requested")) == 5
    await confirm_all(database)
    while await worker.advance():
        pass
    assert len(await emitted(database, "mail.requested")) == 10


async def test_a_correction_under_way_is_carried_on_with(
    crowd: set[str], make_worker: Callable[..., FanoutWorker], service: Service, database: Database
) -> None:
    item = make_item("public")
    await receive(service, NewsPublished(item=item))
    worker = make_worker(10)
    while not await emitted(database, "mail.requested"):
        await worker.advance()
    corrected = make_item("public", item_id=item.item_id, revision=2, state="corrected", title="Rättad")
    await receive(service, NewsCorrected(item=corrected, note="Siffran var fel."))
    await receive(service, NewsPublished(item=item))  # redelivered late
    await run_dry(worker, database)
    batches = await emitted(database, "mail.requested")
    assert [batch.data["revision"] for batch in batches] == [1, 2, 2]
    assert batches[-1].data["item"]["title"] == "Rättad"
    assert set((await planned(database)).values()) == {1}
    [done] = await completed(database)
    assert (done["revision"], done["totals"][0]["planned"], done["cut_short"]) == (2, READERS, False)


async def test_a_correction_that_came_first_is_what_goes_out(
    crowd: set[str], worker: FanoutWorker, service: Service, database: Database
) -> None:
    item = make_item("public")
    corrected = make_item("public", item_id=item.item_id, revision=2, state="corrected")
    await receive(service, NewsCorrected(item=corrected, note="Siffran var fel."))
    await run_dry(worker, database)
    assert await emitted(database) == []
    await receive(service, NewsPublished(item=item))
    await run_dry(worker, database)
    assert {batch.data["revision"] for batch in await emitted(database, "mail.requested")} == {2}


async def test_a_withdrawal_under_way_ends_it(
    crowd: set[str], make_worker: Callable[..., FanoutWorker], service: Service, database: Database
) -> None:
    item = make_item("newsroom", "public")
    await receive(service, NewsPublished(item=item))
    worker = make_worker(10)
    while not await emitted(database, "mail.requested"):
        await worker.advance()
    withdrawn = make_item("newsroom", "public", item_id=item.item_id, revision=2, state="withdrawn")
    await receive(service, NewsWithdrawn(item=withdrawn, reason="Fel underlag."))
    await run_dry(worker, database)
    assert sum((await planned(database)).values()) == DESKS
    [done] = await completed(database)
    assert done["cut_short"] is True
    assert [(total["audience"], total["planned"]) for total in done["totals"]] == [("newsroom", 3), ("public", 0)]


async def test_a_withdrawal_that_came_first_lets_nothing_out(
    crowd: set[str], worker: FanoutWorker, service: Service, database: Database
) -> None:
    item = make_item("public")
    withdrawn = make_item("public", item_id=item.item_id, revision=2, state="withdrawn")
    await receive(service, NewsWithdrawn(item=withdrawn, reason="Fel underlag."))
    await receive(service, NewsPublished(item=item))
    await run_dry(worker, database)
    assert await emitted(database, "mail.requested") == []
    [done] = await completed(database)
    assert (done["cut_short"], done["totals"]) == (True, [{"audience": "public", "planned": 0, "excluded": 0}])


async def test_newsrooms_of_a_new_item_pass_the_public_of_an_old_one(
    crowd: set[str], make_worker: Callable[..., FanoutWorker], database: Database
) -> None:
    worker = make_worker(5)
    await publish(database, make_item("public"))
    while not await emitted(database, "mail.requested"):
        await worker.advance()
    async with database.transaction() as session:
        await record(session, urgent := make_item("newsroom"), NOON + timedelta(seconds=1))
    await worker.advance()
    assert (await emitted(database, "mail.requested"))[-1].data["subject_id"] == str(urgent.item_id)


async def test_a_faulty_fanout_holds_up_no_other(
    crowd: set[str],
    make_worker: Callable[..., FanoutWorker],
    database: Database,
    clock: FixedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faulty, sound = make_item("public"), make_item("public")
    async with database.transaction() as session:
        await record(session, faulty, NOON - timedelta(minutes=1))
        await record(session, sound, NOON)
    true_newest = fanouts.newest

    async def newest(session: Any, item_id: UUID) -> ItemSnapshot:
        if item_id == faulty.item_id:
            raise ValueError("unreadable")
        return await true_newest(session, item_id)

    monkeypatch.setattr(fanouts, "newest", newest)
    worker = make_worker(500)
    await run_dry(worker, database)
    assert [done["item_id"] for done in await completed(database)] == [str(sound.item_id)]
    monkeypatch.setattr(fanouts, "newest", true_newest)
    clock.advance(timedelta(minutes=2))
    await run_dry(worker, database)
    assert len(await completed(database)) == 2


async def test_links_and_date_are_the_same_however_often_they_are_made(
    crowd: set[str], make_worker: Callable[..., FanoutWorker], database: Database, clock: FixedClock
) -> None:
    for item in (make_item("newsroom"), make_item("newsroom")):
        await publish(database, item)
        clock.advance(timedelta(hours=1))
        await run_dry(make_worker(2), database)
    batches = await emitted(database, "mail.requested")
    assert {batch.data["planned_at"] for batch in batches} == {"2026-05-12T10:00:00Z"}
    links: dict[str, set[str]] = {}
    for batch in batches:
        for recipient in batch.data["recipients"]:
            assert recipient["one_click_url"] == recipient["unsubscribe_url"]
            assert recipient["preferences_url"].startswith("https://nyheter.example/prenumeration/")
            assert recipient["unsubscribe_url"].startswith("https://nyheter.example/avregistrera/")
            links.setdefault(recipient["recipient_id"], set()).add(recipient["unsubscribe_url"])
    assert all(len(found) == 1 for found in links.values())
    assert len({link for found in links.values() for link in found}) == DESKS
