"""The words of the API: what callers send, and what they get."""

from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool

from shared.complaints import BLANK, CONTROL_CHARACTER, UNKNOWN_MUNICIPALITY, UNKNOWN_TOPIC, refusal
from shared.contracts.mail import ExclusionReason
from shared.contracts.news import Audience, Kind, Locale
from shared.contracts.vocabulary import MUNICIPALITIES, TOPICS
from shared.http import RequestModel
from shared.plain_text import LINE, MAIL_ADDRESS, SEEN_LINE, TRIMMED, is_line, is_seen, said
from shared.problems import FieldError
from shared.written import Day, Instant
from subscriptions.addresses import MAX_LENGTH
from subscriptions.consent import Basis
from subscriptions.frequencies import EVERYTHING_NAMED, Frequency
from subscriptions.history import Act, Source
from subscriptions.models import NAME_LENGTH, FanoutState, OrganisationKind
from subscriptions.states import SubscriberState
from subscriptions.suppressions import SuppressionReason


def one_line(text: str) -> str:
    """One line, with single spaces; a control character is refused."""
    if not is_line(text):
        raise refusal("invalid_text", *CONTROL_CHARACTER)
    return " ".join(text.split())


def seen(text: str) -> str:
    """A text in which there is something to see."""
    if not is_seen(text):
        raise refusal("blank_text", *BLANK)
    return text


def _known_municipality(code: str) -> str:
    if code not in MUNICIPALITIES:
        raise refusal("unknown_municipality", *UNKNOWN_MUNICIPALITY)
    return code


def _known_topic(topic: str) -> str:
    if topic not in TOPICS:
        raise refusal("unknown_topic", *UNKNOWN_TOPIC)
    return topic


def _topic_or_everything(topic: str) -> str:
    return topic if topic == EVERYTHING_NAMED else _known_topic(topic)


def _within_reason(instant: datetime) -> datetime:
    if not 2000 <= instant.year < 2200:
        raise refusal(
            "odd_time",
            "Give a time in this century, for example 2026-11-22T08:30:00+01:00.",
            "Skriv en tid på 2000-talet, till exempel 2026-11-22T08:30:00+01:00.",
        )
    return instant


Name = Annotated[
    str,
    Field(min_length=1, max_length=NAME_LENGTH),
    said(SEEN_LINE),
    TRIMMED,
    AfterValidator(one_line),
    AfterValidator(seen),
]
PersonName = Annotated[str, Field(max_length=NAME_LENGTH), said(LINE), TRIMMED, AfterValidator(one_line)]
Municipality = Annotated[
    str,
    Field(max_length=4, examples=["0880"], json_schema_extra={"enum": list(MUNICIPALITIES)}),
    AfterValidator(_known_municipality),
]
Municipalities = Annotated[list[Municipality], Field(max_length=50, description="SCB codes; none means all")]
Topics = Annotated[
    list[Annotated[str, Field(max_length=50, json_schema_extra={"enum": list(TOPICS)}), AfterValidator(_known_topic)]],
    Field(max_length=50, description="topic ids; none means all"),
]
Often = Annotated[
    dict[Annotated[str, Field(max_length=50), AfterValidator(_topic_or_everything)], Frequency],
    Field(
        max_length=50,
        description="how often, by topic id or `everything`; what is not named comes as everything, and that at once",
        examples=[{"everything": "daily", "results": "weekly"}],
        json_schema_extra={"propertyNames": {"enum": [EVERYTHING_NAMED, *TOPICS]}},
    ),
]
Pause = Annotated[
    Instant,
    AfterValidator(_within_reason),
    Field(description="the first instant of mail again"),
    said("^2[01][0-9]{2}-"),
]
AddressText = Annotated[
    str,
    Field(max_length=MAX_LENGTH, examples=["anna.andersson@kalmar.example"], json_schema_extra=MAIL_ADDRESS),
    TRIMMED,
]

_NONE: dict[str, Any] = {"type": "null"}
_ONE: dict[str, Any] = {"type": "string", "format": "uuid"}


