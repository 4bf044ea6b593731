"""Digests in the ledger: what each person's mail carries when it begins, and who is told when that was wrong."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.integration.distributor.conftest import CLOCK, Room, batch, people, snapshot

from distributor import digests
from distributor.channels import Fault, Outcome
from distributor.ledger import NotRetriable, retry_by_hand
from distributor.progress import ProgressWorker
from distributor.states import BOUNCED, SENT
from shared.contracts.delivery import DeliveryProgress
from shared.contracts.envelope import Envelope
from shared.contracts.mail import (
    Carried,
    DigestItem,
    Exclusion,
    ExclusionReason,
    Form,
    Lane,
    MailRequested,
    Recipient,
    RecipientStopped,
    StopScope,
    SubjectKind,
)
from shared.contracts.news import Audience, ItemSnapshot, ItemState, NewsCorrected, NewsPublished, NewsWithdrawn
from shared.messaging.outbox import outbox

FIRST, SECOND = UUID(int=1), UUID(int=2)


def run_of(told: dict[Recipient, list[tuple[ItemSnapshot, Audience]]], **changes: Any) -> MailRequested:
    """A batch of a digest run: who gets which items, as what."""
    carried = {item.item_id: item for listed in told.values() for item, _ in listed}
    recipients = tuple(
        person.model_copy(update={"carries": tuple(Carried(item_id=i.item_id, audience=a) for i, a in listed)})
        for person, listed in told.items()
    )
    fields: dict[str, Any] = {
        "batch_id": uuid4(),
        "subject_kind": SubjectKind.DIGEST_RUN,
        "subject_id": uuid4(),
        "revision": 0,
        "form": Form.DIGEST,
        "lane": Lane.DIGEST,
        "planned_at": CLOCK.now(),
        "digest": tuple(DigestItem.of(item) for item in carried.values()),
        "recipients": recipients,
    }
    return MailRequested(**(fields | changes))


async def published(room: Room) -> tuple[ItemSnapshot, ItemSnapshot]:
    one, two = snapshot(FIRST, title="Den första"), snapshot(SECOND, title="Den andra")
    await room.hear(NewsPublished(item=one))
    await room.hear(NewsPublished(item=two))
    return one, two


def to_all(recipients: tuple[Recipient, ...], *items: ItemSnapshot) -> MailRequested:
    return run_of({person: [(item, Audience.POLITICIAN) for item in items] for person in recipients})


def corrected(item: ItemSnapshot, revision: int = 2) -> NewsCorrected:
    newer = snapshot(item.item_id, revision, ItemState.CORRECTED, title=f"{item.title}, rättad")
    return NewsCorrected(item=newer, note="Siffran var fel.")


def withdrawn(item: ItemSnapshot, revision: int = 2) -> NewsWithdrawn:
    return NewsWithdrawn(item=snapshot(item.item_id, revision, ItemState.WITHDRAWN), reason="Det stämde inte.")


def read(room: Room) -> list[tuple[str, set[str]]]:
    """Every mail: its form, and the headlines in it."""
    return [
        (
            str(one.form),
            {item.title for item in one.content.digest} or {one.content.item.title if one.content.item else ""},
        )
        for one in room.sender.dispatched
    ]


async def test_each_gets_their_own_items_once_however_often_the_batch_comes(room: Room) -> None:
    one, two = await published(room)
    both, only_one = people(2)
    as_politician = (one, Audience.POLITICIAN)
    told = run_of({both: [as_politician, (two, Audience.PUBLIC)], only_one: [as_politician]})
    for _ in range(2):
        await room.hear(told)
        await room.drain()
    titles = {d.recipient_id: [item.title for item in d.content.digest] for d in room.sender.dispatched}
    assert {key: sorted(found) for key, found in titles.items()} == {
        both.recipient_id: ["Den andra", "Den första"],
        only_one.recipient_id: ["Den första"],
    }
    assert len(room.sender.dispatched) == 2
    assert {(d.form, d.lane, d.planned_at, d.content.planned_at) for d in room.sender.dispatched} == {
        (Form.DIGEST, Lane.DIGEST, told.planned_at, told.planned_at)
    }


@pytest.mark.parametrize("when", ["before the batch", "before the mail", "at the last moment"])
async def test_a_corrected_item_goes_out_in_its_last_version_and_a_withdrawn_one_not_at_all(
    room: Room, when: str
) -> None:
    one, two = await published(room)
    told = to_all(people(3), one, two)
    changes = (corrected(one), withdrawn(two))
    if when == "before the batch":
        for change in changes:
            await room.hear(change)
    await room.hear(told)
    if when != "before the batch":
        for change in changes:
            await room.hear(change)
    if when == "at the last moment":  # the senders come before the follow-ups do
        await room.drain()
        assert room.sender.dispatched == []
    await room.follow_up()
    await room.drain()
    await room.follow_up()
    await room.drain()
    assert read(room) == [("digest", {"Den första, rättad"})] * 3


async def test_a_digest_with_nothing_left_is_called_off(room: Room) -> None:
    one, two = await published(room)
    await room.hear(to_all(people(2), one, two))
    await room.hear(withdrawn(one))
    await room.hear(withdrawn(two))
    await room.hear(to_all(people(1), one))
    await room.follow_up()
    await room.drain()
    assert room.sender.dispatched == []
    assert {(row.state, row.ended_reason) for row in await room.rows()} == {("cancelled", "withdrawn")}


async def test_corrections_and_withdrawals_follow_to_those_who_got_the_digest_in_its_thread(room: Room) -> None:
    one, two = await published(room)
    had_it, had_other = people(2)
    told = run_of({had_it: [(one, Audience.PUBLIC)], had_other: [(two, Audience.PUBLIC)]})
    await room.hear(told)
    await room.drain()
    await room.hear(corrected(one))
    await room.follow_up()
    await room.drain()
    await room.hear(withdrawn(one, 3))
    await room.follow_up()
    await room.drain()
    followed = room.sender.dispatched[2:]
    assert [(d.recipient_id, d.form, d.content.note, d.thread_of, d.audience, d.lane) for d in followed] == [
        (had_it.recipient_id, Form.CORRECTION, "Siffran var fel.", (told.subject_id,), Audience.PUBLIC, Lane.NEWS),
        (had_it.recipient_id, Form.WITHDRAWAL, "Det stämde inte.", (told.subject_id, 2), Audience.PUBLIC, Lane.NEWS),
    ]


async def test_whoever_got_it_twice_over_is_told_once(room: Room) -> None:
    one, _ = await published(room)
    (person,) = people(1)
    await room.hear(batch(one, (person,)))
    await room.hear(to_all((person,), one))
    await room.drain()
    await room.hear(corrected(one))
    await room.follow_up()
    await room.drain()
    assert [d.form for d in room.sender.dispatched[2:]] == [Form.CORRECTION]


@pytest.mark.parametrize("early", [True, False])
async def test_a_stop_takes_its_audience_out_of_the_digest_and_no_other(room: Room, *, early: bool) -> None:
    one, two = await published(room)
    mixed, single, left_all = people(3)
    told = run_of(
        {
            mixed: [(one, Audience.POLITICIAN), (two, Audience.PUBLIC)],
            single: [(two, Audience.PUBLIC)],
            left_all: [(one, Audience.POLITICIAN)],
        }
    )
    stops = [
        RecipientStopped(recipient_id=p.recipient_id, scope=StopScope.AUDIENCE, audience=Audience.PUBLIC, version=1)
        for p in (mixed, single)
    ]
    stops.append(RecipientStopped(recipient_id=left_all.recipient_id, scope=StopScope.ALL, version=1))
    for event in [*stops, told] if early else [told, *stops]:
        await room.hear(event)
    await room.drain()
    assert [(d.recipient_id, [i.title for i in d.content.digest]) for d in room.sender.dispatched] == [
        (mixed.recipient_id, ["Den första"])
    ]
    assert {row.recipient_id: (row.state, row.ended_reason) for row in await room.rows()} == {
        mixed.recipient_id: ("sent", ""),
        single.recipient_id: ("cancelled", "stopped"),
        left_all.recipient_id: ("cancelled", "stopped"),
    }


async def test_what_is_in_doubt_is_not_repeated_with_the_fault_and_its_reader_is_told(room: Room) -> None:
    one, two = await published(room)
    await room.hear(to_all(people(1), one, two))
    await room.force(state="uncertain", next_attempt_at=CLOCK.now())
    await room.hear(corrected(one))
    await room.follow_up()
    await room.drain()
    assert [d.form for d in room.sender.dispatched] == [Form.CORRECTION]


async def test_a_digest_sent_once_more_by_hand_says_only_what_still_holds(room: Room) -> None:
    one, two = await published(room)
    room.sender.answer = lambda _: Outcome(BOUNCED, 550, fault=Fault.RECIPIENT)
    await room.hear(to_all(people(1), one, two))
    await room.drain()
    (row,) = await room.rows()
    await room.hear(withdrawn(one))
    await room.follow_up()
    room.sender.answer = lambda _: Outcome(SENT, 250)
    async with room.database.transaction() as session:
        await digests.bring_up(session, row.id, CLOCK.now())
        await retry_by_hand(session, row.id, CLOCK.now())
    await room.drain()
    assert read(room)[1:] == [("digest", {"Den andra"})]


async def test_nothing_is_sent_once_more_when_all_of_it_is_withdrawn(room: Room) -> None:
    one, _ = await published(room)
    room.sender.answer = lambda _: Outcome(BOUNCED, 550, fault=Fault.RECIPIENT)
    await room.hear(to_all(people(1), one))
    await room.drain()
    (row,) = await room.rows()
    await room.hear(withdrawn(one))
    with pytest.raises(NotRetriable):
        async with room.database.transaction() as session:
            await digests.bring_up(session, row.id, CLOCK.now())


async def test_an_items_counts_tell_of_digests_and_a_run_of_whom_it_left_out(room: Room) -> None:
    one, two = await published(room)
    left_out = Exclusion(recipient_id=uuid4(), audience=Audience.PUBLIC, reason=ExclusionReason.PAUSED)
    told = to_all(people(2), one, two).model_copy(update={"exclusions": (left_out,)})
    await room.hear(told)
    await room.drain()
    await ProgressWorker(room.database, CLOCK).tell(one.item_id)
    async with room.database.reading() as session:
        body = (await session.scalars(outbox.select().with_only_columns(outbox.c.body))).all()[-1]
    progress = DeliveryProgress.model_validate(Envelope.model_validate_json(body).data)
    assert [(c.form, c.audience, c.revision, c.state, c.count) for c in progress.deliveries] == [
        (Form.DIGEST, Audience.POLITICIAN, 1, "sent", 2)
    ]
    assert progress.exclusions == ()
