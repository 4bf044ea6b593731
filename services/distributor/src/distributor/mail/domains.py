"""So many mails under way to one domain, so that one slow domain cannot take all connections.

Through a relay there is one peer, and no limit is needed; a relay that passes recipients' answers on, or a direct way
out, may want one. A worker keeps a domain's surplus aside until there is a place (`at_hand`); what is too much even for
that is put off here without counting as a try, for longer the more of it there is.

And so many a minute to one domain. What comes too soon is put off in the same way, each mail to a turn of its own, and
the stronger lanes do not stand in line behind the weaker ones. Transactional mail passes everything.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from distributor.channels import Dispatch
from distributor.pace import Pace
from distributor.retry_policy import JITTER
from distributor.states import LANE_RANK
from shared.contracts.mail import Lane

PUT_OFF = timedelta(seconds=3)
LONGEST = timedelta(minutes=5)
TOGETHER = 10
"""So many times the limit share one wait: they come back in turn, and not all at once."""
MOST_KEPT = 10_000
"""Domains, and turns, remembered before those are dropped that are over."""


class Crowded(Exception):
    """The domain has as many mails under way as it may have; `wait` before the next try."""

    def __init__(self, wait: timedelta) -> None:
        super().__init__("the domain is busy with earlier mails")
        self.wait = wait


class DomainLimit:
    """At most `each` a domain; 0 is no limit."""

    def __init__(self, each: int) -> None:
        self.each = each
        self._under_way: Counter[str] = Counter()
        self._put_off: Counter[str] = Counter()

    @contextmanager
    def place(self, address: str) -> Iterator[None]:
        """A place at the address's domain; raises Crowded."""
        if not self.each:
            yield
            return
        domain = address.rpartition("@")[2].lower()
        if self._under_way[domain] >= self.each:
            self._put_off[domain] += 1
            raise Crowded(min(LONGEST, PUT_OFF * (1 + self._put_off[domain] // (self.each * TOGETHER))))
        self._under_way[domain] += 1
        try:
            yield
        finally:
            self._leave(domain)

    def _leave(self, domain: str) -> None:
        for count in (self._under_way, self._put_off):
            count[domain] -= 1
            if count[domain] <= 0:
                del count[domain]


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
