"""When to try again: schedules are data, the decision is a pure function.

Jitter is only ever added, so that no receiver is asked earlier than it asked for.
"""

import random
from dataclasses import dataclass
from datetime import timedelta

from distributor.channels import Fault, Outcome
from distributor.states import DEFERRED, FAILED, UNCERTAIN
from shared.contracts.delivery import Channel, DeliveryState

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)

SCHEDULES: dict[Channel, tuple[timedelta, ...]] = {
    # Greylisting opens after one to five minutes; a full mailbox or a server under repair needs days: 73 h in all.
    Channel.MAIL: (
        1 * MINUTE,
        5 * MINUTE,
        15 * MINUTE,
        30 * MINUTE,
        1 * HOUR,
        2 * HOUR,
        4 * HOUR,
        8 * HOUR,
        12 * HOUR,
        21 * HOUR,
        24 * HOUR,
    ),
    # An intranet under repair answers 404 for a day; a long weekend must be survived: 75 h 35 min and ten tries.
    Channel.WEBHOOK: (
        timedelta(seconds=5),
        5 * MINUTE,
        30 * MINUTE,
        2 * HOUR,
        5 * HOUR,
        10 * HOUR,
        14 * HOUR,
        20 * HOUR,
        24 * HOUR,
    ),
}
JITTER = 0.2
"""At most a fifth more: spreads a herd, stays near the schedule."""

NOT_OUR_TURN = timedelta(seconds=10)
"""Wait after a try that does not count, unless the channel knows better (an endpoint with all its places taken)."""

SILENT_AFTER_DOT = 10 * MINUTE
"""A server that fell silent after the final dot may still be delivering: look again when it has given up or is done."""

LONGEST_WAIT = 24 * HOUR
"""Jitter included: whoever waits a whole day has been spread by the waits before it."""

RETRIES_EXHAUSTED = "retries_exhausted"
"""Why a delivery was given up that its receiver only ever put off."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the delivery: its state, and when it is due again (`None`: never by itself)."""

    state: DeliveryState
    wait: timedelta | None = None
    reason: str = ""


def decide(channel: Channel, outcome: Outcome, *, attempts: int, repeats: int, repeat_doubtful: bool) -> Verdict:
    """Judge `outcome`. `attempts` counts this one if it counts; `repeats` are tries made in doubt so far."""
    if outcome.state is UNCERTAIN:
        return _doubtful(repeats, repeat_doubtful)
    if outcome.state is not DEFERRED:
        again = attempts == 1 and is_unexplained(outcome)
        return Verdict(DEFERRED, SCHEDULES[channel][0]) if again else Verdict(outcome.state)
    if not outcome.counts:
        return Verdict(DEFERRED, outcome.retry_after or NOT_OUR_TURN)
    schedule = SCHEDULES[channel]
    if attempts > len(schedule):
        return Verdict(FAILED, reason=RETRIES_EXHAUSTED)
    wait = max(schedule[attempts - 1], outcome.retry_after or timedelta(0))
    return Verdict(DEFERRED, min(wait, LONGEST_WAIT))


def jittered(wait: timedelta, scale: float, draw: float | None = None) -> timedelta:
    """`wait` and up to a fifth more, but no longer than a day, times `scale` (1 in production)."""
    share = random.random() if draw is None else draw  # noqa: S311 - spreading load, guarding nothing
    return min(wait * (1 + JITTER * share), LONGEST_WAIT) * scale


def _doubtful(repeats: int, repeat_doubtful: bool) -> Verdict:
    if repeat_doubtful and repeats == 0:
        return Verdict(UNCERTAIN, SILENT_AFTER_DOT)
    return Verdict(UNCERTAIN, reason="held")


def is_unexplained(outcome: Outcome) -> bool:
    """Whether the mail was refused for good and without a reason. It may have been said to everybody, which shows only
    when it has been said to ten; asked again, the first nine fare like the others.
    """
    return outcome.state is FAILED and outcome.fault is Fault.CONTENT and bool(outcome.code) and not outcome.enhanced


def is_systemic(outcome: Outcome) -> bool:
    """Whether the way out itself is broken, so that the next delivery would fare no better."""
    return outcome.fault is Fault.SYSTEM and not outcome.counts
