"""Ending tasks for certain, and pausing until there is something to do or the end has come."""

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE_S = 6.0
"""A task that is ending may have a connection to close, which takes up to four seconds."""
SAY_AGAIN_S = 0.5
_left_alone: set[asyncio.Task[Any]] = set()


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended.

    Before Python 3.12 `asyncio.wait_for` loses a cancellation that comes in the same moment as what it waits for;
    whoever cancelled once would then wait for ever.
    """
    ended = list(tasks)
    pending, patience_s = set(ended), PATIENCE_S
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=patience_s)
        patience_s = SAY_AGAIN_S
    await asyncio.gather(*ended, return_exceptions=True)


async def bounded(work: Coroutine[Any, Any, T], seconds: float) -> T:
    """What `work` gives, or TimeoutError after `seconds`, even if it takes being cancelled for a reason to wait on."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        patience_s = 0.0
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=patience_s)
            patience_s = SAY_AGAIN_S


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives. Whoever is cancelled meanwhile leaves at once, and the work goes on to its end without them: a
    question to a database that is cut off costs its connection.
    """
    task = asyncio.ensure_future(work)
    _left_alone.add(task)  # the loop itself does not hold a task
    task.add_done_callback(_left_alone.discard)
    return await asyncio.shield(task)


async def pause(event: asyncio.Event, seconds: float) -> None:
    """Return when `event` is set, after `seconds` at the latest. Unlike `asyncio.wait_for` it loses no cancellation."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
