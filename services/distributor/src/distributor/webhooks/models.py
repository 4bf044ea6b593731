"""The tables of endpoints: where intranets take their news, and the secrets that prove it is us.

Filters are small sets kept in one text each, so that both databases match without a join. A secret is kept sealed,
since it must be able to sign; its SHA-256 beside it makes one that is used twice impossible (it has 192 random bits
or more, so there is nothing to guess from the hash).
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Dialect, ForeignKey, String, Text, or_, true
from sqlalchemy.orm import InstrumentedAttribute, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from distributor.models import Base


class EndpointState(StrEnum):
    """Whether an endpoint is sent to."""

    ENABLED = "enabled"
    DISABLED = "disabled"


class DisabledReason(StrEnum):
    """Who disabled an endpoint: a person, its own answer 410, or five days of nothing but failures."""

    BY_HAND = "by_hand"
    GONE = "gone"
    FAILING = "failing"


class Told(StrEnum):
    """What the contact was told last by mail; nothing while all is well."""

    NOTHING = ""
    FAILING = "failing"
    DISABLED = "disabled"


class Algorithm(StrEnum):
    """How a secret signs: `v1` (HMAC-SHA256, both sides hold it) or `v1a` (Ed25519, we alone hold it)."""

    HMAC = "hmac"
    ED25519 = "ed25519"


class CodeSet(TypeDecorator[frozenset[str]]):
    """A set of codes as `|0880|0881|`; the empty set is the empty text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Iterable[str] | str | None, dialect: Dialect) -> str | None:
        if value is None or isinstance(value, str):
            return value
        return "".join(f"|{code}" for code in sorted(set(value))) + "|" if value else ""

    def process_result_value(self, value: Any, dialect: Dialect) -> frozenset[str] | None:
        return None if value is None else frozenset(code for code in value.split("|") if code)


def meets(column: InstrumentedAttribute[frozenset[str]], codes: Iterable[str]) -> ColumnElement[bool]:
    """Whether a `CodeSet` and `codes` have something in common; an empty set on either side means all."""
    wanted = sorted(set(codes))
    if not wanted:
        return true()
    return or_(column == "", *(column.contains(f"|{code}|", autoescape=True) for code in wanted))


class Endpoint(Base):
    """One agency's intranet. `contact_email` is the person there who can mend it."""

    __tablename__ = "endpoints"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    organisation: Mapped[str] = mapped_column(String(200))
    url: Mapped[str] = mapped_column(Text)
    contact_email: Mapped[str] = mapped_column(String(320))
    audiences: Mapped[frozenset[str]] = mapped_column(CodeSet)
    municipalities: Mapped[frozenset[str]] = mapped_column(CodeSet)
    topics: Mapped[frozenset[str]] = mapped_column(CodeSet)
    headers: Mapped[dict[str, Any]] = mapped_column(default=dict, doc="of its own: names, and values that are sealed")
    state: Mapped[str] = mapped_column(String(10))
    disabled_reason: Mapped[str | None] = mapped_column(String(20))
    version: Mapped[int] = mapped_column(default=1)
    generation: Mapped[int] = mapped_column(default=1, doc="of the links to the endpoint's page: older ones are dead")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    @property
    def header_names(self) -> list[str]:
        """All of its own headers that is for anybody to see."""
        return list(self.headers)


class EndpointHealth(Base):
    """How an endpoint has answered of late. Beside the endpoint, so that outcomes change neither it nor its version."""

    __tablename__ = "endpoint_health"

    endpoint_id: Mapped[UUID] = mapped_column(ForeignKey("endpoints.id", ondelete="CASCADE"), primary_key=True)
    failures: Mapped[int] = mapped_column(default=0, doc="in a row, over all deliveries")
    failing_since: Mapped[datetime | None] = mapped_column(doc="the first of them")
    works: Mapped[bool | None] = mapped_column(doc="the last attempt was answered 2xx; unknown before the first")
    last_success_at: Mapped[datetime | None]
    last_attempt_at: Mapped[datetime | None]
    last_status: Mapped[int | None] = mapped_column(doc="HTTP status of the last attempt, if there was an answer")
    last_phase: Mapped[str] = mapped_column(String(20), default="", doc="how far the last attempt came")
    told: Mapped[str] = mapped_column(String(10), default="")
    told_by: Mapped[UUID | None] = mapped_column(doc="the mail that told it: its subject in the ledger")
    contact_bounced_at: Mapped[datetime | None] = mapped_column(doc="that mail did not reach the contact; noticed then")


class EndpointSecret(Base):
    """A signing secret. During a rotation there are several of a kind, and each signs until it `retires_at`."""

    __tablename__ = "endpoint_secrets"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    endpoint_id: Mapped[UUID] = mapped_column(ForeignKey("endpoints.id", ondelete="CASCADE"), index=True)
    sealed: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    algorithm: Mapped[str] = mapped_column(String(10), default=Algorithm.HMAC)
    public_key: Mapped[str | None] = mapped_column(Text, doc="of an Ed25519 key: `whpk_…`, for anybody to see")
    created_at: Mapped[datetime]
    retires_at: Mapped[datetime | None]
