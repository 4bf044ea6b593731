"""What the bus may do to events, by the numbers of docs/reliability.md (F21–F25), at the distributor's border: bytes in,
dispatches out."""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import select
from tests.integration.distributor.conftest import CLOCK, Later, Room, batch, people, snapshot
from tests.integration.distributor.test_ledger_deliveries import corrected, withdrawn

from distributor.handlers import Handlers
from shared.contracts.envelope import Envelope, Event
from shared.contracts.mail import Form, MailRequested
from shared.contracts.news import NewsPublished
from shared.database import Database
from shared.messaging import dead_letters
from shared.messaging.bus import Ack, Incoming
from shared.messaging.consumer import Consumer, Received
from shared.messaging.outbox import outbox
from shared.messaging.topology import DISTRIBUTOR_DIGEST, DISTRIBUTOR_NEWS_MAIL

PARKED = ("budkavle_messages_total", {"queue": DISTRIBUTOR_NEWS_MAIL.name, "outcome": "deadletter"})


def written(event: Event, *, age: timedelta = timedelta(0), **changes: Any) -> Incoming:
    """The event as the bus brings it."""
    envelope = Envelope.wrap(
        event, event_id=uuid4(), source="/test", subject="x", time=CLOCK.now() - age, correlation_id="c"
    )
    body = json.dumps(envelope.model_dump(mode="json") | changes).encode()
    return Incoming(str(envelope.id), body, 1)


def consumers(room: Room, database: Database | None = None, ahead: timedelta = timedelta(0)) -> dict[str, Consumer]:
    """One replica's, by the events that they hear."""
    made = Handlers(Later(ahead)).consumers(database or room.database)
    digests_aside = [consumer for consumer in made if consumer.queue.name != DISTRIBUTOR_DIGEST.name]
    return {name: consumer for consumer in digests_aside for name in consumer._routes}


async def bring(replica: dict[str, Consumer], incoming: Incoming) -> None:
    kind = json.loads(incoming.body)["type"]
    assert await replica[kind].receive(incoming) == Ack()


def got(room: Room) -> Counter[tuple[UUID, Form, int]]:
    return Counter((d.recipient_id, d.form, d.content.revision) for d in room.sender.dispatched)


async def test_f21_every_event_comes_three_times_to_two_replicas_at_once(room: Room) -> None:
    item = snapshot(uuid4())
    told = [batch(item, people(20)) for _ in range(3)]
    events = [written(event) for event in (NewsPublished(item=item), *told)]
    other = Database(room.url)
    try:
        replicas = [consumers(room), consumers(room, other)]
        await asyncio.gather(*(bring(replica, event) for event in events for replica in (*replicas, replicas[0])))
        await room.drain()
        await asyncio.gather(*(bring(replica, event) for event in events for replica in replicas))
        await room.drain()
    finally:
        await other.dispose()
    everybody = [person.recipient_id for one in told for person in one.recipients]
    assert got(room) == Counter((who, Form.NEWS, 1) for who in everybody)


@pytest.mark.parametrize("ends", [corrected, withdrawn])
async def test_f22_in_whatever_order_the_newest_revision_has_the_last_word(room: Room, ends: Any) -> None:
    """Each order of an item's publication, its batch and its end; a late first revision sends nothing."""
    expected: Counter[tuple[UUID, Form, int]] = Counter()
    for order in itertools.permutations(range(3)):
        item = snapshot(uuid4())
        told = batch(item, people(2))
        events = (NewsPublished(item=item), ends(item), told)
        for place in order:
            await room.hear(events[place])
        if ends is corrected:
            expected.update((person.recipient_id, Form.NEWS, 2) for person in told.recipients)
    await room.follow_up()
    await room.drain()
    assert got(room) == expected
    await room.hear(events[0])
    await room.hear(told)
    await room.follow_up()
    await room.drain()
    assert got(room) == expected


@pytest.mark.parametrize("age", [timedelta(hours=1), timedelta(days=6)])
async def test_f23_what_comes_late_is_sent_and_its_repeat_never_is(room: Room, age: timedelta) -> None:
    told = written(batch(snapshot(uuid4()), people(3)), age=age)
    for later in (timedelta(0), timedelta(hours=1), timedelta(days=8)):
        await bring(consumers(room, ahead=later), told)
        await room.drain()
    assert set(got(room).values()) == {1}
    assert len(got(room)) == 3


