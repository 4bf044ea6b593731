"""So many mails under way to one domain, so that one slow domain cannot take all connections.

Through a relay there is one peer, and no limit is needed; a relay that passes recipients' answers on, or a direct way
out, may want one. A worker keeps a domain's surplus aside until there is a place (`at_hand`); what is too much even for
that is put off here without counting as a try, for longer the more of it there is.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

PUT_OFF = timedelta(seconds=3)
LONGEST = timedelta(minutes=5)
TOGETHER = 10
"""So many times the limit share one wait: they come back in turn, and not all at once."""


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
