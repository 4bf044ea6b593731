"""A task that loses a cancellation is cancelled again."""

import asyncio

from shared import tasks
from shared.tasks import end


async def test_a_lost_cancellation_is_said_again(monkeypatch) -> None:
    monkeypatch.setattr(tasks, "PATIENCE_S", 0.1)
    lost = []

    async def deaf() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if len(lost) == 2:
                    raise
                lost.append(1)

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await asyncio.wait_for(end([task]), 5)
    assert task.cancelled()
