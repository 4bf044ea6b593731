"""What `distributor` says: how far an item has come, who bounced, who complained."""

from enum import StrEnum
from hashlib import sha256
from typing import ClassVar
from uuid import UUID

from pydantic import AwareDatetime, Field

from shared.contracts.envelope import Contract, Event
from shared.contracts.mail import ExclusionReason, Form
from shared.contracts.news import Audience


class Channel(StrEnum):
    """How a delivery travels."""

    MAIL = "mail"
    WEBHOOK = "webhook"


class DeliveryState(StrEnum):
    """The states of a ledger row. "Sent" means that the server accepted it."""

    PLANNED = "planned"
    LEASED = "leased"
    SENT = "sent"
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    FAILED = "failed"
    UNCERTAIN = "uncertain"
    CANCELLED = "cancelled"


class DeliveryCount(Contract):
    """How many deliveries of one revision are in one state. Webhooks have no audience."""

    revision: int
    channel: Channel
    audience: Audience | None = None
    form: Form | None = None
    state: DeliveryState
    superseded: bool = Field(
        default=False, description="cancelled because the recipient has a row of a later revision in the same form"
    )
    given_up: bool = Field(
        default=False, description="failed because its receiver had put it off until the schedule ended"
    )
    unreachable: bool = Field(
        default=False, description="cancelled because what it takes to tell the recipient is no longer kept"
    )
    count: int = Field(ge=0)


class ExclusionCount(Contract):
    """How many of an audience were left out for one reason."""

    audience: Audience
    reason: ExclusionReason
    count: int = Field(ge=0)


class DeliveryProgress(Event):
    """A numbered snapshot of one item's counts, never a delta: the highest `sequence` wins."""

    event_name: ClassVar[str] = "delivery.progress"
    item_id: UUID
    sequence: int = Field(ge=1)
    counted_at: AwareDatetime
    deliveries: tuple[DeliveryCount, ...]
    exclusions: tuple[ExclusionCount, ...] = ()


class BounceKind(StrEnum):
    """Hard: the address does not exist. Soft: it may work later."""

    HARD = "hard"
    SOFT = "soft"


def fingerprint(recipient_id: UUID, address: str) -> str:
    """Tells one recipient's addresses apart, and says nothing to whoever does not know them."""
    return sha256(recipient_id.bytes + address.casefold().encode()).hexdigest()[:16]


class DeliveryBounced(Event):
    """A receiver's server refused the recipient (not us, and not the content)."""

    event_name: ClassVar[str] = "delivery.bounced"
    delivery_id: UUID
    recipient_id: UUID
    kind: BounceKind
    status: str = Field(default="", description="enhanced status code (RFC 3463), for example 5.1.1")
    address_fingerprint: str = Field(
        default="", description="of the address that was written to; empty where it is no longer kept"
    )

    def is_of(self, address: str) -> bool:
        """Whether it may have been `address` that bounced: a bounce can come days later, after a change of address."""
        return self.address_fingerprint in ("", fingerprint(self.recipient_id, address))


class DeliveryComplained(Event):
    """The recipient marked a mail as unwanted."""

    event_name: ClassVar[str] = "delivery.complained"
    delivery_id: UUID
    recipient_id: UUID
