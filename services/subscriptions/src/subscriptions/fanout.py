"""The fan-out: from one published item to batches of mail to send, resumable at every step.

The handler of `news.published` only records what is to be done (`record`). Workers then go batch by batch, strongest
audience first, by rising subscriber id. One batch is one short transaction: it takes the fan-out's row (skipping those
that another replica has in hand), reads a page of people, writes the `mail.requested` into the outbox and moves the
checkpoint. The row's lock is the lease: it ends with the transaction or with the process, whichever comes first, so a
crash skips no one and repeats no one, and no zombie can write.

Whoever plans keeps no more than `AHEAD` batches ahead of the relay, over all fan-outs: with the broker away neither
memory nor outbox grows. An item that was withdrawn ends its fan-out where it is; a corrected one goes on with its
newest revision. `fanout.completed` follows when the broker has confirmed every batch.

A batch that fails puts its own fan-out off, for longer each time, and holds up no other.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from shared import correlation
from shared.clock import Clock
from shared.contracts.mail import (
    BATCH_SIZE,
    Exclusion,
    FanoutCompleted,
    MailRequested,
    Recipient,
    SubjectKind,
)
from shared.contracts.news import STRONGEST_FIRST, ItemSnapshot, ItemState
from shared.database import Database, is_transient
from shared.ids import derived_id
from shared.messaging.outbox import emit
from subscriptions import audience as audiences
from subscriptions import digest_rows
from subscriptions import fanouts as rows
from subscriptions.audience import Match, Target
from subscriptions.frequencies import Frequency
from subscriptions.links import Links
from subscriptions.matching import audience_page
from subscriptions.models import Fanout, FanoutBatch
from subscriptions.reasons import broke_through, reason

log = structlog.get_logger()

SOURCE = "subscriptions"
AHEAD = 50
"""Batches that may wait for the broker: one of the relay's own, 25,000 recipients."""
POLL_S = 1.0

Step = Callable[[AsyncSession], Awaitable[None]]


class _NothingToDo(Exception):
    """Another replica was faster; undo the transaction, so that nobody is woken for nothing."""


async def record(session: AsyncSession, item: ItemSnapshot, at: datetime) -> None:
    """Note that `item` is to be carried out, once, however often it is published."""
    await rows.keep_newest(session, item)
    await rows.begin(session, item.item_id, correlation.current(), at)


