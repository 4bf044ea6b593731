"""Manners that are pure decisions: when to stop knocking, how fast to begin, how many a minute and a domain."""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from heapq import heappop, heappush
from typing import Any
from uuid import UUID, uuid4

import pytest

from distributor.breaker import EQUALS, Breaker, Flow, Heard, Pauses
from distributor.channels import Fault, Outcome
from distributor.mail import domains
from distributor.mail.domains import Crowded, DomainPace
from distributor.mail.replies import Phase, greylisted
from distributor.mail.slow_start import PROBE_EVERY, SlowStart
from distributor.pace import Pace
from shared.contracts.delivery import DeliveryState
from shared.contracts.mail import Lane

SENT, DEFERRED, BOUNCED, FAILED, UNCERTAIN = (
    DeliveryState.SENT,
    DeliveryState.DEFERRED,
    DeliveryState.BOUNCED,
    DeliveryState.FAILED,
    DeliveryState.UNCERTAIN,
)
ACCEPTED = Outcome(SENT, 250)
AWAY = Outcome(DEFERRED, phase="connect", fault=Fault.SYSTEM, counts=False)
BLOCKED = Outcome(DEFERRED, 554, "5.7.1", "blocked", phase="rcpt", fault=Fault.SYSTEM)


def breaker() -> Breaker:
    return Breaker(Pauses(1, 30), Pauses(30, 300))


def hear(one: Breaker, *outcomes: Outcome, at: float = 0.0, who: UUID | None = None) -> Heard:
    for outcome in outcomes:
        heard = one.hear(who or uuid4(), outcome, at)
    return heard


def probed(one: Breaker, outcome: Outcome) -> Heard:
    one.probe()
    assert one.may_begin()
    return hear(one, outcome)


@pytest.mark.parametrize(
    ("refusal", "trips"),
    [
        (BLOCKED, True),
        (Outcome(DEFERRED, 550, "5.7.26", phase="dot", fault=Fault.SYSTEM), True),
        (Outcome(DEFERRED, 550, "5.7.1", phase="mail", fault=Fault.SYSTEM, counts=False), True),
        (Outcome(DEFERRED, 535, "5.7.8", phase="auth", fault=Fault.SYSTEM, counts=False), True),
        (Outcome(DEFERRED, 451, "4.3.0", phase="data", fault=Fault.SYSTEM), True),
        (Outcome(DEFERRED, 452, "4.3.1", phase="dot", fault=Fault.SYSTEM), True),
        (Outcome(DEFERRED, 451, "", "local error", phase="dot"), True),
        (Outcome(DEFERRED, 421, "4.3.2", phase="rcpt", fault=Fault.SYSTEM), True),
        (Outcome(FAILED, 554, "", "transaction failed", phase="dot", fault=Fault.CONTENT), True),
        (Outcome(FAILED, 554, "5.6.0", phase="dot", fault=Fault.CONTENT), False),
        (Outcome(BOUNCED, 550, "5.1.1", phase="rcpt", fault=Fault.RECIPIENT), False),
        (Outcome(DEFERRED, 452, "4.2.2", phase="rcpt", fault=Fault.RECIPIENT), False),
        (Outcome(DEFERRED, 450, "4.7.1", phase="rcpt", retry_after=timedelta(minutes=5)), False),
        (Outcome(DEFERRED, phase="data", fault=Fault.SYSTEM), True),
        (Outcome(UNCERTAIN, phase="dot"), True),
        (Outcome(DEFERRED, reply="busy", phase="wait", counts=False), False),
        (ACCEPTED, False),
    ],
)
def test_what_may_be_said_to_everybody_stops_the_channel_the_tenth_time(refusal: Outcome, trips: bool) -> None:
    one = breaker()
    for _ in range(EQUALS - 1):
        heard = hear(one, refusal)
        assert not heard.alert
        if one.flow is Flow.PAUSED:  # the relay is away
            one.probe()
    heard = hear(one, refusal)
    assert (heard.alert, heard.pause_s >= 30, one.flow is Flow.PAUSED) == (trips, trips, trips)


