"""Has the distributor forget somebody, and keeps that it was told: an erasure outlives what it erased."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.mail import RecipientErased
from shared.database import insert_ignoring
from shared.ids import derived_id
from shared.messaging.outbox import emit
from subscriptions.models import Erasure

SOURCE = "subscriptions"
erasures: Table = Erasure.__table__  # type: ignore[assignment]


async def tell(
    session: AsyncSession, recipient_id: UUID, at: datetime, *, version: int = 1, event_id: UUID | None = None
) -> None:
    """Say that a recipient is erased, and keep the id for the list of the erased (`erasures`)."""
    kept = insert_ignoring(session, erasures).values(recipient_id=recipient_id, at=at)
    await session.execute(kept)
    event = RecipientErased(recipient_id=recipient_id, version=version)
    await emit(session, event, source=SOURCE, subject=recipient_id, at=at, event_id=event_id)


async def forget(session: AsyncSession, recipient_id: UUID, at: datetime) -> None:
    """The same of an address that was mailed under an id of its own (a sign-up, a change of address): once, however
    often it is asked.
    """
    await tell(session, recipient_id, at, event_id=derived_id("recipient.erased", recipient_id))
