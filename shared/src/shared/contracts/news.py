"""What `content` says: an item was published, corrected or withdrawn.

The whole item rides in the event (event-carried state), rendered and sanitised once, so that nobody has to ask content
for anything in order to do its own job. `audiences`, `municipalities` and `topics` freeze at publication.
"""

from datetime import timedelta
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from pydantic import AwareDatetime, Field

from shared.contracts.envelope import Contract, Event

NEWS_IS_NEWS_FOR = timedelta(days=7)
"""Longer than a holiday without anybody at work. What is told of later than that would only confuse; what takes
something back, or stops somebody, counts whenever it comes."""


class Audience(StrEnum):
    """Whom an item is for, in falling strength: a person in several gets the form of the strongest."""

    NEWSROOM = "newsroom"
    POLITICIAN = "politician"
    COLLABORATION_GROUP = "collaboration_group"
    AGENCY_OFFICIAL = "agency_official"
    PUBLIC = "public"


STRONGEST_FIRST: tuple[Audience, ...] = tuple(Audience)


class Kind(StrEnum):
    """What is published."""

    PRESS_RELEASE = "press_release"
    NEWS_TIP = "news_tip"
    NEWS = "news"
    REPORT = "report"
    RESULT = "result"
    DAILY_NOTE = "daily_note"


class ItemState(StrEnum):
    """Where an item is in its life. A draft never leaves content."""

    DRAFT = "draft"
    PUBLISHED = "published"
    CORRECTED = "corrected"
    WITHDRAWN = "withdrawn"


class Locale(StrEnum):
    """Languages of items, pages and mails."""

    SV = "sv"
    EN = "en"


class ContactPerson(Contract):
    """Somebody who answers when a journalist calls."""

    name: str
    role: str = ""
    phone: str = ""
    email: str = ""
    hours: str = Field(default="", description="when the person answers, in words")


class Link(Contract):
    """A link that belongs to the item."""

    label: str
    url: str


class Image(Contract):
    """A full-size image that lies elsewhere, by link."""

    url: str
    alt: str
    credit: str
    caption: str = ""


class AttachedFile(Contract):
    """What is told of a file that goes with an item. `sha256` is that of the bytes that readers get."""

    sha256: str
    name: str = Field(description="a file name that is harmless anywhere", examples=["årsredovisning 2026.pdf"])
    type: str = Field(examples=["application/pdf", "image/jpeg", "image/png"])
    size: int = Field(description="in bytes")
    width: int | None = Field(default=None, description="of an image, in pixels, as it is shown")
    height: int | None = None
    title: str = Field(default="", description="what the file is called where it is shown; the caption of an image")
    alt: str = Field(default="", description="what an image shows, for those who do not see it")
    byline: str = Field(default="", description="who made it, as newsrooms must name them")
    rights: str = Field(default="", description="what it may be used for")


class Attachment(AttachedFile):
    """A file that goes with an item, by link; never in a mail."""

    url: str


class ItemSnapshot(Contract):
    """One revision of an item, ready to be shown in any form.

    `body_html` is sanitised; `body_text` is the body as readable plain text with its links written out; `url` is the
    item's public page. `original_url` and `popular_version_*` are set for reports alone.
    """

    item_id: UUID
    revision: int = Field(ge=1)
    kind: Kind
    state: ItemState
    language: Locale
    title: str
    lead: str
    body_html: str
    body_text: str
    slug: str
    url: str
    audiences: tuple[Audience, ...]
    municipalities: tuple[str, ...] = Field(default=(), description="four-digit SCB codes; empty means all")
    topics: tuple[str, ...] = Field(default=(), description="topic ids; empty means all")
    contacts: tuple[ContactPerson, ...] = ()
    links: tuple[Link, ...] = ()
    images: tuple[Image, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    popular_version_html: str = ""
    popular_version_text: str = ""
    original_url: str = ""
    urgent_reason: str = Field(default="", description="why it does not wait for anybody's digest; empty: it may")
    published_at: AwareDatetime
    revised_at: AwareDatetime


class NewsPublished(Event):
    """An item's first public revision."""

    event_name: ClassVar[str] = "news.published"
    stale_after: ClassVar[timedelta | None] = NEWS_IS_NEWS_FOR
    item: ItemSnapshot


class NewsCorrected(Event):
    """A later revision replaces what was published; `note` says in words what was wrong."""

    event_name: ClassVar[str] = "news.corrected"
    item: ItemSnapshot
    note: str


class NewsWithdrawn(Event):
    """The item is taken back. `item.revision` is the withdrawal's own; its text is the last published one, for
    reference only and not to be shown again; `reason` is what readers are told.
    """

    event_name: ClassVar[str] = "news.withdrawn"
    item: ItemSnapshot
    reason: str


NewsEvent = NewsPublished | NewsCorrected | NewsWithdrawn
