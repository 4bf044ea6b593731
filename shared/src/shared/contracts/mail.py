"""What `subscriptions` says: who is to get a mail, who is left out and why, who stopped, resumed or was erased.

`content` also says `mail.requested`, for its own staff (sign-in links, reminders): those have no item.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, ClassVar, Self
from uuid import UUID

from pydantic import AwareDatetime, Field

from shared.contracts.envelope import Contract, Event
from shared.contracts.news import NEWS_IS_NEWS_FOR, Audience, ItemSnapshot, ItemState, Kind, Locale

BATCH_SIZE = 500
"""The most recipients in one `mail.requested` (60 kB): the broker's share per mail is then under 2 µs."""


class Form(StrEnum):
    """How one audience sees an item, or what a mail is about."""

    PRESS = "press"
    NEWS = "news"
    CORRECTION = "correction"
    WITHDRAWAL = "withdrawal"
    DIGEST = "digest"
    CONFIRM = "confirm"
    PREFERENCES = "preferences"
    SIGN_IN = "sign_in"
    REMINDER = "reminder"
    ENDPOINT = "endpoint"


class Lane(StrEnum):
    """Priority of a delivery, strongest first. Each lane has its own queue, so that a press release passes a digest."""

    TRANSACTIONAL = "transactional"
    PRESS = "press"
    NEWS = "news"
    DIGEST = "digest"


class SubjectKind(StrEnum):
    """What a delivery is about."""

    ITEM = "item"
    DIGEST_RUN = "digest_run"
    REQUEST = "request"


class DigestItem(Contract):
    """What a digest tells of one revision of an item: headline, lead and link."""

    item_id: UUID
    revision: int = Field(ge=1)
    kind: Kind
    language: Locale
    title: str
    lead: str
    url: str
    published_at: AwareDatetime
    corrected_at: AwareDatetime | None = None

    @classmethod
    def of(cls, item: ItemSnapshot) -> Self:
        """The item as a digest tells of it."""
        corrected_at = item.revised_at if item.state is ItemState.CORRECTED else None
        kept = item.model_dump(include=set(cls.model_fields))
        return cls(**kept, corrected_at=corrected_at)


class Carried(Contract):
    """One item in somebody's digest, and the audience that they get it as."""

    item_id: UUID
    audience: Audience


class Recipient(Contract):
    """One person or desk, with all that is needed to write to them.

    `reason` says in the recipient's language why they get this. `one_click_url` takes the POST of RFC 8058; the two
    other links lead to pages. Transactional mails may lack all three.
    """

    recipient_id: UUID
    address: str
    locale: Locale
    audience: Audience | None = None
    reason: str = ""
    preferences_url: str = ""
    unsubscribe_url: str = ""
    one_click_url: str = ""
    carries: tuple[Carried, ...] = Field(default=(), description="of a digest: which of the batch's items")


class ExclusionReason(StrEnum):
    """Why somebody who is in the audience is left out."""

    PAUSED = "paused"
    UNSUBSCRIBED = "unsubscribed"
    FREQUENCY = "frequency"
    TOPIC_CHOICE = "topic_choice"
    MUNICIPALITY_CHOICE = "municipality_choice"
    SUPPRESSED = "suppressed"
    DUPLICATE_ADDRESS = "duplicate_address"


class Exclusion(Contract):
    """Somebody in the audience who is left out; never with an address. `detail` is for the editor, in Swedish."""

    recipient_id: UUID
    audience: Audience
    reason: ExclusionReason
    detail: str = ""


class ItemContent(Contract):
    """The mail tells of an item."""

    item: ItemSnapshot


class RequestContent(Contract):
    """A transactional mail in ready words: each paragraph is one string, `links` are buttons."""

    subject: str
    paragraphs: tuple[str, ...]
    action_label: str = ""
    action_url: str = ""


class MailRequested(Event):
    """One batch of at most 500 recipients who get the same form of the same subject.

    Accepting it twice changes nothing: rows are unique on (subject, revision, channel, recipient). A batch with no
    recipients carries exclusions alone.
    """

    event_name: ClassVar[str] = "mail.requested"
    stale_after: ClassVar[timedelta | None] = NEWS_IS_NEWS_FOR
    batch_id: UUID
    subject_kind: SubjectKind
    subject_id: UUID
    revision: int = Field(ge=0, description="of the item; 0 for a digest run or a request")
    form: Form
    lane: Lane
    planned_at: AwareDatetime = Field(description="becomes the mail's Date header, so that a repeat is byte-identical")
    item: ItemSnapshot | None = None
    request: RequestContent | None = None
    digest: tuple[DigestItem, ...] = Field(default=(), description="of a digest run: what its recipients carry, once")
    recipients: Annotated[tuple[Recipient, ...], Field(max_length=BATCH_SIZE)] = ()
    exclusions: Annotated[tuple[Exclusion, ...], Field(max_length=BATCH_SIZE)] = ()

    @property
    def routing_key(self) -> str:
        return f"{self.event_name}.{self.lane}"


class AudienceTotal(Contract):
    """What a fan-out found in one audience: each person counts once, under the strongest."""

    audience: Audience
    planned: int = Field(ge=0)
    excluded: int = Field(ge=0)


class FanoutCompleted(Event):
    """Every batch of one item's fan-out is confirmed by the broker; `reach` must equal these totals."""

    event_name: ClassVar[str] = "fanout.completed"
    item_id: UUID
    revision: int
    totals: tuple[AudienceTotal, ...]
    cut_short: bool = Field(default=False, description="the item was withdrawn before everybody had been planned")


class StopScope(StrEnum):
    """How much a stop covers."""

    ALL = "all"
    AUDIENCE = "audience"


class RecipientStopped(Event):
    """Nothing more may be sent to this recipient (in this audience). Compared by `version`, which grows per
    recipient, so that an older resume never undoes a newer stop.
    """

    event_name: ClassVar[str] = "recipient.stopped"
    recipient_id: UUID
    scope: StopScope
    audience: Audience | None = None
    version: int = Field(ge=1)
    until: AwareDatetime | None = Field(default=None, description="a pause ends by itself")


class RecipientResumed(Event):
    """The stop of the same scope ends. Deliveries that were cancelled meanwhile stay cancelled."""

    event_name: ClassVar[str] = "recipient.resumed"
    recipient_id: UUID
    scope: StopScope
    audience: Audience | None = None
    version: int = Field(ge=1)


class RecipientErased(Event):
    """Everything held about this recipient goes: address, reason and links; counts and ids stay."""

    event_name: ClassVar[str] = "recipient.erased"
    recipient_id: UUID
    version: int = Field(ge=1)
