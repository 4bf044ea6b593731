"""What the ledger's API shows. No address ever: whoever needs one asks subscriptions, by the recipient's id."""

from enum import StrEnum
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field

from distributor.bounces.phrases import Kind
from distributor.retry_policy import RETRIES_EXHAUSTED
from shared.contracts.delivery import Channel, DeliveryState
from shared.contracts.mail import ExclusionReason, Form, Lane, SubjectKind
from shared.contracts.news import Audience


class Status(StrEnum):
    """The six words that users of mail APIs know, used as GOV.UK Notify does; `state` is ours and finer."""

    CREATED = "created"
    SENDING = "sending"
    DELIVERED = "delivered"
    PERMANENT_FAILURE = "permanent-failure"
    TEMPORARY_FAILURE = "temporary-failure"
    TECHNICAL_FAILURE = "technical-failure"


STATUS_OF = {
    DeliveryState.PLANNED: Status.CREATED,
    DeliveryState.LEASED: Status.SENDING,
    DeliveryState.SENT: Status.DELIVERED,
    DeliveryState.DEFERRED: Status.SENDING,
    DeliveryState.UNCERTAIN: Status.TEMPORARY_FAILURE,
    DeliveryState.BOUNCED: Status.PERMANENT_FAILURE,
    DeliveryState.FAILED: Status.TECHNICAL_FAILURE,
    DeliveryState.CANCELLED: Status.PERMANENT_FAILURE,
}


def status_of(state: DeliveryState, ended_reason: str) -> Status:
    """The word for a row. A temporary failure is final: the receiver put it off until the schedule ended."""
    if state is DeliveryState.FAILED and ended_reason == RETRIES_EXHAUSTED:
        return Status.TEMPORARY_FAILURE
    return STATUS_OF[state]


class DeliveryView(BaseModel):
    """One row of the ledger."""

    id: UUID
    subject_kind: SubjectKind
    subject_id: UUID
    revision: int
    channel: Channel
    recipient_id: UUID
    audience: Audience | None
    form: Form
    lane: Lane
    state: DeliveryState
    status: Status
    ended_reason: str = Field(description="why it was cancelled, held or given up; empty otherwise")
    attempts: int = Field(description="tries so far")
    planned_at: AwareDatetime
    changed_at: AwareDatetime
    next_attempt_at: AwareDatetime | None


class AttemptView(BaseModel):
    """One try, with the receiver's own words."""

    number: int
    state: DeliveryState
    code: int | None = Field(description="SMTP reply code or HTTP status")
    enhanced: str = Field(description="enhanced status code, RFC 3463")
    reply: str
    phase: str
    fault: str
    duration_ms: int
    ended_at: AwareDatetime


class BounceView(BaseModel):
    """A report that came back after the receiver's server had accepted the mail."""

    kind: Kind
    status: str = Field(description="enhanced status code, RFC 3463")
    diagnostic: str = Field(description="the reporting server's words, without addresses")
    reporting_mta: str
    received_at: AwareDatetime


class DeliveryDetail(DeliveryView):
    """A row with its attempts and with what came back, each oldest first."""

    attempt_log: list[AttemptView]
    bounce_log: list[BounceView]


class ExclusionView(BaseModel):
    """Somebody in the audience who was left out."""

    recipient_id: UUID
    audience: Audience
    reason: ExclusionReason
    detail: str
