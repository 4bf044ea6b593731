"""The ledger's promises, at its own border: events in, dispatches out."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select, text
from tests.eventually import eventually
from tests.integration.distributor.conftest import CLOCK, MemorySender, Room, batch, people, snapshot
from tests.telling import Telling

from distributor import delivery, erasing, journal, leases
from distributor.channels import Fault, Outcome
from distributor.follow_ups import FollowUpWorker
from distributor.group_commit import Group
from distributor.group_commit_postgresql import PostgresGroupCommit
from distributor.group_commit_sqlite import SqliteGroupCommit
from distributor.ledger import NotRetriable, deliveries, retry_by_hand
from distributor.states import BOUNCED, DEFERRED, FAILED, SENT, UNCERTAIN
from shared.contracts.delivery import Channel, DeliveryBounced
from shared.contracts.envelope import Envelope
from shared.contracts.mail import Form, Lane, RecipientErased, RecipientResumed, RecipientStopped, StopScope
from shared.contracts.news import Audience, ItemState, NewsCorrected, NewsWithdrawn
from shared.messaging import dead_letters
from shared.messaging.bus import DeadLetter, Incoming
from shared.messaging.outbox import outbox


def corrected(item, revision=2):
    return NewsCorrected(item=snapshot(item.item_id, revision, ItemState.CORRECTED), note="Siffran var fel.")


def withdrawn(item, revision=2):
    return NewsWithdrawn(item=snapshot(item.item_id, revision, ItemState.WITHDRAWN), reason="Uppgiften stämde inte.")


async def test_a_batch_accepted_twice_is_sent_once(room: Room) -> None:
    item = snapshot(uuid4())
    told = batch(item, people(7))
    await room.hear(told)
    await room.drain()
    await room.hear(told)
    await room.drain()
    assert sorted(d.recipient_id for d in room.sender.dispatched) == sorted(r.recipient_id for r in told.recipients)
    assert {row.state for row in await room.rows()} == {"sent"}
    assert [tried.reply for tried in await room.attempts()] == ["2.0.0 Ok: queued as A1"] * 7


async def test_a_dispatch_has_all_that_the_batch_said(room: Room) -> None:
    item = snapshot(uuid4())
    told = batch(item, people(1))
    await room.hear(told)
    await room.drain()
    (dispatch,) = room.sender.dispatched
    person = told.recipients[0]
    assert (dispatch.address, dispatch.reason, dispatch.one_click_url) == (
        person.address,
        person.reason,
        person.one_click_url,
    )
    assert dispatch.content.item == item
    assert dispatch.planned_at == told.planned_at


async def test_a_correction_before_the_send_retargets(room: Room) -> None:
    item = snapshot(uuid4())
    await room.hear(batch(item, people(3)))
    await room.hear(corrected(item))
    await room.follow_up()
    await room.drain()
    assert [(d.form, d.content.revision) for d in room.sender.dispatched] == [(Form.NEWS, 2)] * 3
    assert await room.states() == [(1, "news", "cancelled", "superseded")] * 3 + [(2, "news", "sent", "")] * 3


async def test_an_old_revision_never_begins_even_before_the_follow_up(room: Room) -> None:
    item = snapshot(uuid4())
    await room.hear(batch(item, people(3)))
    await room.hear(corrected(item))
    await room.drain()
    assert room.sender.dispatched == []
    await room.follow_up()
    await room.drain()
    assert len(room.sender.dispatched) == 3


async def test_a_correction_follows_those_who_got_the_original_in_its_thread(room: Room) -> None:
    item = snapshot(uuid4())
    await room.hear(batch(item, people(2)))
    await room.drain()
    await room.hear(corrected(item))
    await room.follow_up()
    await room.drain()
    followed = room.sender.dispatched[2:]
    assert [(d.form, d.content.revision, d.thread_of, d.content.note) for d in followed] == [
        (Form.CORRECTION, 2, (1,), "Siffran var fel.")
    ] * 2


async def test_a_correction_that_overtakes_its_batch(room: Room) -> None:
    item = snapshot(uuid4())
    await room.hear(corrected(item))
    await room.follow_up()
    await room.hear(batch(item, people(2)))
    await room.drain()
    assert [(d.form, d.content.revision) for d in room.sender.dispatched] == [(Form.NEWS, 2)] * 2


async def test_a_batch_that_comes_again_after_a_correction_adds_nothing(room: Room) -> None:
    item = snapshot(uuid4())
    told = batch(item, people(2))
    await room.hear(told)
    await room.drain()
    await room.hear(corrected(item))
    await room.hear(told)
    await room.follow_up()
    await room.drain()
    assert [(d.form, d.content.revision) for d in room.sender.dispatched] == [(Form.NEWS, 1)] * 2 + [
        (Form.CORRECTION, 2)
    ] * 2


async def test_two_corrections_tell_everyone_once(room: Room) -> None:
    item = snapshot(uuid4())
    await room.hear(batch(item, people(1)))
    await room.drain()
    await room.hear(corrected(item))
    await room.follow_up()
    await room.hear(corrected(item, 3))
    await room.follow_up()
    await room.drain()
    assert [(d.form, d.content.revision) for d in room.sender.dispatched] == [(Form.NEWS, 1), (Form.CORRECTION, 3)]


async def test_a_withdrawal_stops_the_unsent_and_tells_the_others(room: Room) -> None:
    item = snapshot(uuid4())
    told = batch(item, people(2))
    unreachable = told.recipients[1].recipient_id
    room.sender.answer = lambda d: Outcome(DEFERRED, 451) if d.recipient_id == unreachable else Outcome(SENT, 250)
    room.settings = room.settings.model_copy(update={"retry_scale": 100.0})
    await room.hear(told)
    await room.drain()
    await room.hear(withdrawn(item))
    await room.follow_up()
    await room.drain()
    assert [(d.form, d.recipient_id) for d in room.sender.dispatched[2:]] == [
        (Form.WITHDRAWAL, told.recipients[0].recipient_id)
    ]
    assert (1, "news", "cancelled", "withdrawn") in await room.states()


async def test_a_withdrawal_that_overtakes_its_batch(room: Room) -> None:
    item = snapshot(uuid4())
    await room.hear(withdrawn(item))
    await room.hear(batch(item, people(2)))
    await room.follow_up()
    await room.drain()
    assert room.sender.dispatched == []
    assert await room.states() == [(1, "news", "cancelled", "withdrawn")] * 2


async def test_what_is_sent_after_a_correction_is_followed_up(room: Room) -> None:
    """A message on its way out when the correction comes is told as well, once it has arrived."""
    item = snapshot(uuid4())
    room.sender.hold.clear()
    await room.hear(batch(item, people(1)))
    stop = asyncio.Event()
    task = asyncio.create_task(room.worker().run(stop))
    while not room.sender.dispatched:
        await asyncio.sleep(0.005)
    await room.hear(corrected(item))
    worker = asyncio.create_task(_follow(room, stop))
    room.sender.hold.set()
    while len(room.sender.dispatched) < 2:
        await asyncio.sleep(0.005)
    await room.quiet()
    stop.set()
    await asyncio.gather(task, worker)
    assert [(d.form, d.content.revision) for d in room.sender.dispatched] == [(Form.NEWS, 1), (Form.CORRECTION, 2)]


async def _follow(room: Room, stop: asyncio.Event) -> None:
    while not stop.is_set():
        if not await FollowUpWorker(room.database, CLOCK).step():
            await asyncio.sleep(0.01)


async def test_a_stop_between_accept_and_send(room: Room) -> None:
    item = snapshot(uuid4())
    told = batch(item, people(2))
    await room.hear(told)
    leaver = told.recipients[0].recipient_id
    await room.hear(RecipientStopped(recipient_id=leaver, scope=StopScope.ALL, version=1))
    await room.drain()
    assert [d.recipient_id for d in room.sender.dispatched] == [told.recipients[1].recipient_id]
    assert (1, "news", "cancelled", "stopped") in await room.states()


async def test_a_stop_that_overtakes_its_batch_and_an_older_resume(room: Room) -> None:
    item = snapshot(uuid4())
    told = batch(item, people(1))
    leaver = told.recipients[0].recipient_id
    await room.hear(RecipientStopped(recipient_id=leaver, scope=StopScope.ALL, version=5))
    await room.hear(RecipientResumed(recipient_id=leaver, scope=StopScope.ALL, version=4))
    await room.hear(told)
    await room.drain()
    assert room.sender.dispatched == []


async def test_a_stop_of_one_audience_leaves_the_others(room: Room) -> None:
    first, second = snapshot(uuid4()), snapshot(uuid4())
    person = people(1)[0]
    public = person.model_copy(update={"audience": Audience.PUBLIC})
    await room.hear(
        RecipientStopped(
            recipient_id=person.recipient_id, scope=StopScope.AUDIENCE, audience=Audience.POLITICIAN, version=1
        )
    )
    await room.hear(batch(first, (person,)))
    await room.hear(batch(second, (public,)))
    await room.drain()
    assert [d.content.subject_id for d in room.sender.dispatched] == [second.item_id]


async def test_a_follow_up_does_not_reach_who_has_stopped_meanwhile(room: Room) -> None:
    item = snapshot(uuid4())
    told = batch(item, people(1))
    await room.hear(told)
    await room.drain()
    await room.hear(RecipientStopped(recipient_id=told.recipients[0].recipient_id, scope=StopScope.ALL, version=1))
    await room.hear(corrected(item))
    await room.follow_up()
    await room.drain()
    assert len(room.sender.dispatched) == 1
    assert (2, "correction", "cancelled", "stopped") in await room.states()


async def test_an_erased_recipient_leaves_no_address_in_any_column(room: Room) -> None:
    item = snapshot(uuid4())
    told = batch(item, people(1))
    room.sender.answer = lambda d: Outcome(SENT, 250, reply=f"queued for {d.address}")
    await room.hear(told)
    await room.drain()
    await room.hear(RecipientErased(recipient_id=told.recipients[0].recipient_id, version=2))
    await room.hear(batch(snapshot(uuid4()), told.recipients))
    await room.drain()
    async with room.database.reading() as session:
        for table in ("deliveries", "delivery_attempts", "exclusions", "recipient_stops"):
            for row in await session.execute(text(f"SELECT * FROM {table}")):
                assert "person0@" not in str(row), table
    assert len(room.sender.dispatched) == 1


async def test_an_erasure_reaches_dead_letters_what_was_said_of_them_and_what_was_replayed(room: Room) -> None:
    """Also a letter that was cut short, so that nobody can tell what it was."""
    told = batch(snapshot(uuid4()), people(2))
    erased, other = told.recipients
    envelope = Envelope.wrap(told, event_id=uuid4(), source="/t", subject="x", time=CLOCK.now(), correlation_id="c")
    body = envelope.model_dump_json().encode()
    complaint = DeadLetter("retries_exhausted", f"NotNull: Failing row contains (7, {erased.address}, null)")
    async with room.database.transaction() as session:
        whole = await dead_letters.park(
            session, "distributor.mail.news", Incoming("1", body, 5), complaint, envelope.type, CLOCK.now()
        )
        await dead_letters.park(
            session, "distributor.mail.news", Incoming("2", body[:-9], 5), complaint, "", CLOCK.now()
        )
        assert erased.address not in (await dead_letters.find(session, whole))["detail"]
        await dead_letters.replay(session, whole, CLOCK.now())
    await room.hear(RecipientErased(recipient_id=erased.recipient_id, version=2))
    async with room.database.reading() as session:
        for table in ("dead_letters", "outbox"):
            rows = (await session.execute(text(f"SELECT * FROM {table}"))).mappings().all()
            assert rows
            assert not [row for row in rows if Telling(erased.address).tells(tuple(row.values()))], table
        replayed = await session.scalar(select(outbox.c.body))
    assert [one["address"] for one in json.loads(replayed)["data"]["recipients"]] == [other.address]


async def test_a_ledger_put_back_from_a_backup_erases_whom_it_does_not_know_to_be_erased(room: Room) -> None:
    """Whatever version of a stop it knows: who tells it does not know one."""
    told = batch(snapshot(uuid4()), people(3))
    gone, known, other = (one.recipient_id for one in told.recipients)
    await room.hear(told)
    await room.hear(RecipientStopped(recipient_id=gone, scope=StopScope.ALL, version=7))
    await room.hear(RecipientErased(recipient_id=known, version=2))
    async with room.database.transaction() as session:
        assert await erasing.erase_unknown(session, [gone, known], CLOCK.now()) == 1
        assert await erasing.erase_unknown(session, [gone, known], CLOCK.now()) == 0
    await room.hear(batch(snapshot(uuid4()), told.recipients))
    await room.drain()
    assert {dispatch.recipient_id for dispatch in room.sender.dispatched} == {other}
    async with room.database.reading() as session:
        kept = await session.execute(text("SELECT address FROM deliveries WHERE address IS NOT NULL"))
        assert {row.address for row in kept} == {told.recipients[2].address}


async def test_a_row_in_hand_at_a_death_is_uncertain_and_repeated_once(room: Room) -> None:
    item = snapshot(uuid4())
    told = batch(item, people(10))
    await room.hear(told)
    dead = MemorySender(slots=3)
    dead.hold.clear()
    task = asyncio.create_task(room.worker(dead).run(asyncio.Event()))
    while len(dead.dispatched) < 3:
        await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await room.kill_senders()
    await room.recovery().take_over()
    states = [row.state for row in await room.rows()]
    assert (states.count("uncertain"), states.count("planned")) == (3, 7)
    await room.drain()
    assert {row.state for row in await room.rows()} == {"sent"}
    repeated = {d.recipient_id for d in dead.dispatched}
    assert len(room.sender.dispatched) == 10
    assert {d.recipient_id for d in room.sender.dispatched} >= repeated


async def test_a_second_death_in_doubt_holds_the_delivery(room: Room) -> None:
    await room.hear(batch(snapshot(uuid4()), people(1)))
    for _ in range(2):
        dead = MemorySender(slots=1)
        dead.hold.clear()
        task = asyncio.create_task(room.worker(dead).run(asyncio.Event()))
        while not dead.dispatched:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await room.kill_senders()
        await room.recovery().take_over()
    (row,) = await room.rows()
    assert (row.state, row.ended_reason, row.next_attempt_at) == ("uncertain", "held", None)


async def test_a_setting_holds_what_is_in_doubt(room: Room) -> None:
    room.settings = room.settings.model_copy(update={"uncertain": "hold"})
    room.sender.answer = lambda d: Outcome(UNCERTAIN, phase="dot")
    await room.hear(batch(snapshot(uuid4()), people(1)))
    await room.drain()
    (row,) = await room.rows()
    assert (row.state, row.next_attempt_at) == ("uncertain", None)


async def test_f10_a_zombie_changes_nothing(room: Room) -> None:
    await room.hear(batch(snapshot(uuid4()), people(1)))
    zombie = MemorySender(slots=1)
    zombie.hold.clear()
    zombie.answer = lambda d: Outcome(BOUNCED, 550, "5.1.1", fault=Fault.RECIPIENT)
    stop = asyncio.Event()
    task = asyncio.create_task(room.worker(zombie).run(stop))
    while not zombie.dispatched:
        await asyncio.sleep(0.005)
    await room.kill_senders()
    await room.recovery().take_over()
    await room.drain()
    stop.set()
    zombie.hold.set()
    await task
    (row,) = await room.rows()
    assert row.state == "sent"


async def test_f10_a_zombie_that_has_not_noticed_yet_claims_nothing(room: Room) -> None:
    writing = journal.Journal(room.database, CLOCK, Channel.MAIL, repeated_lanes=frozenset(), retry_scale=1)
    writing.owner = "a"
    async with room.database.transaction() as session:
        await leases.take(session, room.database, "a")
    await room.hear(batch(snapshot(uuid4()), people(3)))
    [begun] = await writing.write([], 1)
    await room.kill_senders()
    assert await writing.write([(begun, Outcome(SENT, 250))], 1) == []
    assert Counter(row.state for row in await room.rows()) == {"sent": 1, "planned": 2}
    await writing.close()


async def test_f10_a_zombie_whose_lease_was_forgotten_goes_on_under_another_name(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever took over has swept its lease away; under its old name it would hear of its old attempts as of new ones."""
    monkeypatch.setattr(leases, "RENEW_EVERY_S", 0.01)
    stop = asyncio.Event()
    task = asyncio.create_task(room.worker(MemorySender()).run(stop))
    (first,) = await eventually(room.owners)
    await room.kill_senders()
    (second,) = await eventually(room.owners)
    stop.set()
    await task
    assert second != first


