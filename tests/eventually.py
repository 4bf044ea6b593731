"""Waiting without sleeping: ask again until it is so, or say what was so instead."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Value = TypeVar("Value")

SELDOM_S = 0.2


async def eventually(
    predicate: Callable[[], Value | Awaitable[Value]], *, within: float = 10.0, every: float = 0.02
) -> Value:
    """The first truthy value of `predicate` (plain or async), asked every so many seconds.

    An AssertionError inside the predicate means "not yet". After the deadline raises AssertionError with the last
    value or the last assertion. It asks the more seldom the longer it has waited: what is awaited needs the processor too.
    """
    began = time.monotonic()
    deadline = began + within
    while True:
        last: object
        try:
            answer = predicate()
            value = await answer if inspect.isawaitable(answer) else answer
            if value:
                return value
            last = value
        except AssertionError as not_yet:
            last = not_yet
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s; at last: {last!r}")
        await asyncio.sleep(max(every, min((time.monotonic() - began) / 20, SELDOM_S)))
