"""The rows that a worker has claimed and not begun, and which of them may begin.

A domain has a few mails under way at once (`each`), and never more than a quarter of what the way out bears at the
moment, so that a slow one leaves the others their connections even at a start. Through a relay there is one peer, and
no limit is needed; a relay that passes recipients' answers on, or a direct way out, may want one.

A row whose domain has its hands full stands aside until a place there is free, and those behind it go first; it has not
begun, so that a stop still reaches it. Of rows that stand aside `ASIDE` of each lane are kept, a quarter of them for
one domain; some for each, however many others' there are. What is more is put off, so that others have their turn to be
claimed; until when, follows from how the domain gets on: those who are put off come back one by one, in time to stand
aside before nobody does.

The stronger lane goes first, among those that are ready and among those that stand aside for the same domain: somebody
who signs in does not wait for the digests of all others with their provider.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from heapq import heappop, heappush
from itertools import count
from uuid import UUID

from distributor.leases import Claimed
from distributor.retry_policy import JITTER

ASIDE = 4000
SHARE = 4
SOME = 10
"""Times what a domain may have under way."""
SHORTEST, LONGEST = timedelta(seconds=3), timedelta(minutes=5)
"""To be put off. A domain may get on faster than it did, so nobody is for longer."""
FORESIGHT = 4
"""Times as long as a domain was watched: while much is claimed it gets on slowly, and what is put off then must not be
missed afterwards."""

Ranked = tuple[int, int, Claimed]
"""A row behind its lane and its turn."""


@dataclass(slots=True)
class _Busy:
    """A domain with mails under way: since when, how many have left, and when the next one of a lane that is put off is
    to be back.
    """

    since: float
    left: int = 0
    next_turns: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))

    def wait(self, lane: int, aside: int, now: float) -> timedelta:
        """For one more, so that half of those who stand aside are gone by then, and those put off before are back. To
        be put off is to wait up to `JITTER` longer.
        """
        busy_s = now - self.since
        each_s = busy_s / max(self.left, 1)
        turn = min(max(self.next_turns[lane], now + each_s * aside / 2), now + FORESIGHT * busy_s)
        self.next_turns[lane] = turn + each_s
        return min(max(timedelta(seconds=(turn - now) / (1 + JITTER)), SHORTEST), LONGEST)


class AtHand(asyncio.Queue[Claimed]):
    """A queue of rows that may begin. `each` 0: there are no limits; `room` says how many the way out bears now."""

    def __init__(self, each: int, room: Callable[[], int]) -> None:
        super().__init__()
        self._each = each
        self._room = room
        self._placed: dict[UUID, str] = {}
        self._under_way: Counter[str] = Counter()
        self._busy: dict[str, _Busy] = {}
        self._aside: defaultdict[str, list[Ranked]] = defaultdict(list)
        self._standing_aside: Counter[int] = Counter()
        self._aside_of: Counter[tuple[int, str]] = Counter()
        self._turns = count()

    def take_in(self, row: Claimed, now: float) -> timedelta | None:
        """Keep a row until it may begin; or for how long it is to be put off, because too many are kept. `now` is in
        seconds of any clock that only goes forward.
        """
        domain = _domain(row)
        busy = self._busy.setdefault(domain, _Busy(now))
        if not self._each or self._has_place(domain):
            self._place(row, domain)
        elif self._aside_of[row.lane, domain] < self._most_aside(row.lane):
            heappush(self._aside[domain], self._ranked(row))
            self._count_aside(row.lane, domain, 1)
        else:
            return busy.wait(row.lane, self._aside_of[row.lane, domain], now)
        return None

    def leave(self, row: Claimed) -> None:
        """The row is no longer under way: whoever stands aside for its domain may follow."""
        domain = self._placed.pop(row.id, None)
        if domain is None:
            return
        self._under_way[domain] -= 1
        self._busy[domain].left += 1
        while self._aside[domain] and self._has_place(domain):
            following = heappop(self._aside[domain])[-1]
            self._count_aside(following.lane, domain, -1)
            self._place(following, domain)
        if not self._aside[domain]:
            del self._aside[domain]
        if not self._under_way[domain]:
            del self._under_way[domain], self._busy[domain]

    # As a queue of the standard library does it, the strongest lane first

    def _init(self, _maxsize: int) -> None:
        self._queue: list[Ranked] = []

    def _put(self, item: Claimed) -> None:
        heappush(self._queue, self._ranked(item))

    def _get(self) -> Claimed:
        return heappop(self._queue)[-1]

    def _ranked(self, row: Claimed) -> Ranked:
        return row.lane, next(self._turns), row

    def _has_place(self, domain: str) -> bool:
        return self._under_way[domain] < min(self._each, max(1, self._room() // SHARE))

    def _most_aside(self, lane: int) -> int:
        return ASIDE // SHARE if self._standing_aside[lane] < ASIDE else self._each * SOME

    def _count_aside(self, lane: int, domain: str, by: int) -> None:
        self._standing_aside[lane] += by
        self._aside_of[lane, domain] += by
        if not self._aside_of[lane, domain]:
            del self._aside_of[lane, domain]

    def _place(self, row: Claimed, domain: str) -> None:
        self._placed[row.id] = domain
        self._under_way[domain] += 1
        self.put_nowait(row)


def _domain(row: Claimed) -> str:
    return (row.address or "").rpartition("@")[2].lower()
