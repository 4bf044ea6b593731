"""The end may be asked for at any moment, and nothing is left half done or waits for ever."""

import asyncio
import os
import signal

import pytest

from standalone.ending import SIGNALS, Ending


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_signal_that_comes_before_anybody_listens_is_not_lost(number: signal.Signals) -> None:
    ending, stopped = Ending(), asyncio.Event()
    ending.heed()
    with ending.noted():
        os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):
            ending.heed()
        ending.stops(stopped)
        assert stopped.is_set()


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_signal_that_comes_while_it_runs_stops_it(number: signal.Signals) -> None:
    ending, stopped = Ending(), asyncio.Event()
    with ending.noted():
        ending.stops(stopped)
        assert not stopped.is_set()
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stopped.wait(), 5)


async def test_signals_are_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Ending().noted():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
