"""What the retention job drops, what it leaves, and what can still be said afterwards; on both databases."""

import asyncio
import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, select
from structlog.testing import capture_logs
from tests.integration.distributor.conftest import CLOCK, MemorySender, Room, batch, people, retention_in, snapshot

from content.reach import follow_ups
from distributor import weeding
from distributor.channels import Outcome
from distributor.ledger import PERSONAL, accept_endpoints, contents, deliveries, exclusions, stops
from distributor.models import Attempt
from distributor.progress import ProgressWorker
from distributor.states import CANCELLED, SENT
from shared.contracts.delivery import Channel, DeliveryCount, DeliveryProgress
from shared.contracts.mail import (
    Exclusion,
    ExclusionReason,
    Form,
    Lane,
    RecipientErased,
    RecipientResumed,
    RecipientStopped,
    RequestContent,
    StopScope,
    SubjectKind,
)
from shared.contracts.news import Audience, ItemState, NewsCorrected, NewsPublished
from shared.ids import new_id
from shared.messaging import dead_letters
from shared.messaging.bus import DeadLetter, Incoming
from shared.messaging.outbox import outbox

NOTHING = dict.fromkeys(("requests_forgotten", "forgotten", "weeded", "stops", "dead_letters"), 0)
PERSONAL_DAYS, LEDGER_DAYS = timedelta(days=366), timedelta(days=1096)


async def weed(room: Room, wait: timedelta) -> dict[str, int]:
    return dict(await retention_in(room, wait).weed(asyncio.Event()))


async def counts(room: Room, item_id: Any) -> list[DeliveryCount]:
    await ProgressWorker(room.database, CLOCK).tell(item_id)
    async with room.database.reading() as session:
        query = outbox.select().where(outbox.c.routing_key == "delivery.progress").order_by(outbox.c.created_at)
        bodies = [row.body for row in await session.execute(query)]
    told = [DeliveryProgress.model_validate(json.loads(body)["data"]) for body in bodies]
    return list([one for one in told if one.item_id == item_id][-1].deliveries)


async def sent(room: Room, number: int, **changes: Any) -> Any:
    item = snapshot(uuid4())
    room.sender.answer = lambda d: Outcome(SENT, 250, reply=f"2.0.0 Ok <{d.address}> queued as A1")
    await room.hear(batch(item, people(number), **changes))
    await room.drain()
    return item


def corrected(item: Any, revision: int = 2) -> NewsCorrected:
    return NewsCorrected(item=snapshot(item.item_id, revision, ItemState.CORRECTED), note="Siffran var fel.")


async def test_what_is_personal_goes_and_the_proof_stays(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weeding, "CHUNK", 3)
    item = await sent(room, 8)
    assert await weed(room, timedelta(days=300)) == NOTHING
    with capture_logs() as logs:
        assert (await weed(room, PERSONAL_DAYS))["forgotten"] == 8
    assert [entry["forgotten"] for entry in logs if entry["event"] == "ledger_weeded"] == [8]
    rows = await room.rows()
    assert {getattr(row, name) for row in rows for name in PERSONAL} == {None}
    assert [(tried.code, tried.reply) for tried in await room.attempts()] == [(250, "")] * 8
    assert [(one.state, one.count) for one in await counts(room, item.item_id)] == [(SENT, 8)]
    with capture_logs() as logs:
        assert (await weed(room, PERSONAL_DAYS))["forgotten"] == 0
    assert logs == []


@pytest.mark.parametrize("wait", [PERSONAL_DAYS, LEDGER_DAYS])
async def test_a_job_that_dies_goes_on_where_it_was(
    room: Room, monkeypatch: pytest.MonkeyPatch, wait: timedelta
) -> None:
    monkeypatch.setattr(weeding, "CHUNK", 3)
    item = await sent(room, 10)
    died, real, chunks = RuntimeError("killed"), weeding.step, []

    async def dying(*args: Any, **options: Any) -> Any:
        done = await real(*args, **options)
        chunks.append(done)
        if len(chunks) in (2, 5):
            raise died
        return done

    monkeypatch.setattr(weeding, "step", dying)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await weed(room, wait)
    await weed(room, wait)
    rows = await room.rows()
    assert [row for row in rows if row.address] == []
    assert len(rows) == (0 if wait == LEDGER_DAYS else 10)
    assert sum(step.dropped for step in chunks if step) <= (10 + 6) * 2, "a chunk that died is done again, and no other"
    assert [(one.state, one.count) for one in await counts(room, item.item_id)] == [(SENT, 10)]


