"""How often one caller may call: so many at once, and then so many a second, each caller for itself.

The counts live in the process: each replica allows as much. Whoever keeps to the rate is never refused, and who is
refused waits less than a second. Virtual scheduling (GCRA, ITU-T I.371): one number a caller, the time at which what
was taken so far would have been spread evenly.
"""

from collections.abc import Hashable

MOST_CALLERS = 10_000
BURST_S = 5.0
"""A caller that was silent may take so many seconds' worth at once: a page of an editor's, an import's follow-up."""


class Rates:
    """Who has called how often. `per_second` 0 refuses nobody."""

    def __init__(self, per_second: int) -> None:
        self.per_second = per_second
        self._even: dict[Hashable, float] = {}

    def wait_s(self, caller: Hashable, now: float) -> float:
        """Count one call at `now` (any steady clock's seconds): 0 where it may go on, else how long to wait."""
        if not self.per_second:
            return 0.0
        even = max(self._even.get(caller, now), now)
        ahead = even - now
        if ahead > BURST_S - 1 / self.per_second:
            return ahead - BURST_S + 1 / self.per_second
        self._forget_the_silent(now)
        self._even[caller] = even + 1 / self.per_second
        return 0.0

    def _forget_the_silent(self, now: float) -> None:
        if len(self._even) >= MOST_CALLERS:
            self._even = {caller: even for caller, even in self._even.items() if even > now}