async def test_a_deferred_delivery_is_tried_on_its_schedule_and_given_up_at_its_end(room: Room) -> None:
    room.sender.answer = lambda d: Outcome(DEFERRED, 451, "4.3.0")
    room.settings = room.settings.model_copy(update={"retry_scale": 0.0000001})
    await room.hear(batch(snapshot(uuid4()), people(1)))
    stop = asyncio.Event()
    task = asyncio.create_task(room.worker().run(stop))
    while [row.state for row in await room.rows()] != ["failed"]:
        room.database.wake()  # its next try is due at once, and it would find it at its next look, in a second
        await asyncio.sleep(0.01)
    stop.set()
    await task
    assert len(room.sender.dispatched) == 12
    assert (await room.rows())[0].ended_reason == "retries_exhausted"


async def test_a_bounce_is_told_once(room: Room) -> None:
    room.sender.answer = lambda d: Outcome(BOUNCED, 550, "5.1.1", fault=Fault.RECIPIENT)
    await room.hear(batch(snapshot(uuid4()), people(1)))
    await room.drain()
    async with room.database.reading() as session:
        events = (await session.execute(outbox.select().where(outbox.c.routing_key == "delivery.bounced"))).all()
    (row,) = await room.rows()
    (told,) = (DeliveryBounced.model_validate(json.loads(event.body)["data"]) for event in events)
    assert (told.is_of(row.address), told.is_of("new@kommun.example")) == (True, False)
    assert row.state == "bounced"


