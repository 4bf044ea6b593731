"""The words of the endpoints' API: what callers send, and what they get."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer

from distributor.schemas import AttemptView
from distributor.webhooks import own_headers
from distributor.webhooks.client import Why
from distributor.webhooks.models import Algorithm, DisabledReason, EndpointState, Told
from distributor.webhooks.signing import SECRET_PATTERN
from distributor.webhooks.urls import URL_PATTERN
from shared.complaints import BLANK, CONTROL_CHARACTER, UNKNOWN_MUNICIPALITY, UNKNOWN_TOPIC, refusal
from shared.contracts.delivery import DeliveryState
from shared.contracts.mail import Form
from shared.contracts.news import Audience
from shared.contracts.vocabulary import MUNICIPALITIES, TOPICS
from shared.http import RequestModel
from shared.plain_text import MAIL_ADDRESS, SEEN_LINE, TRIMMED, is_line, is_seen, said, whole
from shared.written import Instant, WholeNumber

MAX_OVERLAP_H = 168
"""A week is enough for any receiver to take up a new secret."""


def _one_line(text: str) -> str:
    if not is_line(text):
        raise refusal("invalid_text", *CONTROL_CHARACTER)
    return text


def _seen(text: str) -> str:
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


def _header_name(name: str) -> str:
    if fault := own_headers.name_fault(name):
        raise refusal(*fault)
    return name


def _header_value(value: str) -> str:
    if fault := own_headers.value_fault(value):
        raise refusal(*fault)
    return value


def _secret(schema: dict[str, Any]) -> None:
    """The empty text stands for "left out"; it is none of our callers' business as a default."""
    schema.pop("default", None)
    schema["pattern"] = whole(f"({SECRET_PATTERN})?")


def _without_defaults(schema: dict[str, Any]) -> None:
    """In a PATCH a field that is left out stays as it is; the defaults in the code are never used."""
    for field in schema["properties"].values():
        field.pop("default", None)


Name = Annotated[
    str,
    Field(min_length=1, max_length=200, examples=["Kalmar kommuns intranät"]),
    said(SEEN_LINE),
    TRIMMED,
    AfterValidator(_one_line),
    AfterValidator(_seen),
]
UrlText = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2000,
        description="https; http and private networks only where whoever runs this installation allows it",
        examples=["https://intranat.kalmar.example/budkavle"],
        json_schema_extra={"pattern": URL_PATTERN},
    ),
    TRIMMED,
]
EmailText = Annotated[
    str,
    Field(min_length=3, max_length=254, examples=["webbredaktionen@kalmar.example"], json_schema_extra=MAIL_ADDRESS),
    TRIMMED,
]
SecretText = Annotated[
    str, Field(max_length=100, description="`whsec_` and base64 of 24 to 64 bytes; ours if left out"), TRIMMED
]
Headers = Annotated[
    dict[Annotated[str, AfterValidator(_header_name)], Annotated[str, AfterValidator(_header_value)]],
    Field(
        max_length=own_headers.MAX_HEADERS,
        description="sent to this endpoint with everything, since its gateway asks for them; shown by name alone",
        examples=[{"Ocp-Apim-Subscription-Key": "0123456789abcdef0123456789abcdef"}],
        json_schema_extra=own_headers.SCHEMA,
    ),
]
Sorted = PlainSerializer(sorted, return_type=list[str])


def _once_each(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))


Audiences = Annotated[tuple[Audience, ...], Field(min_length=1, max_length=5), AfterValidator(_once_each)]
Municipalities = Annotated[
    tuple[
        Annotated[str, AfterValidator(_known_municipality), Field(json_schema_extra={"enum": list(MUNICIPALITIES)})],
        ...,
    ],
    Field(max_length=50, description="SCB codes; none means all"),
    AfterValidator(_once_each),
]
Topics = Annotated[
    tuple[Annotated[str, AfterValidator(_known_topic), Field(json_schema_extra={"enum": list(TOPICS)})], ...],
    Field(max_length=50, description="topic ids; none means all"),
    AfterValidator(_once_each),
]


class EndpointIn(RequestModel):
    """A new endpoint."""

    name: Name
    organisation: Name = Field(description="the agency whose intranet it is")
    url: UrlText
    contact_email: EmailText = Field(description="the person there who can mend it")
    audiences: Audiences = (Audience.AGENCY_OFFICIAL,)
    municipalities: Municipalities = ()
    topics: Topics = ()
    headers: Headers = Field(default_factory=dict)
    secret: SecretText = Field(default="", json_schema_extra=_secret)