async def test_a_mail_of_its_own_is_forgotten_after_a_month(room: Room) -> None:
    """What a receipt said may name somebody else: a group's contact person reads who was removed."""
    await sent(room, 2)
    told = RequestContent(subject="En medlem har tagits bort", paragraphs=("Borttagen ur Samverkan: Bo Alm.",))
    about = {"subject_kind": SubjectKind.REQUEST, "revision": 0, "form": Form.PREFERENCES, "lane": Lane.TRANSACTIONAL}
    mail = batch(snapshot(uuid4()), people(1), **about)
    await room.hear(mail.model_copy(update={"item": None, "request": told}))
    await room.drain()
    assert await weed(room, timedelta(days=29)) == NOTHING
    assert await weed(room, timedelta(days=31)) == {**NOTHING, "requests_forgotten": 1}
    async with room.database.reading() as session:
        assert "Bo Alm" not in str((await session.execute(select(contents))).all())
    assert [row.address for row in await room.rows(subject_kind="request")] == [None]
    assert None not in [row.address for row in await room.rows(subject_kind="item")]


async def test_what_has_not_ended_is_left(room: Room) -> None:
    item = snapshot(uuid4())
    await room.hear(batch(item, people(3)))
    assert (await weed(room, LEDGER_DAYS)) == NOTHING
    await room.drain()
    assert len(room.sender.dispatched) == 3
    assert (await weed(room, LEDGER_DAYS))["weeded"] == 3


async def test_reach_of_a_weeded_item_adds_up_and_says_who_cannot_be_told(room: Room) -> None:
    left_out = Exclusion(recipient_id=uuid4(), audience=Audience.POLITICIAN, reason=ExclusionReason.PAUSED)
    item = await sent(room, 4, exclusions=(left_out,))
    await weed(room, LEDGER_DAYS)
    assert await room.rows() == []
    async with room.database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(Attempt)) == 0
        assert await session.scalar(select(func.count()).select_from(exclusions)) == 0
    assert [(one.state, one.count) for one in await counts(room, item.item_id)] == [(SENT, 4)]
    for _ in range(2):  # the event may come twice
        await room.hear(corrected(item))
        await room.follow_up()
    told = await counts(room, item.item_id)
    assert {(one.revision, one.state, one.unreachable, one.count) for one in told} == {
        (1, SENT, False, 4),
        (2, CANCELLED, True, 4),
    }
    (shown,) = follow_ups(told)
    assert (shown.form, shown.planned, shown.unreachable) == (Form.CORRECTION, 4, 4)


async def test_who_is_forgotten_cannot_be_told_of_a_correction(room: Room) -> None:
    item = await sent(room, 3)
    await weed(room, PERSONAL_DAYS)
    await room.hear(batch(item, people(1)))
    await room.drain()
    room.sender.dispatched.clear()
    await room.hear(corrected(item))
    await room.follow_up()
    await room.drain()
    assert [d.form for d in room.sender.dispatched] == [Form.CORRECTION]
    (shown,) = follow_ups(await counts(room, item.item_id))
    assert (shown.planned, shown.sent, shown.unreachable) == (4, 1, 3)


async def test_an_intranet_is_told_however_old_the_item_is(room: Room) -> None:
    item, hooks = snapshot(uuid4()), MemorySender(Channel.WEBHOOK)
    await room.hear(NewsPublished(item=item))
    async with room.database.transaction() as session:
        await accept_endpoints(session, item, [uuid4()], CLOCK.now())
    room.sender = hooks
    await room.drain()
    await weed(room, LEDGER_DAYS)
    assert [(row.channel, row.state) for row in await room.rows()] == [(Channel.WEBHOOK, SENT)]
    assert await room.attempts() == []
    await room.hear(corrected(item))
    await room.follow_up()
    await room.drain()
    assert [d.form for d in hooks.dispatched][-1] is Form.CORRECTION


