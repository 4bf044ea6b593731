"""How many connections a relay is asked to bear: few at first, one more for each mail that it takes (or greylists),
half when it says that they are too many.

A relay that was away comes back to a trickle and not to the full herd; one that refused the ninth connection is not
asked for a ninth again before it has taken some hundreds of mails. A pure count, without clock and network.
"""

START = 2

PROBE_EVERY = 500
"""Mails taken between one connection more and the next, above the number that was once refused."""


class SlowStart:
    """`allowed` connections now, between one and `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.begin()

    def begin(self) -> None:
        """No connection is open: all begins anew."""
        self.allowed = min(START, self._most)
        self._fast_until = self._most
        self._since_last = 0

    def accepted(self) -> None:
        """A mail was taken, or greylisted."""
        if self.allowed == self._most:
            return
        self._since_last += 1
        if self.allowed < self._fast_until or self._since_last >= PROBE_EVERY:
            self.allowed += 1
            self._since_last = 0

    def ease(self) -> None:
        """The relay ended a connection that had carried its share."""
        self.allowed = max(1, self.allowed - 1)

    def back_away(self) -> None:
        """The relay has too much to do."""
        self.allowed = self._fast_until = max(1, self.allowed // 2)
        self._since_last = 0
