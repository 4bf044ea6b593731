"""What an editor fills in: the fields of an item, as they are sent, kept and compared.

`ItemFields` is what is stored, and reads whatever was stored once, even where a rule became stricter since.
`ItemDraft` and `ItemChanges` are what comes in, and refuse what breaks a rule, field by field.
"""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field

from content.wording import MAX_LINE, FilledLine, Lead, Line, MaybeWebAddress, Prose, Title, WebAddress, one_line
from shared.complaints import UNKNOWN_MUNICIPALITY, UNKNOWN_TOPIC, refusal
from shared.contracts.envelope import Contract
from shared.contracts.news import STRONGEST_FIRST, AttachedFile, Audience, ContactPerson, Image, Kind, Link, Locale
from shared.contracts.vocabulary import MUNICIPALITIES, TOPICS
from shared.http import RequestModel
from shared.plain_text import NOT_IN_LINE, SPACE, TRIMMED, whole

_NOT_IN_EMAIL = rf"@{SPACE}{NOT_IN_LINE}<>\"',;:\\"
EMAIL = whole(rf"([^{_NOT_IN_EMAIL}]+@[^{_NOT_IN_EMAIL}]+\.[^{_NOT_IN_EMAIL}.]+)?")
PHONE = whole(r"(\+?[0-9][0-9 ()/\u2013-]{2,29}[0-9()/\u2013-])?")

FROZEN = ("kind", "language", "audiences", "municipalities", "topics", "urgent_reason")
"""What no longer changes once an item is published: a correction goes to those who got the original."""


class ItemFields(Contract):
    """The fields of one item, or of one of its revisions."""

    kind: Kind
    title: str
    lead: str = ""
    body: str = ""
    language: Locale = Locale.SV
    audiences: tuple[Audience, ...] = ()
    municipalities: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    contacts: tuple[ContactPerson, ...] = ()
    links: tuple[Link, ...] = ()
    images: tuple[Image, ...] = ()
    attachments: tuple[AttachedFile, ...] = ()
    popular_version: str = ""
    original_url: str = ""
    urgent_reason: str = ""

    def changed(self, changes: dict[str, Any]) -> Self:
        """These fields with `changes` in their place."""
        return self.model_validate({**self.model_dump(), **changes})


def _by_strength(audiences: tuple[Audience, ...]) -> tuple[Audience, ...]:
    return tuple(audience for audience in STRONGEST_FIRST if audience in audiences)


def _known_municipality(code: str) -> str:
    if code not in MUNICIPALITIES:
        raise refusal("unknown_municipality", *UNKNOWN_MUNICIPALITY)
    return code


def _known_topic(topic: str) -> str:
    if topic not in TOPICS:
        raise refusal("unknown_topic", *UNKNOWN_TOPIC)
    return topic


def _once_each(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))


Municipality = Annotated[
    str, AfterValidator(_known_municipality), Field(json_schema_extra={"enum": list(MUNICIPALITIES)})
]
TopicId = Annotated[str, AfterValidator(_known_topic), Field(json_schema_extra={"enum": list(TOPICS)})]


class ContactInput(RequestModel):
    """Somebody who answers when a journalist calls."""

    name: FilledLine
    role: Line = ""
    phone: Annotated[
        str, Field(pattern=PHONE, max_length=MAX_LINE, examples=["0480-123 45"]), TRIMMED, AfterValidator(one_line)
    ] = ""
    email: Annotated[
        str,
        Field(pattern=EMAIL, max_length=254, examples=["anna@forbundet.example"]),
        TRIMMED,
        AfterValidator(one_line),
    ] = ""
    hours: Line = Field(default="", description="when the person answers, in words")


class LinkInput(RequestModel):
    """A link that belongs to the item."""

    label: FilledLine
    url: WebAddress


class ImageInput(RequestModel):
    """A full-size image by its address, with what it shows and who made it."""

    url: WebAddress
    alt: FilledLine
    credit: FilledLine
    caption: Line = ""


class ItemDraft(RequestModel):
    """A new item. A draft may be incomplete; what it needs is asked for when it is published."""

    kind: Kind
    title: Title
    lead: Lead = ""
    body: Prose = Field(default="", description="Markdown (CommonMark with tables); HTML in it is shown as text")
    language: Locale = Locale.SV
    audiences: Annotated[tuple[Audience, ...], Field(max_length=20), AfterValidator(_by_strength)] = ()
    municipalities: Annotated[tuple[Municipality, ...], Field(max_length=50), AfterValidator(_once_each)] = Field(
        default=(), description="four-digit SCB codes; empty means all"
    )
    topics: Annotated[tuple[TopicId, ...], Field(max_length=50), AfterValidator(_once_each)] = Field(
        default=(), description="topic ids; empty means all"
    )
    contacts: Annotated[tuple[ContactInput, ...], Field(max_length=10)] = ()
    links: Annotated[tuple[LinkInput, ...], Field(max_length=30)] = ()
    images: Annotated[tuple[ImageInput, ...], Field(max_length=20)] = ()
    popular_version: Prose = Field(default="", description="Markdown; a report's short version for everybody")
    original_url: MaybeWebAddress = Field(default="", description="a report's original document")
    urgent_reason: Line = Field(
        default="", description="why it must not wait for anybody's daily or weekly digest; readers are told so"
    )

    def fields(self) -> ItemFields:
        """The fields to keep."""
        return ItemFields.model_validate(self.model_dump())


def without_defaults(schema: dict[str, Any]) -> None:
    """For a model where a field that is not sent is something else than its default."""
    for described in schema["properties"].values():
        described.pop("default", None)


class ItemChanges(ItemDraft, json_schema_extra=without_defaults):
    """Changes of an item: a field that is not sent stays as it is; a list is replaced as a whole."""

    kind: Kind = Kind.NEWS
    title: Title = "-"

    def sent(self) -> dict[str, Any]:
        """The fields that were sent."""
        return self.model_dump(exclude_unset=True)