async def test_the_words_of_a_mail_of_its_own_go_with_it(room: Room) -> None:
    (person,) = people(1)
    secret = RequestContent(
        subject="Logga in", paragraphs=("Hej",), action_label="Logga in", action_url="https://x/hemlig"
    )
    about = {"subject_kind": SubjectKind.REQUEST, "revision": 0, "form": Form.SIGN_IN, "lane": Lane.TRANSACTIONAL}
    mail = batch(snapshot(uuid4()), (person,), **about)
    await room.hear(mail.model_copy(update={"item": None, "request": secret}))
    await room.drain()
    await weed(room, PERSONAL_DAYS)
    async with room.database.reading() as session:
        assert [row.request for row in await session.execute(select(contents))] == [None]
    await weed(room, LEDGER_DAYS)
    async with room.database.reading() as session:
        assert (await session.execute(select(contents))).all() == []
        assert (await session.execute(select(deliveries))).all() == []


async def test_stops_that_say_nothing_any_more_go(room: Room) -> None:
    left, paused, back, gone = (uuid4() for _ in range(4))
    stop = {"scope": StopScope.ALL, "version": 1}
    await room.hear(RecipientStopped(recipient_id=left, **stop))
    await room.hear(RecipientStopped(recipient_id=paused, until=CLOCK.now() + timedelta(days=1), **stop))
    await room.hear(RecipientResumed(recipient_id=back, **stop))
    await room.hear(RecipientErased(recipient_id=gone, version=1))
    assert (await weed(room, LEDGER_DAYS))["stops"] == 2
    async with room.database.reading() as session:
        assert set(await session.scalars(select(stops.c.recipient_id))) == {left, gone}


async def park(room: Room, body: bytes, event_type: str = "se.budkavle.mail.requested.v1") -> None:
    incoming = Incoming(str(uuid4()), body, attempt=5)
    async with room.database.transaction() as session:
        verdict = DeadLetter("retries_exhausted", "")
        await dead_letters.park(session, "distributor.mail.news", incoming, verdict, event_type, CLOCK.now())


async def test_dead_letters_do_not_outlive_what_is_personal(room: Room) -> None:
    await park(room, b"{}")
    assert (await weed(room, timedelta(days=300)))["dead_letters"] == 0
    assert (await weed(room, PERSONAL_DAYS))["dead_letters"] == 1


async def test_an_erasure_reaches_the_dead_letters(room: Room) -> None:
    leaves, stays = people(2)
    whole = json.dumps({"data": batch(snapshot(uuid4()), (leaves, stays)).model_dump(mode="json")}).encode()
    await park(room, whole)
    await park(room, b"\xff" + str(leaves.recipient_id).encode() + b"person0@kommun.example")
    await room.hear(RecipientErased(recipient_id=leaves.recipient_id, version=1))
    async with room.database.reading() as session:
        bodies = [row["body"] for row in (await session.execute(select(dead_letters.dead_letters))).mappings()]
    assert sorted(len(body) > 0 for body in bodies) == [False, True]
    kept = json.loads(max(bodies))["data"]["recipients"]
    assert [one["recipient_id"] for one in kept] == [str(stays.recipient_id)]
    assert not any(leaves.address.encode() in body for body in bodies)


async def test_an_erasure_is_done_once_more(room: Room) -> None:
    (leaves,) = people(1)
    key = new_id()
    await room.hear(RecipientErased(recipient_id=leaves.recipient_id, version=1))
    await room.hear(batch(snapshot(key), (leaves,)))
    await room.force(address="blev@kvar.example")
    await retention_in(room, timedelta(minutes=1)).settle_erasures()
    assert [row.address for row in await room.rows()] == ["blev@kvar.example"]
    await retention_in(room, timedelta(minutes=6)).settle_erasures()
    assert [row.address for row in await room.rows()] == [None]
    async with room.database.reading() as session:
        assert await session.scalar(select(stops.c.look_again_at)) is None
