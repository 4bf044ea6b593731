"""When to stop knocking: a way out that refuses everybody pauses the whole channel, and one delivery tries it again.

Two signs count. A delivery that was not even begun (the relay is away) pauses at once, a second at first. And the same
refusal, not about the recipient and not about the mail, of ten deliveries within a minute more than were accepted:
whatever the phase, that is a block, a wrong password or a broken server, and not so many people's bad luck. To be hung
up on without a word, ten times in the same phase, is such a refusal. That pause is longer, is told as an alert, and
what is refused in the same way from then on costs no delivery a try; what is in doubt stays in doubt.

Greylisting is no such sign, since it is how strangers are greeted. Nothing here suppresses anybody.

    flowing ──sign──▶ paused ──time──▶ probing ──any other answer──▶ flowing
                        ▲                 └──────sign──────┘ (a pause twice as long)

A pure state machine: the instants (in seconds, of any clock that only goes forward) are passed in.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto
from uuid import UUID

from distributor.channels import Fault, Outcome
from distributor.retry_policy import is_systemic
from distributor.states import DEFERRED, SENT, UNCERTAIN

EQUALS = 10
WITHIN_S = 60.0

Refusal = tuple[int, str]
"""A reply code and its enhanced status; 0 and the phase where the server hung up, fell silent or spoke gibberish."""


class Flow(Enum):
    FLOWING = auto()
    PAUSED = auto()
    PROBING = auto()


@dataclass(frozen=True, slots=True)
class Pauses:
    """In seconds; each doubles from `first` to `longest`."""

    first_s: float
    longest_s: float

    def after(self, last_s: float) -> float:
        return min(self.longest_s, max(self.first_s, last_s * 2))


@dataclass(frozen=True, slots=True)
class Heard:
    """What an outcome means for the channel: the outcome as it is to be recorded, and whether anything changes."""

    outcome: Outcome
    pause_s: float = 0.0
    alert: bool = False
    resumed: bool = False


class Breaker:
    """One channel's breaker. `away` are the pauses for a way out that is gone, `refused` for one that refuses all.

    Without `refused`, equal refusals are nobody's sign: a webhook's receivers have nothing in common.
    """

    def __init__(self, away: Pauses, refused: Pauses | None = None) -> None:
        self._away = away
        self._refused = refused
        self._seen: dict[Refusal, dict[UUID, float]] = {}
        self._tripped: Refusal | None = None
        self._pause_s = 0.0
        self._probe_out = False
        self.flow = Flow.FLOWING

    def may_begin(self) -> bool:
        """Whether a delivery may begin now; of a probing channel, one."""
        if self.flow is not Flow.PROBING:
            return self.flow is Flow.FLOWING
        free, self._probe_out = not self._probe_out, True
        return free

    def allows(self, count: int) -> int:
        """How many of `count` deliveries might begin now."""
        if self.flow is Flow.FLOWING:
            return count
        return min(count, int(self.flow is Flow.PROBING and not self._probe_out))

    def never_began(self) -> None:
        """A delivery that was let through did not go out after all: another may be the probe."""
        self._probe_out = False

    def probe(self) -> None:
        """The pause is over."""
        if self.flow is Flow.PAUSED:
            self.flow, self._probe_out = Flow.PROBING, False

    def hear(self, delivery_id: UUID, outcome: Outcome, now: float) -> Heard:
        """Learn how a delivery ended."""
        if outcome.state is SENT and self.flow is Flow.FLOWING:  # as nearly all do
            self._take_back()
            return Heard(outcome)
        refusal = _refusal(outcome) if self._refused is not None else None
        if outcome.state is SENT:
            self._take_back()
        everybodys = refusal is not None and (refusal == self._tripped or self._trips(refusal, delivery_id, now))
        if everybodys:
            self._tripped = refusal
        if everybodys and outcome.state is not UNCERTAIN:
            outcome = replace(outcome, state=DEFERRED, fault=Fault.SYSTEM, counts=False)
        if self.flow is Flow.PAUSED:  # it began before the pause
            return Heard(outcome)
        if everybodys or is_systemic(outcome) or (self.flow is Flow.PROBING and outcome.fault is Fault.SYSTEM):
            return self._pause(outcome)
        if outcome.code is None and outcome.state is not SENT:  # it says nothing about the way out
            self.never_began()
            return Heard(outcome)
        return self._go_on(outcome)

    def _pause(self, outcome: Outcome) -> Heard:
        pauses = self._refused if self._tripped and self._refused else self._away
        self.flow, self._pause_s = Flow.PAUSED, pauses.after(self._pause_s)
        return Heard(outcome, self._pause_s, alert=self._tripped is not None)

    def _go_on(self, outcome: Outcome) -> Heard:
        resumed = self.flow is Flow.PROBING
        self.flow, self._pause_s = Flow.FLOWING, 0.0
        if resumed:
            self._tripped = None
            self._seen.clear()
        return Heard(outcome, resumed=resumed)

    def _trips(self, refusal: Refusal, delivery_id: UUID, now: float) -> bool:
        seen = self._seen.setdefault(refusal, {})
        seen.pop(delivery_id, None)  # one delivery that is refused again and again is one
        seen[delivery_id] = now
        while now - next(iter(seen.values())) > WITHIN_S:
            del seen[next(iter(seen))]
        return len(seen) >= EQUALS

    def _take_back(self) -> None:
        for refusal, seen in list(self._seen.items()):
            del seen[next(iter(seen))]
            if not seen:
                del self._seen[refusal]


def _refusal(outcome: Outcome) -> Refusal | None:
    """What was refused, if it may be everybody's."""
    code = outcome.code or 0
    if code < 400 and outcome.counts and _broke_off(outcome):
        return 0, outcome.phase
    if not 400 <= code < 600 or outcome.fault is Fault.RECIPIENT or outcome.retry_after is not None:
        return None
    if code < 500 and not outcome.counts:  # the relay asks for patience before anything began: see `away`
        return None
    if outcome.fault is Fault.CONTENT and (outcome.enhanced or code < 500):
        return None
    return code, outcome.enhanced


def _broke_off(outcome: Outcome) -> bool:
    """Whether the server gave no answer that can be understood, and the mail was under way."""
    return outcome.state is UNCERTAIN or (outcome.state is DEFERRED and outcome.fault is Fault.SYSTEM)