async def test_a_broken_relay_pauses_the_channel_and_blames_nobody(room: Room) -> None:
    down = [True]
    room.sender.slots = 1
    room.sender.answer = lambda d: (
        Outcome(DEFERRED, fault=Fault.SYSTEM, counts=False, phase="connect") if down[0] else Outcome(SENT, 250)
    )
    await room.hear(batch(snapshot(uuid4()), people(20)))
    stop = asyncio.Event()
    task = asyncio.create_task(room.worker().run(stop))
    while not room.sender.dispatched:
        await asyncio.sleep(0.005)
    down[0] = False
    while {row.state for row in await room.rows()} != {"sent"}:
        await asyncio.sleep(0.02)
    stop.set()
    await task
    assert max(row.attempts for row in await room.rows()) == 1
    assert len(room.sender.dispatched) < 25


async def test_press_goes_before_a_digest_under_way(room: Room) -> None:
    room.sender.slots = 2
    await room.hear(batch(snapshot(uuid4()), people(100), lane=Lane.DIGEST))
    await room.hear(batch(snapshot(uuid4()), people(3), lane=Lane.PRESS, form=Form.PRESS))
    await room.drain()
    first = [d.lane for d in room.sender.dispatched[:4]]  # a slot that began before may be slower than the next
    assert first.count(Lane.PRESS) == 3


