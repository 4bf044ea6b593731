"""Has the distributor forget an address that was mailed under an id of its own (a sign-up, a change of address)."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.mail import RecipientErased
from shared.ids import derived_id
from shared.messaging.outbox import emit

SOURCE = "subscriptions"


async def forget(session: AsyncSession, recipient_id: UUID, at: datetime) -> None:
    """Say so, once however often it is asked."""
    event = RecipientErased(recipient_id=recipient_id, version=1)
    key = derived_id("recipient.erased", recipient_id)
    await emit(session, event, source=SOURCE, subject=recipient_id, at=at, event_id=key)