class FanoutWorker:
    """Plans batches and tells when a fan-out is complete. Any number of replicas may run."""

    name = "fan-out"

    def __init__(self, database: Database, clock: Clock, links: Links, *, batch_size: int = BATCH_SIZE) -> None:
        self._database = database
        self._clock = clock
        self._links = links
        self._batch_size = batch_size
        self._wake = asyncio.Event()
        self._at_hand: UUID | None = None
        database.on_commit(self._wake.set)

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._wake.clear()
            if not await self.advance():
                await self._wait(stop)

    async def advance(self) -> bool:
        """Take one step, if there is one to take: plan a batch, or conclude a fan-out."""
        async with self._database.reading() as session:
            outlook = await rows.outlook(session, self._clock.now(), limit=AHEAD)
        if outlook.concludable and await self._safely(self._conclude):
            return True
        return outlook.plannable and outlook.waiting < AHEAD and await self._safely(self._plan)

    async def _safely(self, step: Step) -> bool:
        self._at_hand = None
        try:
            async with self._database.transaction() as session:
                await step(session)
        except _NothingToDo:
            return False
        except Exception as error:
            if is_transient(error) or self._at_hand is None:
                raise
            await self._put_off(self._at_hand, error)
        return True

    async def _plan(self, session: AsyncSession) -> None:
        fanout = await rows.take_plannable(session, self._clock.now())
        if fanout is None:
            raise _NothingToDo
        self._at_hand = fanout.item_id
        item = await rows.newest(session, fanout.item_id)
        with correlation.correlated(rows.correlation_of(fanout)):
            await self._plan_batch(session, fanout, item)

    async def _plan_batch(self, session: AsyncSession, fanout: Fanout, item: ItemSnapshot) -> None:
        if item.state is ItemState.WITHDRAWN:
            await rows.end_planning(session, fanout, cut_short=True)
            return
        audience = STRONGEST_FIRST[fanout.audience_rank]
        target = Target.of(item, fanout.started_at)
        matches: list[Match] = []
        last: UUID | None = None
        if audience in target.audiences:
            matches, last = await audience_page(
                session, target, audience, after=fanout.last_subscriber_id, limit=self._batch_size
            )
        if matches:
            await self._request(session, fanout, item, matches)
        await rows.move_on(session, fanout, target.audiences, last)

    async def _request(self, session: AsyncSession, fanout: Fanout, item: ItemSnapshot, matches: list[Match]) -> None:
        audience = matches[0].audience
        recipients, exclusions = self._divide(matches, item, Target.of(item, fanout.started_at))
        await digest_rows.wait_for_digest(session, item.item_id, exclusions, fanout.started_at)
        batch_id = derived_id("batch", fanout.item_id, audience, fanout.last_subscriber_id)
        event = MailRequested(
            batch_id=batch_id,
            subject_kind=SubjectKind.ITEM,
            subject_id=item.item_id,
            revision=item.revision,
            form=audiences.form_of(audience),
            lane=audiences.lane_of(audience),
            planned_at=fanout.started_at,
            item=item,
            recipients=recipients,
            exclusions=exclusions,
        )
        now = self._clock.now()
        event_id = await emit(
            session, event, source=SOURCE, subject=item.item_id, at=now, event_id=derived_id("mail.requested", batch_id)
        )
        session.add(
            FanoutBatch(
                event_id=event_id,
                item_id=item.item_id,
                audience_rank=fanout.audience_rank,
                planned=len(recipients),
                excluded=len(exclusions),
            )
        )

    def _divide(
        self, matches: list[Match], item: ItemSnapshot, target: Target
    ) -> tuple[tuple[Recipient, ...], tuple[Exclusion, ...]]:
        now = self._clock.now()
        recipients: list[Recipient] = []
        exclusions: list[Exclusion] = []
        for match in matches:
            cause = audiences.why_left_out(match, target, now)
            if cause is None:
                recipients.append(self._recipient(match, item.urgent_reason))
            else:
                detail = audiences.explain(match, cause, now)
                exclusions.append(
                    Exclusion(recipient_id=match.subscriber_id, audience=match.audience, reason=cause, detail=detail)
                )
        return tuple(recipients), tuple(exclusions)

    def _recipient(self, match: Match, urgent_reason: str) -> Recipient:
        why = reason(match.audience, match.locale, match.role_name, match.role_area)
        if match.frequency is not Frequency.IMMEDIATE:
            why = f"{why} {broke_through(match.locale, urgent_reason)}"
        out = self._links.unsubscribe(match.subscriber_id, match.generation, match.audience)
        return Recipient(
            recipient_id=match.subscriber_id,
            address=match.address,
            locale=match.locale,
            audience=match.audience,
            reason=why,
            preferences_url=self._links.preferences(match.subscriber_id, match.generation),
            unsubscribe_url=out,
            one_click_url=out,
        )

    async def _conclude(self, session: AsyncSession) -> None:
        fanout = await rows.take_concludable(session)
        if fanout is None:
            raise _NothingToDo
        self._at_hand = fanout.item_id
        item = await rows.newest(session, fanout.item_id)
        now = self._clock.now()
        event = FanoutCompleted(
            item_id=fanout.item_id,
            revision=item.revision,
            totals=await rows.totals(session, fanout.item_id, item.audiences),
            cut_short=fanout.cut_short,
        )
        with correlation.correlated(rows.correlation_of(fanout)):
            key = derived_id("fanout.completed", fanout.item_id)
            await emit(session, event, source=SOURCE, subject=fanout.item_id, at=now, event_id=key)
            await rows.complete(session, fanout, now)
            log.info("fanout_completed", item_id=str(fanout.item_id), cut_short=fanout.cut_short)

    async def _put_off(self, item_id: UUID, error: Exception) -> None:
        async with self._database.transaction() as session:
            failures = await rows.put_off(session, item_id, self._clock.now())
        log.error("fanout_batch_failed", item_id=str(item_id), failures=failures, exc_info=error)

    async def _wait(self, stop: asyncio.Event) -> None:
        stopping = asyncio.ensure_future(stop.wait())
        waking = asyncio.ensure_future(self._wake.wait())
        await asyncio.wait({stopping, waking}, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        waking.cancel()
