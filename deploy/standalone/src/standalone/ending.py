"""Ctrl-C and SIGTERM, noted from the first moment and heeded where something can be ended in order.

By default Python raises `KeyboardInterrupt` wherever it happens to be, and `asyncio` cancels the main task: in the
middle of a migration, or of a start, either leaves work half done, and a cancellation that is lost there is a process
that does not end. Here a signal is a fact: whoever prepares asks between two steps, and whoever runs stops.
"""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Ending:
    """Whether the end has been asked for."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note signals in this block instead of being interrupted by them."""
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def heed(self) -> None:
        """Between two steps of a preparation. Raises `KeyboardInterrupt` if the end has been asked for."""
        if self.asked:
            raise KeyboardInterrupt

    def stops(self, stopped: asyncio.Event) -> None:
        """Set `stopped` when the end is asked for, or at once if it has been. Called in the event loop's thread."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, stopped.set)
        if self.asked:
            stopped.set()

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
