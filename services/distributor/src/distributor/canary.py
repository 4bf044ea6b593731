"""The canary: whether what goes out arrives.

A subscriber and an endpoint of our own get every item like anybody else; nothing in the sending knows of them. What
arrives there is noted: a mail by the intake of bounces (`bounces.applying`), a webhook by `webhooks.canary`. What a
receiver's server accepted, or put off or refused, and is not seen ten minutes later, is missing: the metric and one
line in the log say so. It is counted for a day, or until it arrives.

Only items and digests count: a receipt, or the mail that confirms the canary's own sign-up, is not what it listens for.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from prometheus_client import Gauge
from sqlalchemy import exists, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from distributor.ledger import arrivals, deliveries
from distributor.settings import DistributorSettings
from distributor.states import BOUNCED, DEFERRED, FAILED, SENT, UNCERTAIN
from shared.clock import Clock
from shared.contracts.delivery import Channel
from shared.contracts.mail import SubjectKind
from shared.database import Database, insert_ignoring, instant
from shared.tasks import pause

log = structlog.get_logger()

LOOK_EVERY_S = 15.0
MISSED_AFTER = timedelta(minutes=10)
"""A mailbox is looked into every half minute, and a mail server may greylist for five."""
COUNTED_FOR = timedelta(days=1)
"""So that what was lost for good does not sound for ever."""
NAMED = 10
GONE = (SENT, UNCERTAIN, BOUNCED, FAILED)

unseen = Gauge("budkavle_canary_missing", "What went out to the canary over ten minutes ago, unseen there", ["channel"])


async def note_arrival(session: AsyncSession, clock: Clock, delivery_id: UUID, recipient_id: UUID) -> bool:
    """Write down that the canary has it; False where that is known, or it is no delivery of that recipient's."""
    theirs = select(deliveries.c.channel).where(
        deliveries.c.id == delivery_id, deliveries.c.recipient_id == recipient_id
    )
    channel = await session.scalar(theirs)
    if channel is None:
        return False
    row = {"delivery_id": delivery_id, "arrived_at": await instant(session, clock)}
    noted = await session.scalar(insert_ignoring(session, arrivals).values(row).returning(arrivals.c.delivery_id))
    if noted is not None:
        log.info("canary_arrived", channel=str(channel), delivery_id=str(delivery_id))
    return noted is not None


async def missing(
    session: AsyncSession, channel: Channel, recipient_id: UUID, now: datetime, after: timedelta
) -> Sequence[UUID]:
    """What should have arrived by now. One that is put off changes with each try: it is late since it was planned."""
    late = or_(
        deliveries.c.state.in_(GONE) & (deliveries.c.changed_at < now - after),
        (deliveries.c.state == DEFERRED) & (deliveries.c.planned_at < now - after),
    )
    query = select(deliveries.c.id).where(
        deliveries.c.recipient_id == recipient_id,
        deliveries.c.channel == channel,
        deliveries.c.subject_kind != SubjectKind.REQUEST,
        deliveries.c.changed_at > now - COUNTED_FOR,
        late,
        ~exists().where(arrivals.c.delivery_id == deliveries.c.id),
    )
    return (await session.scalars(query.order_by(deliveries.c.id))).all()


class CanaryWorker:
    """Looks for what is missing at the canaries that the settings name."""

    name = "canary"

    def __init__(self, database: Database, clock: Clock, settings: DistributorSettings) -> None:
        self._database = database
        self._clock = clock
        self._after = MISSED_AFTER * settings.retry_scale
        self._canaries = settings.canaries
        self._told: set[UUID] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Look until `stop`."""
        while not stop.is_set():
            await self.look()
            await pause(stop, LOOK_EVERY_S)

    async def look(self) -> None:
        """Measure each channel, and say what was not missing before."""
        still_missing: set[UUID] = set()
        for channel, recipient_id in self._canaries.items():
            async with self._database.reading() as session:
                now = await instant(session, self._clock)
                found = await missing(session, channel, recipient_id, now, self._after)
            unseen.labels(channel).set(len(found))
            self._tell(channel, [key for key in found if key not in self._told])
            still_missing.update(found)
        self._told = still_missing

    def _tell(self, channel: Channel, newly: Sequence[UUID]) -> None:
        if newly:
            named = [str(key) for key in newly[:NAMED]]
            log.error("canary_missing", channel=str(channel), deliveries=len(newly), delivery_ids=named)
