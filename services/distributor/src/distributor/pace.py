"""So many a minute and no more: a bucket that fills steadily and holds one second's worth.

A pure count; instants are seconds of any clock that only goes forward, and are passed in.
"""

import sys


class Pace:
    """At most `per_minute` over any minute, and a second's worth at once; 0 is no limit."""

    def __init__(self, per_minute: int) -> None:
        self._per_s = per_minute / 60
        self._most = max(1.0, self._per_s)
        self._left = self._most
        self._at = float("-inf")

    def free(self, now: float) -> int:
        """How many may begin at once."""
        if not self._per_s:
            return sys.maxsize
        self._left = min(self._most, self._left + (now - self._at) * self._per_s)
        self._at = now
        return int(self._left)

    def take(self, count: int) -> None:
        """So many of the free ones have begun."""
        self._left -= count

    def wait_s(self, now: float) -> float:
        """In how many seconds to ask again; 0 when one is free."""
        return 0.0 if self.free(now) else max((1 - self._left) / self._per_s, 0.001)
