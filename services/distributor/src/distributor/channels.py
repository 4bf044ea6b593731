"""The port between the ledger and the ways out: what a channel is given, and what it answers.

A channel sends one dispatch and says how it ended. It never raises for what a receiver did, never touches the
ledger, and says of each dispatch whether the receiver may have it: that is what makes a retry safe.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, Protocol
from uuid import UUID

from shared.contracts.delivery import Channel, DeliveryState
from shared.contracts.mail import DigestItem, Form, Lane, RequestContent, SubjectKind
from shared.contracts.news import Audience, ItemSnapshot, Locale
from shared.correlation import Correlation


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """What a subject's revision says; shared by all its dispatches (so it may serve as a cache key by identity).

    `note` is the correction's note or the withdrawal's reason. `event_id`, `correlation_id` and `traceparent` are the
    news event's own, for webhooks. A digest's content is one edition, with the day of its run.
    """

    subject_kind: SubjectKind
    subject_id: UUID
    revision: int
    item: ItemSnapshot | None = None
    note: str = ""
    request: RequestContent | None = None
    digest: tuple[DigestItem, ...] = ()
    planned_at: datetime | None = None
    event_type: str = ""
    correlation_id: str = ""
    traceparent: str | None = None

    @property
    def trail(self) -> Correlation:
        """What binds log lines about it to the editor's click."""
        return Correlation(self.correlation_id, self.traceparent)


class Dispatch(NamedTuple):
    """One delivery that is to go out now. Sending it again must put the same bytes on the wire.

    For mail, `recipient_id` and `address` are the person's or the desk's; for a webhook `recipient_id` is the
    endpoint's id and the rest is empty. `thread_of` holds what the same recipient got before, oldest first: revisions
    of the item, or a digest run that carried it. What a webhook tells follows from `form`: news is "published", in
    whatever revision is the newest.
    """

    delivery_id: UUID
    channel: Channel
    recipient_id: UUID
    form: Form
    lane: Lane
    content: Content
    planned_at: datetime
    attempt: int
    locale: Locale = Locale.SV
    audience: Audience | None = None
    address: str = ""
    reason: str = ""
    preferences_url: str = ""
    unsubscribe_url: str = ""
    one_click_url: str = ""
    thread_of: tuple[int | UUID, ...] = ()


class Fault(StrEnum):
    """Whose fault a refusal is; only a recipient's own may ever suppress anybody."""

    NONE = "none"
    RECIPIENT = "recipient"
    CONTENT = "content"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended.

    `state` is sent, deferred, bounced (the recipient was refused for good), failed (refused for good, not the
    recipient's fault) or uncertain (the receiver may have it). `code` is the SMTP reply or HTTP status, `enhanced`
    the RFC 3463 status, `reply` the receiver's own words with its queue id (at most 4 kB). `counts` is false when
    nothing was tried on this delivery's own account (the relay could not be reached): the retry schedule does not
    advance. `trail` binds what is logged of it to the editor's click; senders leave it alone.
    """

    state: DeliveryState
    code: int | None = None
    enhanced: str = ""
    reply: str = ""
    phase: str = ""
    fault: Fault = Fault.NONE
    retry_after: timedelta | None = None
    counts: bool = True
    duration: timedelta = field(default=timedelta(0))
    trail: Correlation | None = field(default=None, compare=False)


class Sender(Protocol):
    """One channel's way out. `slots` deliveries are in its hands at most, the window of doubt after a crash; `room`
    says how many it can take forward at the moment, so that none begins only to wait.
    """

    channel: Channel
    slots: int

    @property
    def room(self) -> int: ...

    async def send(self, dispatch: Dispatch) -> Outcome:
        """Send `dispatch`; returns when its outcome is known, with no more than one dispatch a slot under way."""

    async def close(self) -> None:
        """Let go of all connections."""
