"""The mail channel when its way out refuses everybody, and when it has a limit of its own."""

import asyncio
import time
from collections.abc import Callable
from uuid import uuid4

import pytest
import structlog
from tests.eventually import eventually
from tests.integration.distributor.conftest import Room, batch, people, snapshot

from distributor import delivery
from distributor.channels import Dispatch, Fault, Outcome
from distributor.delivery import DeliveryWorker
from distributor.states import DEFERRED, SENT
from shared.contracts.delivery import Channel

BLOCKED = Outcome(DEFERRED, 554, "5.7.1", "5.7.1 blocked", phase="rcpt", fault=Fault.SYSTEM)
OK = Outcome(SENT, 250)


@pytest.fixture
def quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "REFUSED_FIRST_S", 1000.0)  # times the room's retry_scale: 0.1 s
    monkeypatch.setattr(delivery, "REFUSED_LONGEST_S", 1000.0)


async def running(room: Room, until: Callable[[], bool]) -> DeliveryWorker:
    stop, worker = asyncio.Event(), room.worker()
    task = asyncio.create_task(worker.run(stop))
    try:
        await eventually(until, within=20)
    finally:
        stop.set()
        await task
    return worker


def gauge() -> float:
    value: float = delivery.paused.labels(Channel.MAIL)._value.get()
    return value


async def test_the_same_refusal_of_everybody_pauses_the_channel_and_one_probe_resumes_it(
    room: Room, quick_pauses: None
) -> None:
    refused: list[Dispatch] = []
    heard_after_pause: list[Dispatch] = []

    def answer(dispatch: Dispatch) -> Outcome:
        if len(refused) < 16:
            refused.append(dispatch)
            return BLOCKED
        heard_after_pause.append(dispatch)
        return OK

    room.sender.answer = answer
    await room.hear(batch(snapshot(uuid4()), people(60)))
    with structlog.testing.capture_logs() as logs:
        await running(room, lambda: len({one.recipient_id for one in heard_after_pause}) == 60)
    pauses = [line for line in logs if line["event"] in ("channel_refused", "channel_paused")]
    assert (pauses[0]["event"], pauses[0]["log_level"], pauses[0]["code"]) == ("channel_refused", "error", 554)
    assert [line["event"] for line in logs if line["event"].startswith("channel_")][-1] == "channel_resumed"
    assert gauge() == 0
    rows = await room.rows()
    assert {row.state for row in rows} == {"sent"}, "resume sends all"
    assert max(row.attempts for row in rows) <= 2
    counted = sum(row.attempts for row in rows) - 60
    assert counted == 9, "from the tenth on no try counts"


async def test_while_the_channel_is_paused_only_probes_go_out(room: Room, quick_pauses: None) -> None:
    room.sender.answer = lambda _: BLOCKED
    await room.hear(batch(snapshot(uuid4()), people(200)))
    stop = asyncio.Event()
    task = asyncio.create_task(room.worker().run(stop))
    await eventually(gauge)
    began, before = time.monotonic(), len(room.sender.dispatched)
    await eventually(lambda: len(room.sender.dispatched) >= before + 5, within=20)
    took = time.monotonic() - began
    stop.set()
    await task
    assert took >= 0.35, "one probe a pause"
    rows = await room.rows()
    assert not {"bounced", "failed", "uncertain"} & {row.state for row in rows}
    assert sum(row.attempts for row in rows) == 9
    delivery.paused.labels(Channel.MAIL).set(0)


async def test_a_probe_that_is_called_off_leaves_its_place_to_another(room: Room, quick_pauses: None) -> None:
    item = snapshot(uuid4())
    answers = iter([BLOCKED] * 10)
    room.sender.answer = lambda _: next(answers, OK)
    room.sender.slots = 1
    await room.hear(batch(item, people(30)))
    stop = asyncio.Event()
    worker = room.worker()
    task = asyncio.create_task(worker.run(stop))
    await eventually(gauge)
    worker._breaker.probe()
    assert worker._breaker.may_begin()  # someone has the probe's place, and its turn is not granted
    worker._never_began()
    await eventually(lambda: len(room.sender.dispatched) >= 40, within=20)
    stop.set()
    await task
    assert {row.state for row in await room.rows()} == {"sent"}


async def test_so_many_mails_a_minute_and_no_more(room: Room) -> None:
    room.settings = room.settings.model_copy(update={"smtp_rate_per_minute": 1200})
    await room.hear(batch(snapshot(uuid4()), people(60)))
    began = time.monotonic()
    await running(room, lambda: len(room.sender.dispatched) == 60)
    took = time.monotonic() - began
    assert took >= 1.9, "20 at once, then 20 a second"
