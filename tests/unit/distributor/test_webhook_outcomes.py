"""What each answer means, by table; what a receiver's words look like; who may wait for an endpoint."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributor.webhooks.client import Answer, Silence, Why
from distributor.webhooks.sending import (
    SLOTS_PER_ENDPOINT,
    WAITING_PER_ENDPOINT,
    Crowded,
    Crowds,
    classified,
    readable,
    retry_after,
)
from shared.contracts.delivery import DeliveryState

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
DAY = timedelta(hours=24)


def answer(status: int, *, body: bytes = b"", wait: str | None = None) -> Answer:
    return Answer(status, body, wait, timedelta(milliseconds=5))


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_sent(status: int) -> None:
    assert classified(answer(status), NOW).state is DeliveryState.SENT


def test_410_is_failed() -> None:
    outcome = classified(answer(410), NOW)
    assert (outcome.state, outcome.code) == (DeliveryState.FAILED, 410)


@pytest.mark.parametrize(
    "status", [300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 413, 418, 429, 500, 502, 503, 504, 599, 999]
)
def test_any_other_answer_is_tried_again(status: int) -> None:
    outcome = classified(answer(status, body=b"inte nu"), NOW)
    assert (outcome.state, outcome.code, outcome.reply) == (DeliveryState.DEFERRED, status, "inte nu")
    assert outcome.counts
    assert outcome.retry_after is None


@pytest.mark.parametrize("why", [why for why in Why if why is not Why.DENIED])
def test_silence_is_tried_again(why: Why) -> None:
    outcome = classified(Silence(why, "i ord", timedelta(1)), NOW)
    assert (outcome.state, outcome.reply, outcome.counts) == (DeliveryState.DEFERRED, "i ord", True)


def test_a_denied_address_is_given_up() -> None:
    outcome = classified(Silence(Why.DENIED, "url_not_allowed: the address is loopback", timedelta(0)), NOW)
    assert outcome.state is DeliveryState.FAILED
    assert outcome.reply.startswith("url_not_allowed")


@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_may_ask_for_time(status: int) -> None:
    assert classified(answer(status, wait="120"), NOW).retry_after == timedelta(seconds=120)


def test_others_may_not() -> None:
    assert classified(answer(500, wait="120"), NOW).retry_after is None
    assert classified(answer(200, wait="120"), NOW).retry_after is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", timedelta(0)),
        (" 30 ", timedelta(seconds=30)),
        ("86400", DAY),
        ("1000000000", DAY),
        ("9" * 4000, DAY),
        ("Sun, 22 Nov 2026 12:10:00 GMT", timedelta(minutes=10)),
        ("Sunday, 22-Nov-26 12:10:00 GMT", timedelta(minutes=10)),
        ("Sun, 22 Nov 2026 12:10:00 -0000", timedelta(minutes=10)),
        ("Sun, 22 Nov 2026 11:00:00 GMT", timedelta(0)),
        ("Wed, 22 Nov 2028 12:00:00 GMT", DAY),
        (None, None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("1e9", None),
        ("Sun, 99 Nov 2026 99:99:99 GMT", None),
        ("Sun, 22 Nov 99999999999 12:00:00 GMT", None),
        ("22 Nov 2026 12:00:00 +9999999999", None),
    ],
)
def test_retry_after(text: str | None, expected: timedelta | None) -> None:
    assert retry_after(text, NOW) == expected


@given(st.text())
def test_retry_after_never_raises_and_never_leaves_its_bounds(text: str) -> None:
    wait = retry_after(text, NOW)
    assert wait is None or timedelta(0) <= wait <= DAY


@given(st.integers(0, 10**30), st.datetimes(datetime(1990, 1, 1), datetime(2900, 1, 1), timezones=st.just(UTC)))
def test_f49_retry_after_is_what_was_asked_for_at_most_a_day(seconds: int, until: datetime) -> None:
    assert retry_after(str(seconds), NOW) == timedelta(seconds=min(seconds, 86_400))
    asked = until.replace(microsecond=0) - NOW
    assert retry_after(format_datetime(until, usegmt=True), NOW) == min(max(asked, timedelta(0)), DAY)


@given(st.binary(max_size=9000))
def test_b35_words_are_harmless(raw: bytes) -> None:
    shown = readable(raw)
    assert shown.isprintable()
    assert len(shown.encode()) <= 4096


def test_words_stay_readable() -> None:
    assert readable("Går inte just nu".encode()) == "Går inte just nu"
    assert readable(b"\x1b[31mred\x00\r\n\xff") == "\\x1b[31mred\\x00\\r\\n\\xff"
    assert readable("\u202eevil\u2028".encode()) == "\\u202eevil\\u2028"


async def test_an_endpoint_takes_a_few_and_lets_a_few_wait() -> None:
    crowds, key, inside, leave = Crowds(), uuid4(), asyncio.Semaphore(0), asyncio.Event()

    async def visit() -> str:
        try:
            await crowds.enter(key)
        except Crowded:
            return "turned away"
        inside.release()
        await leave.wait()
        crowds.leave(key)
        return "came in"

    visits = [asyncio.create_task(visit()) for _ in range(SLOTS_PER_ENDPOINT + WAITING_PER_ENDPOINT + 3)]
    for _ in range(SLOTS_PER_ENDPOINT):
        await inside.acquire()
    turned_away, _ = await asyncio.wait(visits, return_when=asyncio.FIRST_COMPLETED)
    assert {task.result() for task in turned_away} == {"turned away"}
    leave.set()
    results = await asyncio.gather(*visits)
    assert results.count("came in") == SLOTS_PER_ENDPOINT + WAITING_PER_ENDPOINT
    assert len(crowds) == 0


async def test_waiting_for_an_endpoint_ends() -> None:
    crowds, key, other = Crowds(), uuid4(), uuid4()
    for _ in range(SLOTS_PER_ENDPOINT):
        await crowds.enter(key)
    with pytest.raises(Crowded):
        await crowds.enter(key)
    await crowds.enter(other)
    crowds.leave(other)
    given_up = asyncio.create_task(crowds.enter(key))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    for _ in range(SLOTS_PER_ENDPOINT):
        crowds.leave(key)
    assert len(crowds) == 0


async def test_a_place_that_comes_as_its_heir_gives_up_is_not_lost() -> None:
    crowds, key = Crowds(), uuid4()
    for _ in range(SLOTS_PER_ENDPOINT):
        await crowds.enter(key)
    heir = asyncio.create_task(crowds.enter(key))
    await asyncio.sleep(0)
    crowds.leave(key)
    heir.cancel()
    with pytest.raises(asyncio.CancelledError):
        await heir
    await crowds.enter(key)
    for _ in range(SLOTS_PER_ENDPOINT):
        crowds.leave(key)
    assert len(crowds) == 0
