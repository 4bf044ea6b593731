"""Reads where endpoints are, many at a time, and remembers it for nine tenths of a second.

Whoever asks while a read is being prepared shares it, and a read takes along what else was used of late and grows old:
a burst to a thousand endpoints costs a dozen reads, going on with them one a second, and a burst to one of them none.
An endpoint that was disabled, deleted, moved or given a new secret is treated as such within a second everywhere.
"""

import asyncio
import time
from uuid import UUID

from distributor.webhooks import endpoints
from distributor.webhooks.endpoints import Target
from shared.clock import Clock
from shared.database import Database

FRESH_S = 0.9
OLD_S = FRESH_S / 2
LATELY_S = 10.0
"""What is older and was used lately is read anew together with whatever must be."""
KEPT = 4096


class TargetBook:
    """One sender's knowledge of the endpoints."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._known: dict[UUID, tuple[float, Target | None]] = {}
        self._used: dict[UUID, float] = {}
        self._asked: dict[UUID, asyncio.Future[Target | None]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def find(self, endpoint_id: UUID) -> Target | None:
        """The endpoint as it is, or was a moment ago; `None` when it is deleted."""
        read_at, target = self._known.get(endpoint_id, (0.0, None))
        now = self._used[endpoint_id] = time.monotonic()
        if read_at and now - read_at < FRESH_S:
            return target
        asked = self._asked.get(endpoint_id)
        if asked is None:
            asked = self._asked[endpoint_id] = asyncio.get_running_loop().create_future()
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        return await asyncio.shield(asked)

    def forget(self, endpoint_id: UUID) -> None:
        """Read it anew the next time."""
        self._known.pop(endpoint_id, None)

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self) -> None:
        """Until nobody asks any more. What goes wrong is everybody's who asked."""
        while self._asked:
            asked, self._asked = self._asked, {}
            try:
                await self._answer(asked)
            except Exception as error:  # noqa: BLE001 - handed on
                for waiting in asked.values():
                    waiting.set_exception(error)

    async def _answer(self, asked: dict[UUID, asyncio.Future[Target | None]]) -> None:
        read_at = time.monotonic()
        wanted = [*asked, *self._growing_old(read_at)]
        async with self._database.reading() as session:
            found = await endpoints.targets(session, wanted, self._clock.now())
        if len(self._known) > KEPT:
            self._known.clear()
            self._used.clear()
        self._known.update((key, (read_at, found.get(key))) for key in wanted)
        for key, waiting in asked.items():
            waiting.set_result(found.get(key))

    def _growing_old(self, now: float) -> list[UUID]:
        self._used = {key: at for key, at in self._used.items() if now - at < LATELY_S}
        return [key for key in self._used if now - self._known.get(key, (now, None))[0] > OLD_S]