class EndpointChange(RequestModel):
    """What is to change; what is left out stays."""

    model_config = ConfigDict(json_schema_extra=_without_defaults)

    name: Name = ""
    organisation: Name = ""
    url: UrlText = ""
    contact_email: EmailText = ""
    audiences: Audiences = ()
    municipalities: Municipalities = ()
    topics: Topics = ()
    headers: Headers = Field(default_factory=dict)
    state: EndpointState = EndpointState.ENABLED


OWN_ED25519_KEY: dict[str, Any] = {
    "properties": {"algorithm": {"const": str(Algorithm.ED25519)}, "secret": {"minLength": 1}},
    "required": ["algorithm", "secret"],
}
"""In a schema: what a new secret may not be. An Ed25519 key is always ours."""


class SecretIn(RequestModel):
    """A new secret. Others of its kind sign for `overlap_h` hours more, so that the receiver can change in peace."""

    model_config = ConfigDict(json_schema_extra={"not": OWN_ED25519_KEY})

    algorithm: Algorithm = Field(
        default=Algorithm.HMAC, description="`ed25519` signs beside the HMAC secret; its key is always ours"
    )
    secret: SecretText = Field(default="", json_schema_extra=_secret)
    overlap_h: WholeNumber = Field(default=24, ge=0, le=MAX_OVERLAP_H)


class SecretView(BaseModel):
    """A secret that signs, without the secret itself."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    algorithm: Algorithm
    public_key: str | None = Field(description="`whpk_…`, verifies the `v1a` signatures of an Ed25519 key")
    created_at: AwareDatetime
    retires_at: AwareDatetime | None


class HealthView(BaseModel):
    """How an endpoint has answered of late."""

    model_config = ConfigDict(from_attributes=True)

    works: bool | None = Field(description="whether the last attempt was answered 2xx; null before the first")
    failures: int = Field(description="attempts in a row that failed, over all deliveries")
    failing_since: AwareDatetime | None
    last_success_at: AwareDatetime | None = Field(description="to ten seconds")
    last_attempt_at: AwareDatetime | None = Field(description="to ten seconds while all goes well")
    last_status: int | None = Field(description="HTTP status of the last attempt, if there was an answer")
    told: Told = Field(description="what we mailed to the contact last")
    contact_bounced_at: AwareDatetime | None = Field(
        description="since when we know that our mails do not reach the contact; null again with a new address"
    )


class EndpointView(BaseModel):
    """An endpoint as it is."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    organisation: str
    url: str
    contact_email: str
    audiences: Annotated[frozenset[Audience], Sorted]
    municipalities: Annotated[frozenset[str], Sorted]
    topics: Annotated[frozenset[str], Sorted]
    header_names: list[str] = Field(description="of the headers of its own; their values are shown to nobody")
    state: EndpointState
    disabled_reason: DisabledReason | None
    health: HealthView
    version: int
    created_at: AwareDatetime
    updated_at: AwareDatetime


class EndpointDetail(EndpointView):
    """An endpoint with what is known of the secrets that sign for it now."""

    secrets: list[SecretView]


class EndpointCreated(EndpointDetail):
    """A new endpoint. `secret` is shown here and never again."""

    secret: str | None = Field(default=None, description="null when a replay comes after the secret was rotated")


class SecretCreated(SecretView):
    """A new secret, shown here and never again."""

    secret: str | None = Field(
        default=None, description="null for an Ed25519 key, and when a replay comes after the secret was rotated"
    )


class TrialResult(BaseModel):
    """What became of a test webhook."""

    outcome: DeliveryState
    status: int | None = Field(description="the HTTP status, if there was an answer")
    failure: Why | None = Field(description="why there was no answer")
    reply: str = Field(description="the first 4 kB of the answer, or what went wrong, in words")
    duration_ms: int


class EndpointAttempt(AttemptView):
    """One try to reach the endpoint, with the first 4 kB of its answer."""

    delivery_id: UUID
    item_id: UUID
    revision: int
    form: Form


class RecoverIn(RequestModel):
    """Since when."""

    since: Instant = Field(description="what failed, was put off, or was published in vain after it")


class Recovered(BaseModel):
    """What `recover` did."""

    replanned: int = Field(description="deliveries that go out now; none when asked again at once")