async def test_two_sender_processes_share_the_work(room: Room) -> None:
    await room.hear(batch(snapshot(uuid4()), people(300)))
    one, two = MemorySender(), MemorySender()
    await asyncio.gather(room.drain(sender=one), room.drain(sender=two))
    sent = [d.recipient_id for d in one.dispatched + two.dispatched]
    assert len(sent) == len(set(sent)) == 300


async def test_a_failed_delivery_can_be_retried_by_hand_and_a_sent_one_cannot(room: Room) -> None:
    room.sender.answer = lambda d: Outcome(FAILED, 554, fault=Fault.CONTENT)
    await room.hear(batch(snapshot(uuid4()), people(1)))
    await room.drain()
    (row,) = await room.rows()
    async with room.database.transaction() as session:
        await retry_by_hand(session, row.id, CLOCK.now())
    room.sender.answer = lambda d: Outcome(SENT, 250)
    await room.drain()
    assert (await room.rows())[0].state == "sent"
    with pytest.raises(NotRetriable):
        async with room.database.transaction() as session:
            await retry_by_hand(session, row.id, CLOCK.now())


Around = Callable[[Group], AbstractContextManager[None]]


def commits(monkeypatch: pytest.MonkeyPatch, around: Around) -> None:
    """Have `around` about every group commit."""
    for kind in (PostgresGroupCommit, SqliteGroupCommit):

        def written(write: Any) -> Any:
            async def write_within(commit: Any, group: Group) -> Any:
                with around(group):
                    return await write(commit, group)

            return write_within

        monkeypatch.setattr(kind, "write", written(kind.write))


