"""The rows that a worker has claimed and not begun, and which of them may begin.

A domain has a few mails under way at once (`each`), and never more than a quarter of what the way out bears at the
moment, so that a slow one leaves the others their connections even at a start. A row whose domain has its hands full
stands aside until a place there is free, and those behind it go first; it has not begun, so that a stop still reaches
it. Of rows that stand aside `ASIDE` of each lane are kept. What is more goes on as if there were room: its sender puts
it off, and others have their turn to be claimed.

The stronger lane goes first, among those that are ready and among those that stand aside for the same domain: somebody
who signs in does not wait for the digests of all others with their provider.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from uuid import UUID

from distributor.leases import Claimed

ASIDE = 1000
SHARE = 4

Ranked = tuple[int, int, Claimed]
"""A row behind its lane and its turn."""


class AtHand(asyncio.Queue[Claimed]):
    """A queue of rows that may begin. `each` 0: there are no limits; `room` says how many the way out bears now."""

    def __init__(self, each: int, room: Callable[[], int]) -> None:
        super().__init__()
        self._each = each
        self._room = room
        self._placed: dict[UUID, str] = {}
        self._under_way: Counter[str] = Counter()
        self._aside: defaultdict[str, list[Ranked]] = defaultdict(list)
        self._standing_aside: Counter[int] = Counter()
        self._turns = count()

    def put_nowait(self, item: Claimed) -> None:
        """Take a row in, or take it back."""
        if not self._each or item.id in self._placed:
            super().put_nowait(item)
        elif self._has_place(domain := _domain(item)):
            self._place(item, domain)
        elif self._standing_aside[item.lane] < ASIDE:
            heappush(self._aside[domain], self._ranked(item))
            self._standing_aside[item.lane] += 1
        else:
            super().put_nowait(item)

    def leave(self, row: Claimed) -> None:
        """The row is no longer under way: whoever stands aside for its domain may follow."""
        domain = self._placed.pop(row.id, None)
        if domain is None:
            return
        self._under_way[domain] -= 1
        while self._aside[domain] and self._has_place(domain):
            following = heappop(self._aside[domain])[-1]
            self._standing_aside[following.lane] -= 1
            self._place(following, domain)
        if not self._aside[domain]:
            del self._aside[domain]
        if not self._under_way[domain]:
            del self._under_way[domain]

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

    def _place(self, row: Claimed, domain: str) -> None:
        self._placed[row.id] = domain
        self._under_way[domain] += 1
        super().put_nowait(row)


def _domain(row: Claimed) -> str:
    return (row.address or "").rpartition("@")[2].lower()
