"""What `subscriptions` does with what others say. Each handler may run twice and in any order of events."""

from collections.abc import Mapping

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from shared.clock import Clock
from shared.contracts.delivery import BounceKind, DeliveryBounced, DeliveryComplained
from shared.contracts.envelope import Event
from shared.contracts.news import NewsCorrected, NewsPublished, NewsWithdrawn
from shared.database import Database, instant
from shared.messaging.consumer import Consumer, Handler, Received
from shared.messaging.topology import SUBSCRIPTIONS_NEWS, SUBSCRIPTIONS_OUTCOMES
from subscriptions import fanout, fanouts
from subscriptions.desks.desks import raise_for
from subscriptions.groups import members
from subscriptions.history import Source
from subscriptions.stops import UnknownSubscriber, changing
from subscriptions.suppressions import SuppressionReason, lifted_after, note_soft_bounce, suppress
from subscriptions.tasks.tasks import TaskKind

log = structlog.get_logger()


class Handlers:
    """The handlers, with the clock they need."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def consumers(self, database: Database) -> list[Consumer]:
        """One consumer per queue of ours."""
        news: Mapping[type[Event], Handler] = {
            NewsPublished: self.on_news_published,
            NewsCorrected: self.on_news_changed,
            NewsWithdrawn: self.on_news_changed,
        }
        outcomes: Mapping[type[Event], Handler] = {
            DeliveryBounced: self.on_delivery_bounced,
            DeliveryComplained: self.on_delivery_complained,
        }
        return [
            Consumer(SUBSCRIPTIONS_NEWS, database, self._clock, news),
            Consumer(SUBSCRIPTIONS_OUTCOMES, database, self._clock, outcomes),
        ]

    async def on_news_published(self, session: AsyncSession, received: Received[NewsPublished]) -> None:
        await fanout.record(session, received.event.item, await instant(session, self._clock))

    async def on_news_changed(
        self, session: AsyncSession, received: Received[NewsCorrected] | Received[NewsWithdrawn]
    ) -> None:
        """A fan-out under way goes on with the correction, or ends; distributor tells those who have it already."""
        await fanouts.keep_newest(session, received.event.item)

    async def on_delivery_bounced(self, session: AsyncSession, received: Received[DeliveryBounced]) -> None:
        """A hard bounce, or one soft one too many, suppresses the address, but none that took its place meanwhile. A
        newsroom is never lost in silence: somebody must find its desk.
        """
        recipient_id = received.event.recipient_id
        hard, now = received.event.kind is BounceKind.HARD, self._clock.now()
        why = SuppressionReason.HARD_BOUNCE if hard else SuppressionReason.SOFT_BOUNCES
        try:
            async with changing(session, recipient_id, now, Source.BOUNCE) as person:
                if not received.event.is_of(person.subscriber.address):
                    return
                if await lifted_after(session, recipient_id, why, received.envelope.time):
                    return
                if not hard and not await note_soft_bounce(session, recipient_id, received.event.delivery_id, now):
                    return
                await suppress(session, person.subscriber, why, Source.BOUNCE, now, received.event.status)
        except UnknownSubscriber:
            return
        status = received.event.status
        await members.raise_for(session, recipient_id, status, self._clock.now())
        if await raise_for(session, recipient_id, TaskKind.NEWSROOM_BOUNCED, status, self._clock.now()):
            log.warning("newsroom_desk_bounced", subscriber_id=str(recipient_id), status=status)

    async def on_delivery_complained(self, session: AsyncSession, received: Received[DeliveryComplained]) -> None:
        """Whoever calls our mail spam gets no more."""
        now, recipient_id = self._clock.now(), received.event.recipient_id
        try:
            async with changing(session, recipient_id, now, Source.COMPLAINT) as person:
                if await lifted_after(session, recipient_id, SuppressionReason.COMPLAINT, received.envelope.time):
                    return
                await suppress(session, person.subscriber, SuppressionReason.COMPLAINT, Source.COMPLAINT, now)
        except UnknownSubscriber:
            return
        await raise_for(session, recipient_id, TaskKind.NEWSROOM_COMPLAINED, "", now)