def test_from_then_on_no_try_is_counted_and_nobody_is_given_up() -> None:
    one = breaker()
    bare = Outcome(FAILED, 554, "", "transaction failed", phase="dot", fault=Fault.CONTENT)
    heard = [hear(one, bare).outcome for _ in range(12)]
    assert [outcome.counts for outcome in heard] == [True] * 9 + [False] * 3
    assert {(outcome.state, outcome.fault) for outcome in heard[9:]} == {(DEFERRED, Fault.SYSTEM)}


def test_what_is_in_doubt_stays_so_however_many_are() -> None:
    one = breaker()
    heard = [hear(one, Outcome(UNCERTAIN, phase="dot")).outcome for _ in range(12)]
    assert {(outcome.state, outcome.counts) for outcome in heard} == {(UNCERTAIN, True)}
    assert one.flow is Flow.PAUSED
    assert probed(one, Outcome(UNCERTAIN, phase="dot")).pause_s == 60, "one doubt a pause"


def test_pauses_grow_while_the_probe_is_refused_and_end_with_any_other_answer() -> None:
    one = breaker()
    assert hear(one, *[BLOCKED] * EQUALS).pause_s == 30
    assert [probed(one, BLOCKED).pause_s for _ in range(5)] == [60, 120, 240, 300, 300]
    assert not one.may_begin()
    assert probed(one, Outcome(BOUNCED, 550, "5.1.1", fault=Fault.RECIPIENT)).resumed
    assert (one.flow, one.may_begin(), one.may_begin()) == (Flow.FLOWING, True, True)
    assert not hear(one, *[BLOCKED] * (EQUALS - 1)).alert, "it counts anew"


def test_a_probe_is_one_delivery_and_another_if_it_told_nothing() -> None:
    one = breaker()
    assert hear(one, AWAY).pause_s == 1
    assert not one.may_begin()
    one.probe()
    assert [one.may_begin() for _ in range(3)] == [True, False, False]
    one.never_began()
    assert [one.may_begin() for _ in range(2)] == [True, False]
    assert hear(one, Outcome(DEFERRED, phase="wait", counts=False)) == Heard(
        Outcome(DEFERRED, phase="wait", counts=False)
    )
    assert [one.may_begin() for _ in range(2)] == [True, False]
    assert hear(one, AWAY).pause_s == 2


def test_what_began_before_the_pause_changes_nothing() -> None:
    one = breaker()
    assert hear(one, AWAY).pause_s == 1
    assert hear(one, AWAY, AWAY, ACCEPTED).pause_s == 0
    assert one.flow is Flow.PAUSED
    assert probed(one, AWAY).pause_s == 2


def test_ten_times_means_ten_deliveries_within_a_minute_beyond_those_accepted() -> None:
    one = breaker()
    assert not any(hear(one, BLOCKED, at=7.0 * n).alert for n in range(30)), "too far apart"
    assert not any(hear(breaker(), BLOCKED, who=UUID(int=1)).alert for _ in range(30)), "one delivery"
    one = breaker()
    assert not any(hear(one, BLOCKED, ACCEPTED).alert or hear(one, BLOCKED, ACCEPTED).alert for _ in range(30)), "half"
    one = breaker()
    others = (Outcome(DEFERRED, 550, f"5.7.{n}", fault=Fault.SYSTEM) for n in range(30))
    assert not any(hear(one, other).alert for other in others), "not the same"


def test_webhooks_receivers_have_nothing_in_common() -> None:
    one = Breaker(Pauses(1, 30))
    assert not any(hear(one, Outcome(DEFERRED, 503)).pause_s for _ in range(30))


def test_connections_grow_with_what_is_accepted_and_halve_when_they_are_too_many() -> None:
    places = SlowStart(16)
    assert places.allowed == 2
    for _ in range(20):
        places.accepted()
    assert places.allowed == 16
    places.ease()
    assert places.allowed == 15
    places.accepted()
    places.back_away()
    assert places.allowed == 8
    for _ in range(PROBE_EVERY - 1):
        places.accepted()
    assert places.allowed == 8
    places.accepted()
    assert places.allowed == 9
    for _ in range(9):
        places.back_away()
        places.ease()
    assert places.allowed == 1
    places.begin()
    assert places.allowed == 2
    assert SlowStart(1).allowed == 1


