"""Tells content how far each item has come: numbered snapshots of counts, never deltas.

An item whose rows changed is due; it is counted, told, and counted again after a pause until two counts agree. A
transaction that found the item due, and commits only when it has been counted for the last time, is seen by one look
more, when every such transaction must have ended. Counting a large item takes long, so the pause grows with it.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, and_, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from distributor.editions import edition_items
from distributor.ledger import deliveries, exclusions, items
from distributor.retry_policy import RETRIES_EXHAUSTED
from distributor.states import CANCELLED, FAILED
from shared.clock import Clock
from shared.contracts.delivery import DeliveryCount, DeliveryProgress, ExclusionCount
from shared.database import Database, instant
from shared.messaging.outbox import emit

POLL_S = 0.25
PAUSE_S = 1.0
SHARE_OF_TIME = 20
"""Counting may take a twentieth of the time at most."""
LAST_LOOK_S = 35.0
"""Longer than a handler may take."""


class ProgressWorker:
    """Counts and tells."""

    name = "progress"

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._at_rest: dict[UUID, float] = {}
        """Items whose two last counts agreed, and when (monotonic): in that order."""

    async def run(self, stop: asyncio.Event) -> None:
        """Tell until `stop`."""
        while not stop.is_set():
            if not await self.step():
                await _pause(stop, POLL_S)

    async def step(self) -> bool:
        """Count one item that is due; False when none is."""
        async with self._database.reading() as session:
            due = items.c.progress_due_at <= self._database.now()
            item_id = await session.scalar(select(items.c.id).where(due).order_by(items.c.progress_due_at).limit(1))
        if item_id is None:
            item_id = self._at_rest_long_enough()
        if item_id is None:
            return False
        await self.tell(item_id)
        return True

    def _at_rest_long_enough(self) -> UUID | None:
        oldest = next(iter(self._at_rest.items()), None)
        if oldest is None or time.monotonic() - oldest[1] < LAST_LOOK_S:
            return None
        self._at_rest.pop(oldest[0])
        return oldest[0]

    async def tell(self, item_id: UUID) -> None:
        """Emit a snapshot unless it says what the last one said."""
        started = time.monotonic()
        async with self._database.reading() as session:
            due_at = await session.scalar(select(items.c.progress_due_at).where(items.c.id == item_id))
            counts = await _delivery_counts(session, item_id)
            left_out = await _exclusion_counts(session, item_id)
        pause = timedelta(seconds=max(PAUSE_S, SHARE_OF_TIME * (time.monotonic() - started)))
        digest = _digest(counts, left_out)
        async with self._database.transaction(quiet=True) as session:
            row = (await session.execute(select(items).where(items.c.id == item_id).with_for_update())).one()
            changed = row.progress_digest != digest
            rest = None if row.progress_due_at == due_at else row.progress_due_at  # somebody asked meanwhile
            values: dict[str, Any] = {
                "progress_due_at": await instant(session, self._clock) + pause if changed else rest
            }
            if changed:
                values |= {"progress_digest": digest, "progress_sequence": row.progress_sequence + 1}
                await self._emit(session, item_id, row.progress_sequence + 1, counts, left_out)
            await session.execute(update(items).where(items.c.id == item_id).values(values))
        self._at_rest.pop(item_id, None)
        if changed:
            self._database.wake()
        elif due_at is not None:
            self._at_rest[item_id] = time.monotonic()

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


async def _delivery_counts(session: AsyncSession, item_id: UUID) -> tuple[DeliveryCount, ...]:
    superseded = and_(deliveries.c.state == CANCELLED, deliveries.c.ended_reason == "superseded")
    given_up = and_(deliveries.c.state == FAILED, deliveries.c.ended_reason == RETRIES_EXHAUSTED)
    columns = (
        deliveries.c.revision,
        deliveries.c.channel,
        deliveries.c.audience,
        deliveries.c.form,
        deliveries.c.state,
        superseded.label("superseded"),
        given_up.label("given_up"),
    )
    query = select(*columns, func.count().label("count")).where(deliveries.c.subject_id == item_id).group_by(*columns)
    rows = [*(await session.execute(query)).mappings(), *await _digest_counts(session, item_id)]
    return tuple(sorted((DeliveryCount.model_validate(dict(row)) for row in rows), key=repr))


async def _digest_counts(session: AsyncSession, item_id: UUID) -> Sequence[RowMapping]:
    """Those who get, or have got, the item by digest: under the revision and the audience that they get it in."""
    columns = (
        edition_items.c.revision,
        deliveries.c.channel,
        edition_items.c.audience,
        deliveries.c.form,
        deliveries.c.state,
    )
    carrying = edition_items.join(deliveries, deliveries.c.edition_id == edition_items.c.edition_id)
    query = select(*columns, func.count().label("count")).select_from(carrying).group_by(*columns)
    return (await session.execute(query.where(edition_items.c.item_id == item_id))).mappings().all()


async def _exclusion_counts(session: AsyncSession, item_id: UUID) -> tuple[ExclusionCount, ...]:
    columns = (exclusions.c.audience, exclusions.c.reason)
    query = select(*columns, func.count().label("count")).where(exclusions.c.item_id == item_id).group_by(*columns)
    rows = (await session.execute(query)).mappings()
    return tuple(sorted((ExclusionCount.model_validate(dict(row)) for row in rows), key=repr))


def _digest(counts: tuple[Any, ...], left_out: tuple[Any, ...]) -> str:
    told = [count.model_dump(mode="json") for count in (*counts, *left_out)]
    return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