async def test_a_database_that_goes_away_during_a_send_loses_no_outcome(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outcome waits in the sender's hand until it can be written down."""
    failures = [0]

    @contextmanager
    def failing(group: Group) -> Iterator[None]:
        if group.ended and failures[0] < 2:
            failures[0] += 1
            raise ConnectionError("gone")
        yield

    commits(monkeypatch, failing)
    await room.hear(batch(snapshot(uuid4()), people(1)))
    await room.drain()
    assert failures[0] == 2
    assert [row.state for row in await room.rows()] == ["sent"]
    assert len(room.sender.dispatched) == 1


async def test_what_a_commit_claimed_goes_out_though_its_answer_was_lost(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database committed, and the connection broke before it could say so."""
    lost = [0]

    @contextmanager
    def losing(group: Group) -> Iterator[None]:
        yield
        if group.wanted and lost[0] < 3:
            lost[0] += 1
            raise ConnectionError("gone")

    commits(monkeypatch, losing)
    monkeypatch.setattr(journal, "REPEAT_AFTER_S", 0.001)
    monkeypatch.setattr(delivery, "POLL_S", 0.01)
    told = batch(snapshot(uuid4()), people(20))
    await room.hear(told)
    await room.drain()
    assert lost[0] == 3
    assert {row.state for row in await room.rows()} == {"sent"}
    assert Counter(d.recipient_id for d in room.sender.dispatched) == Counter(r.recipient_id for r in told.recipients)
    assert len(await room.attempts()) == 20


def test_the_ledger_is_unique_on_subject_revision_channel_and_recipient() -> None:
    unique = [[column.name for column in constraint.columns] for constraint in deliveries.constraints]
    assert ["subject_id", "channel", "recipient_id", "revision"] in unique


async def test_a_follow_up_waits_until_the_news_itself_is_heard(room: Room) -> None:
    """A batch of a newer revision may overtake the news of it; only the news knows what was wrong."""
    item = snapshot(uuid4())
    told = batch(item, people(1))
    await room.hear(told)
    await room.drain()
    await room.hear(corrected(item))
    await room.hear(batch(snapshot(item.item_id, 3, ItemState.CORRECTED), people(1)))
    await room.follow_up()
    await room.drain()
    assert [d.form for d in room.sender.dispatched] == [Form.NEWS, Form.NEWS]
    await room.hear(corrected(item, 3))
    await room.follow_up()
    await room.drain()
    last = room.sender.dispatched[-1]
    assert (last.form, last.content.revision, last.content.note) == (Form.CORRECTION, 3, "Siffran var fel.")
    assert last.recipient_id == told.recipients[0].recipient_id


async def test_words_that_the_database_refuses_hold_up_nothing(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    told = batch(snapshot(uuid4()), people(6))
    bad = told.recipients[0].recipient_id

    @contextmanager
    def refusing(group: Group) -> Iterator[None]:
        if any(one.row.recipient_id == bad and one.outcome.reply for one in group.ended):
            raise ValueError("not in this column")
        yield

    commits(monkeypatch, refusing)
    monkeypatch.setattr(journal, "REPEAT_AFTER_S", 0.001)
    await room.hear(told)
    await room.drain()
    assert {row.state for row in await room.rows()} == {"sent"}
    assert sorted(bool(tried.reply) for tried in await room.attempts()) == [False, *[True] * 5]
    assert len(room.sender.dispatched) == 6


async def test_nothing_begins_only_to_wait_for_a_connection(room: Room) -> None:
    """What has begun cannot be called off: so a stop must find what the relay cannot take yet not begun."""
    told = batch(snapshot(uuid4()), people(8))
    room.sender.bears = 2
    room.sender.hold.clear()
    await room.hear(told)
    stop = asyncio.Event()
    task = asyncio.create_task(room.worker().run(stop))
    await eventually(lambda: len(room.sender.dispatched) == 2)
    out = {dispatch.recipient_id for dispatch in room.sender.dispatched}
    for recipient in told.recipients:
        await room.hear(RecipientStopped(recipient_id=recipient.recipient_id, scope=StopScope.ALL, version=1))
    room.sender.bears = 4
    room.sender.hold.set()
    await room.quiet()
    stop.set()
    await task
    assert {dispatch.recipient_id for dispatch in room.sender.dispatched} == out
    assert sorted(row.state for row in await room.rows()) == ["cancelled"] * 6 + ["sent"] * 2
