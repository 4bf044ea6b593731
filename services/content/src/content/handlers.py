"""What content does with events. Each keeps one row per item, so that hearing it twice, or late, changes nothing."""

from sqlalchemy.ext.asyncio import AsyncSession

from content import repository
from shared.contracts.delivery import DeliveryProgress
from shared.contracts.mail import FanoutCompleted
from shared.messaging.consumer import Received


async def on_delivery_progress(session: AsyncSession, received: Received[DeliveryProgress]) -> None:
    """Keep the newest counts: the highest sequence wins, in whatever order they come."""
    await repository.keep_progress(session, received.event)


async def on_fanout_completed(session: AsyncSession, received: Received[FanoutCompleted]) -> None:
    """Keep the totals that reach must equal."""
    await repository.keep_totals(session, received.event, received.envelope.time)
