"""So many a minute and no more: a bucket that fills steadily and holds one second's worth.

A pure count; instants are seconds of any clock that only goes forward, and are passed in.
"""


class Pace:
    """At most `per_minute` over any minute, and a second's worth at once; 0 is no limit."""

    def __init__(self, per_minute: int) -> None:
        self._per_s = per_minute / 60
        self._most = max(1.0, self._per_s)
        self._left = self._most
        self._at = float("-inf")

    def wait_s(self, now: float) -> float:
        """Take one and return 0; or take none, and return in how many seconds to ask again."""
        if not self._per_s:
            return 0.0
        self._left = min(self._most, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return max((1 - self._left) / self._per_s, 0.001)
        self._left -= 1
        return 0.0
