"""When to try again, by table."""

from datetime import timedelta

import pytest
from pydantic import ValidationError
from tests.unit.distributor.mail_examples import settings

from distributor.channels import Fault, Outcome
from distributor.retry_policy import SCHEDULES, SILENT_AFTER_DOT, decide, jittered
from distributor.states import BOUNCED, DEFERRED, FAILED, SENT, TRANSITIONS, UNCERTAIN
from shared.contracts.delivery import Channel, DeliveryState

S = timedelta(seconds=1)
HOURS = 3600 * S


def judge(outcome, *, channel=Channel.MAIL, attempts=1, repeats=0, repeat=True):
    return decide(channel, outcome, attempts=attempts, repeats=repeats, repeat_doubtful=repeat)


def test_the_webhook_schedule_is_the_promised_one() -> None:
    waits = [judge(Outcome(DEFERRED, 500), channel=Channel.WEBHOOK, attempts=n).wait for n in range(1, 10)]
    assert waits == [5 * S, 300 * S, 1800 * S, 2 * HOURS, 5 * HOURS, 10 * HOURS, 14 * HOURS, 20 * HOURS, 24 * HOURS]
    assert sum(waits, timedelta()) >= 75 * HOURS
    assert judge(Outcome(DEFERRED, 500), channel=Channel.WEBHOOK, attempts=10).state is FAILED


def test_mail_is_tried_for_three_days() -> None:
    assert 72 * HOURS <= sum(SCHEDULES[Channel.MAIL], timedelta()) <= 96 * HOURS


@pytest.mark.parametrize("state", [SENT, BOUNCED, FAILED])
def test_final_outcomes_are_final(state: DeliveryState) -> None:
    assert judge(Outcome(state)).wait is None


def test_a_refusal_without_a_reason_is_asked_again_once() -> None:
    """It may have been said to everybody, which is known only when it was."""
    bare = Outcome(FAILED, 554, reply="transaction failed", phase="dot", fault=Fault.CONTENT)
    first, second = judge(bare), judge(bare, attempts=2)
    assert (first.state, first.wait) == (DEFERRED, 60 * S)
    assert (second.state, second.wait) == (FAILED, None)
    assert judge(Outcome(FAILED, 554, "5.6.0", phase="dot", fault=Fault.CONTENT)).state is FAILED


def test_a_doubtful_mail_is_repeated_once_after_ten_minutes() -> None:
    assert judge(Outcome(UNCERTAIN)).wait == SILENT_AFTER_DOT == timedelta(minutes=10)
    assert judge(Outcome(UNCERTAIN), repeats=1).wait is None
    assert judge(Outcome(UNCERTAIN), repeat=False).wait is None


@pytest.mark.parametrize(
    ("policy", "repeated"),
    [("repeat", {0, 1, 2, 3}), ("hold", set()), ("hold:digest", {0, 1, 2}), ("hold:news,press", {0, 3})],
)
def test_doubtful_mail_is_repeated_or_held_by_lane(policy: str, repeated: set[int]) -> None:
    assert settings(uncertain=policy).repeated_lanes == repeated


@pytest.mark.parametrize("policy", ["", "hold:", "hold:everybody", "repeat:news", "hold:news,"])
def test_a_policy_that_is_none_stops_the_start(policy: str) -> None:
    with pytest.raises(ValidationError, match="uncertain"):
        settings(uncertain=policy)


def test_a_broken_relay_counts_for_nobody() -> None:
    verdict = judge(Outcome(DEFERRED, fault=Fault.SYSTEM, counts=False), attempts=99)
    assert verdict.state is DEFERRED
    assert verdict.wait is not None and verdict.wait <= 60 * S


def test_the_receiver_may_ask_for_a_longer_wait_never_for_a_shorter_or_an_endless_one() -> None:
    assert judge(Outcome(DEFERRED, 429, retry_after=1 * HOURS)).wait == 1 * HOURS
    assert judge(Outcome(DEFERRED, 429, retry_after=1 * S)).wait == 60 * S
    assert judge(Outcome(DEFERRED, 429, retry_after=999 * HOURS)).wait == 24 * HOURS


def test_jitter_is_only_ever_added() -> None:
    assert jittered(10 * S, 1.0, draw=0.0) == 10 * S
    assert jittered(10 * S, 1.0, draw=1.0) == 12 * S


def test_nobody_waits_longer_than_a_day_by_jitter() -> None:
    assert jittered(20 * HOURS, 1.0, draw=1.0) == jittered(24 * HOURS, 1.0, draw=1.0) == 24 * HOURS


def test_every_state_has_its_line_and_what_is_sent_can_only_bounce() -> None:
    assert set(TRANSITIONS) == set(DeliveryState)
    assert TRANSITIONS[SENT] == {BOUNCED}
