"""An event loop in a thread of its own, for servers that must answer while a test's own loop is busy or blocked."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

Result = TypeVar("Result")


class ThreadedServer:
    """Starts and stops around `_open` and `_close`, which run in the thread's loop. Also a context manager."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None

    async def _open(self) -> None:
        raise NotImplementedError

    async def _close(self) -> None:
        raise NotImplementedError

    def start(self) -> Self:
        self._thread = threading.Thread(target=self._loop.run_forever, name=type(self).__name__, daemon=True)
        self._thread.start()
        try:
            self._run(self._open())
        except BaseException:
            self._end_thread()
            raise
        return self

    def stop(self) -> None:
        """Closes the port and every connection, then ends the thread. Twice does no harm."""
        if self._thread is not None:
            self._run(self._close())
            self._run(_cancel_the_rest())
            self._end_thread()

    def _run(self, work: Coroutine[Any, Any, Result], within: float = 10.0) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(within)

    def _end_thread(self) -> None:
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._thread = None
        self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


async def _cancel_the_rest() -> None:
    rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