def _role(audience: Audience, needed: str | None, **fields: Any) -> dict[str, Any]:
    """What a role in `audience` looks like: the field that it needs, and what the others must be."""
    places = {name: _ONE if name == needed else _NONE for name in ("organisation_id", "group_id")}
    return {
        "properties": {"audience": {"const": str(audience)}, **places, **fields},
        "required": ["audience", needed] if needed else ["audience"],
    }


_NO_AREA: dict[str, Any] = {"municipalities": {"type": "array", "maxItems": 0}}
_NO_MANDATE: dict[str, Any] = {"mandate_from": _NONE, "mandate_until": _NONE}
ROLES: dict[str, Any] = {
    "anyOf": [
        _role(Audience.NEWSROOM, "organisation_id", **_NO_AREA, **_NO_MANDATE),
        _role(Audience.AGENCY_OFFICIAL, "organisation_id", **_NO_MANDATE),
        _role(Audience.POLITICIAN, "organisation_id"),
        _role(Audience.COLLABORATION_GROUP, "group_id", **_NO_AREA, **_NO_MANDATE),
        _role(Audience.PUBLIC, None, **_NO_AREA, **_NO_MANDATE),
    ]
}
"""Which fields go together; that what they name exists, and when a mandate ends, no schema can say."""


class RoleIn(RequestModel):
    """Why somebody is in an audience. Newsrooms, politicians and officials name an organisation, groups a group."""

    model_config = ConfigDict(json_schema_extra=ROLES)

    audience: Audience
    organisation_id: UUID | None = None
    group_id: UUID | None = None
    municipalities: Municipalities = Field(default_factory=list)
    mandate_from: Day | None = Field(default=None, description="first day, for politicians")
    mandate_until: Day | None = Field(default=None, description="last day, for politicians")


class SubscriberIn(RequestModel):
    """A new recipient: a person, or a newsroom's desk."""

    address: AddressText
    name: PersonName = ""
    locale: Locale = Locale.SV
    roles: list[RoleIn] = Field(default_factory=list, max_length=50)
    topics: Topics = Field(default_factory=list)
    municipalities: Municipalities = Field(default_factory=list)
    frequencies: Often = Field(default_factory=dict)
    paused_until: Pause | None = None


class SubscriberPatch(RequestModel):
    """What is left out stays as it is; lists are replaced whole."""

    address: AddressText | None = None
    name: PersonName | None = None
    locale: Locale | None = None
    roles: list[RoleIn] | None = Field(default=None, max_length=50)
    topics: Topics | None = None
    municipalities: Municipalities | None = None
    frequencies: Often | None = None
    left_audiences: list[Audience] | None = Field(default=None, max_length=5)
    paused_until: Pause | None = None
    unsubscribed: StrictBool | None = None


class RoleOut(BaseModel):
    audience: Audience
    organisation_id: UUID | None
    group_id: UUID | None
    name: str = Field(description="of the organisation or the group")
    municipalities: list[str]
    mandate_from: date | None
    mandate_until: date | None


class SubscriberOut(BaseModel):
    id: UUID
    address: str
    name: str
    locale: Locale
    state: SubscriberState
    roles: list[RoleOut]
    topics: list[str]
    municipalities: list[str]
    frequencies: dict[str, Frequency] = Field(description="by topic id or `everything`; empty is everything at once")
    left_audiences: list[Audience]
    paused_until: datetime | None
    version: int = Field(description="also the ETag")
    created_at: datetime


class OrganisationIn(RequestModel):
    kind: OrganisationKind
    name: Name
    municipalities: Municipalities = Field(default_factory=list)


class OrganisationOut(BaseModel):
    id: UUID
    kind: OrganisationKind
    name: str
    municipalities: list[str] = Field(description="what a newsroom covers; none means the whole county")
    created_at: datetime


class GroupIn(RequestModel):
    name: Name
    municipalities: Municipalities = Field(default_factory=list)


