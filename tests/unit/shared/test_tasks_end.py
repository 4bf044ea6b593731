"""A task that loses a cancellation is cancelled again."""

import asyncio

from shared import tasks
from shared.tasks import end, pause


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


async def test_a_pause_ends_with_its_event_or_its_time() -> None:
    event = asyncio.Event()
    await pause(event, 0.01)
    assert not event.is_set()
    event.set()
    await asyncio.wait_for(pause(event, 3600), 5)


async def test_a_pause_loses_no_cancellation_that_comes_with_its_event() -> None:
    event = asyncio.Event()
    pausing = asyncio.create_task(pause(event, 3600))
    await asyncio.sleep(0)
    event.set()
    pausing.cancel()
    await asyncio.wait([pausing])
    assert pausing.cancelled()
