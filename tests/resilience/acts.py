"""What a test does to whatever stands around the services, as values: a fault is one that begins it and one that mends it."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.resilience.scene import Scene

Act = Callable[[Scene], Awaitable[object]]


def off_the_loop(act: Callable[[Scene], object]) -> Act:
    """What blocks, in a thread."""

    async def acted(scene: Scene) -> None:
        await asyncio.to_thread(act, scene)

    return acted


def broker(act: str) -> Act:
    """What `PrivateRabbitMQ` calls it."""
    return off_the_loop(lambda scene: getattr(scene.broker, act)())


def database(act: str) -> Act:
    """What `PrivatePostgres` calls it."""
    return off_the_loop(lambda scene: getattr(scene.database, act)())