class GroupOut(BaseModel):
    id: UUID
    name: str
    municipalities: list[str]
    created_at: datetime


class PreviewIn(RequestModel):
    """An item's audience, before there is an item."""

    audiences: Annotated[list[Audience], Field(min_length=1, max_length=5)]
    municipalities: Municipalities = Field(default_factory=list)
    topics: Topics = Field(default_factory=list)
    kind: Kind | None = None


class ReasonCount(BaseModel):
    reason: ExclusionReason
    count: int


class AudiencePreview(BaseModel):
    audience: Audience
    planned: int = Field(description="would get it")
    excluded: int = Field(description="are in the audience but left out")
    exclusions: list[ReasonCount]


class Overlap(BaseModel):
    audiences: list[Audience] = Field(description="strongest first")
    count: int = Field(description="people who match in all of these; each counts under one")


class PreviewOut(BaseModel):
    planned: int
    excluded: int
    audiences: list[AudiencePreview]
    exclusions: list[ReasonCount]
    overlaps: list[Overlap]


class LineError(FieldError):
    """What is wrong in one line of an imported file. Line 1 holds the columns' names."""

    line: int
    column: str


class ImportReport(BaseModel):
    """What an import did, or, on a dry run, what it would do. With errors it did nothing."""

    dry_run: bool
    audience: Audience
    rows: int
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    errors: list[LineError] = []
    errors_left_out: int = Field(default=0, description="errors beyond those listed")


class ImportProblem(BaseModel):
    """The problem document (RFC 9457) of a file that was refused."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    instance: str
    errors: list[LineError]
    errors_left_out: int = 0


class DigestRunIn(RequestModel):
    """A digest run beside the regular ones, at once."""

    weekly: StrictBool = Field(default=False, description="also what waits for the week's digests")


class DigestRunOut(BaseModel):
    """How far a digest run has come."""

    id: UUID = Field(description="also the subject of its deliveries in the ledger")
    slot_at: datetime = Field(description="it takes what was published before this instant")
    weekly: bool
    state: FanoutState
    mails: int = Field(description="people who get a mail, so far")
    excluded: int = Field(description="people for whom something waited and who get nothing, so far")
    started_at: datetime
    completed_at: datetime | None


class DigestRuns(BaseModel):
    """Digest runs, the newest first."""

    data: list[DigestRunOut]


class SuppressionIn(RequestModel):
    """The office's own stop."""

    note: PersonName = Field(default="", description="why; it stands in the extract that the person may ask for")


class SuppressionOut(BaseModel):
    """What stops, or has stopped, mail to somebody beside their own choices."""

    id: UUID
    reason: SuppressionReason
    source: str = Field(description="by whose hand: bounce, complaint, office")
    note: str = Field(description="the server's enhanced status code (RFC 3463), or the office's words")
    suppressed_at: datetime
    lifted_at: datetime | None
    lifted_by: str = Field(description="by whose hand; empty while it stands")


class Suppressions(BaseModel):
    """All of one subscriber's, the newest first."""

    data: list[SuppressionOut]


class RegisteredSubscription(BaseModel):
    """One subscription and its legal basis."""

    audience: Audience
    place: str = Field(description="the organisation or the group")
    municipalities: list[str]
    mandate_from: date | None
    mandate_until: date | None
    left: bool
    basis: Basis
    basis_since: datetime | None
    basis_source: str = Field(description="by whose hand; empty where nothing is known")
    text_shown: str = Field(description="version and language of the text that was consented to")
    text: str


class RegisterEntry(BaseModel):
    """One person of the register."""

    id: UUID
    address: str
    name: str
    since: datetime
    unsubscribed_at: datetime | None
    suppressed_at: datetime | None
    subscriptions: list[RegisteredSubscription]


class HistoryEntry(BaseModel):
    """One change; `before` and `after` hold the fields that differ."""

    id: UUID
    at: datetime
    act: Act
    source: Source
    before: dict[str, Any]
    after: dict[str, Any]
    text_shown: str