def test_so_many_a_minute() -> None:
    pace, now, taken = Pace(120), 0.0, []
    while now < 60:
        taken += [now] * pace.free(now)
        pace.take(pace.free(now))
        now += pace.wait_s(now)
    assert 120 <= len(taken) <= 122
    assert sum(at < 1 for at in taken) <= 4
    unlimited = Pace(0)
    unlimited.take(1000)
    assert unlimited.free(0) > 1000
    assert unlimited.wait_s(0) == 0


@dataclass(frozen=True)
class Going:
    """As much of a dispatch as a domain's pace looks at."""

    address: str
    lane: Lane = Lane.DIGEST
    delivery_id: UUID = field(default_factory=uuid4)


def gone(pace: DomainPace, due: list[tuple[float, int, Any]]) -> list[tuple[float, Any]]:
    """Who went when, if each comes back up to a fifth later than it was told to."""
    went = []
    while due:
        now, number, going = heappop(due)
        try:
            pace.enter(going, now)
            went.append((now, going))
        except Crowded as busy:
            heappush(due, (now + busy.wait.total_seconds() * (1 + number % 5 / 20), number, going))
    return went


def test_so_many_a_minute_and_domain_and_each_comes_in_turn() -> None:
    went = gone(DomainPace(60), [(0.0, number, Going(f"p{number}@Trog.example")) for number in range(600)])
    at = [now for now, _ in went]
    assert max(sum(one <= other < one + 60 for other in at) for one in at) <= 62
    assert at[-1] < 600 * 1.25, "a minute's share is used"


def test_at_a_domain_the_stronger_lane_does_not_stand_in_line() -> None:
    digest = [(0.0, number, Going("d@trog.example")) for number in range(300)]
    press = [(10.0, number, Going("p@trog.example", Lane.PRESS)) for number in range(300, 330)]
    others = [(5.0, 400, Going("a@kommun.example")), (5.0, 401, Going("s@trog.example", Lane.TRANSACTIONAL))]
    went = gone(DomainPace(60), [*digest, *press, *others])
    assert max(now for now, going in went if going.lane is Lane.PRESS) < 50, "not behind 300 digests"
    assert [now for now, going in went if going in (others[0][2], others[1][2])] == [5.0, 5.0]
    at = [now for now, going in went if "trog" in going.address]
    assert max(sum(one <= other < one + 60 for other in at) for one in at) <= 62


def test_a_domain_s_pace_does_not_remember_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domains, "MOST_KEPT", 5)
    pace = DomainPace(60)
    for number in range(20):
        at = number * 2_000.0
        for _ in range(8):
            with suppress(Crowded):
                pace.enter(Going(f"p@d{number}.example"), at)  # type: ignore[arg-type]
    assert len(pace._lines) <= 7
    assert len(pace._paces) <= 7
    assert len(pace._turns) <= 21


@pytest.mark.parametrize(
    ("phase", "code", "enhanced", "text", "is_it"),
    [
        (Phase.RCPT, 450, "4.7.1", "4.7.1 come back", True),
        (Phase.RCPT, 451, "4.7.1", "4.7.1 Greylisting in action", True),
        (Phase.RCPT, 451, "", "Greylisted, see http://postgrey.example", True),
        (Phase.DOT, 451, "4.7.0", "4.7.0 graylisted", True),
        (Phase.RCPT, 450, "4.2.0", "4.2.0 mailbox busy", False),
        (Phase.DOT, 451, "4.7.1", "4.7.1 later", False),
        (Phase.MAIL, 451, "4.7.1", "4.7.1 greylisted", False),
        (Phase.RCPT, 550, "5.7.1", "5.7.1 not on the greylist", False),
        (Phase.RCPT, None, "", "greylist", False),
    ],
)
def test_greylisting_is_known_by_its_answer(phase: Phase, code: int, enhanced: str, text: str, is_it: bool) -> None:
    assert greylisted(phase, code, enhanced, text) is is_it
