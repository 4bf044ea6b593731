"""So many mails a minute to one domain. How many are under way to it at once is the worker's to say (`at_hand`).

What comes too soon is put off without counting as a try, each mail to a turn of its own, and the stronger lanes do not
stand in line behind the weaker ones. Transactional mail passes everything.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from distributor.channels import Dispatch
from distributor.pace import Pace
from distributor.retry_policy import JITTER
from distributor.states import LANE_RANK
from shared.contracts.mail import Lane

LONGEST = timedelta(minutes=5)
MOST_KEPT = 10_000
"""Domains, and turns, remembered before those are dropped that are over."""


class Crowded(Exception):
    """The domain has had its share of the minute; `wait` before the next try."""

    def __init__(self, wait: timedelta) -> None:
        super().__init__("the domain is busy with earlier mails")
        self.wait = wait


@dataclass(slots=True)
class _Line:
    """One lane's mails to one domain: the next turn to give away, and until when some of them are to come back."""

    next_turn: float = 0.0
    until: float = 0.0


class DomainPace:
    """At most `per_minute` a domain, and a second's worth at once; 0 is no limit. Instants are seconds, passed in.

    A mail that is put off is given a turn, and is let through when it comes back then or later.
    """

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._each_s = 60 / per_minute if per_minute else 0.0
        self._paces: dict[str, Pace] = {}
        self._lines: defaultdict[str, dict[Lane, _Line]] = defaultdict(dict)
        self._turns: dict[UUID, float] = {}

    def enter(self, dispatch: Dispatch, now: float) -> None:
        """Count one mail to its address's domain; raises Crowded where it is not its turn."""
        if not self.per_minute or dispatch.lane is Lane.TRANSACTIONAL:
            return
        domain, key = dispatch.address.rpartition("@")[2].lower(), dispatch.delivery_id
        lines, rank = self._lines[domain], LANE_RANK[dispatch.lane]
        stronger = max((line.until for lane, line in lines.items() if LANE_RANK[lane] < rank), default=0.0)
        line = lines.setdefault(dispatch.lane, _Line())
        turn = max(self._turns.get(key, line.next_turn), stronger)
        if turn > now + LONGEST.total_seconds():
            raise Crowded(LONGEST)
        if key not in self._turns:
            line.next_turn = max(turn, now) + self._each_s
        pace = self._paces.setdefault(domain, Pace(self.per_minute))
        if turn <= now and pace.free(now):
            pace.take(1)
            self._turns.pop(key, None)
            self._forget(now)
        else:
            self._turns[key] = turn
            wait_s = turn - now if turn > now else self._each_s
            line.until = max(line.until, now + wait_s * (1 + JITTER))
            raise Crowded(timedelta(seconds=wait_s))

    def _forget(self, now: float) -> None:
        """Domains that nothing was sent to lately, and mails that were called off before their turn."""
        if len(self._lines) > MOST_KEPT:
            idle = [one for one, lines in self._lines.items() if max(line.next_turn for line in lines.values()) < now]
            for domain in idle:
                del self._lines[domain], self._paces[domain]
        if len(self._turns) > MOST_KEPT:
            earliest = now - 2 * LONGEST.total_seconds()
            self._turns = {one: turn for one, turn in self._turns.items() if turn > earliest}
