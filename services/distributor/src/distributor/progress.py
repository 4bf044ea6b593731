"""Tells content how far each item has come: numbered snapshots of counts, never deltas.

Nothing is counted here: what moved was noted when it moved (see `tallies`). An item with changes is due; they are added
up and told in one transaction, under the item's lock, so that a higher number never tells of an older state. A change
that commits late is simply there at the next look. An item is told of once a second at most. What changed in an edition
concerns every item in it.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from distributor import tallies
from distributor.editions import edition_items
from distributor.ledger import items
from distributor.retry_policy import RETRIES_EXHAUSTED
from shared.clock import Clock
from shared.contracts.delivery import DeliveryCount, DeliveryProgress, ExclusionCount
from shared.database import Database, instant
from shared.messaging.outbox import emit
from shared.tasks import pause

POLL_S = 0.25
PAUSE_S = 1.0


class ProgressWorker:
    """Adds up and tells."""

    name = "progress"

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._after: UUID | None = None
        self._told_at: dict[UUID, float] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Tell until `stop`."""
        while not stop.is_set():
            if not await self.step():
                await pause(stop, POLL_S)

    async def step(self) -> bool:
        """Tell of the next item that changed; False at the end of a round through them."""
        async with self._database.reading() as session:
            self._after = await tallies.next_changed(session, self._after)
        if self._after is None:
            self._forget_told()
            return False
        if self._after not in self._told_at:
            await self.tell(self._after)
        return True

    async def tell(self, subject_id: UUID) -> None:
        """Add up an item's changes and emit a snapshot unless it says what the last one said; of an edition, have its
        items told of.
        """
        changed = False
        async with self._database.transaction(quiet=True) as session:
            await tallies.fold(session, subject_id)
            carried = select(edition_items.c.item_id).where(edition_items.c.edition_id == subject_id)
            await tallies.touch(session, await session.scalars(carried.order_by(edition_items.c.item_id)))
            item = (await session.execute(select(items).where(items.c.id == subject_id).with_for_update())).first()
            if item is not None:
                changed = await self._tell(session, item)
        self._told_at[subject_id] = time.monotonic()
        if changed:
            self._database.wake()

    async def _tell(self, session: AsyncSession, item: Row[Any]) -> bool:
        counts, left_out = _told(await tallies.of_item(session, item.id))
        digest = _digest(counts, left_out)
        if item.progress_digest == digest:
            return False
        number = item.progress_sequence + 1
        values = {"progress_digest": digest, "progress_sequence": number}
        await session.execute(update(items).where(items.c.id == item.id).values(values))
        await self._emit(session, item.id, number, counts, left_out)
        return True

    def _forget_told(self) -> None:
        now = time.monotonic()
        self._told_at = {item: at for item, at in self._told_at.items() if now - at < PAUSE_S}

    async def _emit(
        self,
        session: AsyncSession,
        item_id: UUID,
        sequence: int,
        counts: tuple[DeliveryCount, ...],
        left_out: tuple[ExclusionCount, ...],
    ) -> None:
        now = await instant(session, self._clock)
        event = DeliveryProgress(
            item_id=item_id, sequence=sequence, counted_at=now, deliveries=counts, exclusions=left_out
        )
        await emit(session, event, source="distributor", subject=item_id, at=now)


def _told(sums: Sequence[Row[Any]]) -> tuple[tuple[DeliveryCount, ...], tuple[ExclusionCount, ...]]:
    counts = [_delivery_count(row) for row in sums if row.state != tallies.EXCLUDED]
    left_out = [
        ExclusionCount.model_validate({"audience": row.audience, "reason": row.mark, "count": row.total})
        for row in sums
        if row.state == tallies.EXCLUDED
    ]
    return tuple(sorted(counts, key=repr)), tuple(sorted(left_out, key=repr))


def _delivery_count(row: Row[Any]) -> DeliveryCount:
    told = {
        "revision": row.revision,
        "channel": row.channel,
        "audience": row.audience or None,
        "form": row.form,
        "state": row.state,
        "superseded": row.mark == tallies.SUPERSEDED,
        "given_up": row.mark == RETRIES_EXHAUSTED,
        "unreachable": row.mark == tallies.UNREACHABLE,
        "count": row.total,
    }
    return DeliveryCount.model_validate(told)


def _digest(counts: tuple[Any, ...], left_out: tuple[Any, ...]) -> str:
    told = [count.model_dump(mode="json") for count in (*counts, *left_out)]
    return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
