"""The rows that a worker has claimed and not begun, and which of them may begin.

A domain has a few mails under way at once (`each`), and never more than a quarter of what the way out bears at the
moment, so that a slow one leaves the others their connections even at a start. A row whose domain has its hands full
stands aside until a place there is free, and those behind it go first; it has not begun, so that a stop still reaches
it. Of rows that stand aside `ASIDE` are kept. What is more goes on as if there were room: its sender puts it off, and
others have their turn to be claimed.
"""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from uuid import UUID

from distributor.leases import Claimed

ASIDE = 1000
SHARE = 4


class AtHand(asyncio.Queue[Claimed]):
    """A queue of rows that may begin. `each` 0: there are no limits; `room` says how many the way out bears now."""

    def __init__(self, each: int, room: Callable[[], int]) -> None:
        super().__init__()
        self._each = each
        self._room = room
        self._placed: dict[UUID, str] = {}
        self._under_way: Counter[str] = Counter()
        self._aside: defaultdict[str, deque[Claimed]] = defaultdict(deque)
        self._standing_aside = 0

    def put_nowait(self, item: Claimed) -> None:
        """Take a row in, or take it back."""
        if not self._each or item.id in self._placed:
            super().put_nowait(item)
        elif self._has_place(domain := _domain(item)):
            self._place(item, domain)
        elif self._standing_aside < ASIDE:
            self._aside[domain].append(item)
            self._standing_aside += 1
        else:
            super().put_nowait(item)

    def leave(self, row: Claimed) -> None:
        """The row is no longer under way: whoever stands aside for its domain may follow."""
        domain = self._placed.pop(row.id, None)
        if domain is None:
            return
        self._under_way[domain] -= 1
        while self._aside[domain] and self._has_place(domain):
            self._standing_aside -= 1
            self._place(self._aside[domain].popleft(), domain)
        if not self._aside[domain]:
            del self._aside[domain]
        if not self._under_way[domain]:
            del self._under_way[domain]

    def _has_place(self, domain: str) -> bool:
        return self._under_way[domain] < min(self._each, max(1, self._room() // SHARE))

    def _place(self, row: Claimed, domain: str) -> None:
        self._placed[row.id] = domain
        self._under_way[domain] += 1
        super().put_nowait(row)


def _domain(row: Claimed) -> str:
    return (row.address or "").rpartition("@")[2].lower()