@pytest.mark.parametrize(
    "event", [NewsPublished(item=snapshot(uuid4())), batch(snapshot(uuid4()), people(3))], ids=["news", "batch"]
)
async def test_f23_what_is_too_old_is_parked_and_goes_out_only_by_hand(room: Room, event: Event) -> None:
    await bring(consumers(room), written(event, age=timedelta(days=8)))
    await room.drain()
    assert await room.rows() == []
    (letter,) = await letters(room)
    assert letter["reason"] == "too_old"
    await bring(consumers(room), await replayed(room, letter["id"]))
    await room.drain()
    assert len(room.sender.dispatched) == (3 if isinstance(event, MailRequested) else 0)
    assert await letters(room) == []


async def test_f23_what_takes_something_back_is_never_too_old(room: Room) -> None:
    item = snapshot(uuid4())
    await room.hear(batch(item, people(2)))
    await bring(consumers(room), written(withdrawn(item), age=timedelta(days=30)))
    await room.follow_up()
    await room.drain()
    assert room.sender.dispatched == []
    assert await letters(room) == []


class MailRequestedNext(MailRequested):
    """What a later version of the product may understand."""

    event_version: ClassVar[int] = 2


async def test_f25_a_newer_version_waits_for_the_upgrade_and_then_reaches_everybody(room: Room) -> None:
    told = MailRequestedNext(**batch(snapshot(uuid4()), people(5)).model_dump())
    before = REGISTRY.get_sample_value(*PARKED) or 0
    old = consumers(room)[MailRequested.event_type()]
    assert await old.receive(written(told)) == Ack()
    await room.drain()
    assert room.sender.dispatched == []
    assert (REGISTRY.get_sample_value(*PARKED) or 0) == before + 1  # the alert BudkavleMessagesGivenUp
    (letter,) = await letters(room)
    assert (letter["reason"], letter["event_type"]) == ("unknown_type", "se.budkavle.mail.requested.v2")

    async def understood(session: Any, received: Received[MailRequestedNext]) -> Any:
        return await room.handlers.on_mail_requested(session, received)  # type: ignore[arg-type]

    upgraded = Consumer(DISTRIBUTOR_NEWS_MAIL, room.database, CLOCK, {MailRequestedNext: understood})
    assert await upgraded.receive(await replayed(room, letter["id"])) == Ack()
    await room.drain()
    assert got(room) == Counter((person.recipient_id, Form.NEWS, 1) for person in told.recipients)


async def test_f25_fields_that_are_not_known_yet_are_ignored_at_every_depth(room: Room) -> None:
    item = snapshot(uuid4())
    for event in (NewsPublished(item=item), batch(item, people(2)), corrected(item)):
        incoming = written(event, mood="new", dataschema="https://budkavle.example/events/next")
        widened = _widened(json.loads(incoming.body))
        await bring(consumers(room), Incoming(incoming.message_id, json.dumps(widened).encode(), 1))
    await room.follow_up()
    await room.drain()
    assert await letters(room) == []
    assert [d.content.revision for d in room.sender.dispatched] == [2, 2]


def _widened(value: Any) -> Any:
    """Every object in it has a field more."""
    if isinstance(value, dict):
        return {name: _widened(inner) for name, inner in value.items()} | {"nytt_falt": {"a": [1, None]}}
    return [_widened(inner) for inner in value] if isinstance(value, list) else value


async def letters(room: Room) -> Sequence[Any]:
    async with room.database.reading() as session:
        return await dead_letters.listing(session)


async def replayed(room: Room, letter: UUID) -> Incoming:
    """What comes to the queue when somebody replays it."""
    async with room.database.transaction() as session:
        await dead_letters.replay(session, letter, CLOCK.now())
        rows = await session.execute(select(outbox).where(outbox.c.exchange == ""))
        row = rows.one()
    return Incoming(str(row.id), row.body, 1)
