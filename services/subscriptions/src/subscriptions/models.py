"""The tables of `subscriptions`: who may be written to, in which roles, by what choices, and how far each fan-out is.

Nothing here is read through a relationship; the repository asks for what it needs. Uniqueness that a replay could hit
stands in the keys: an address, a role, a fan-out's item and its batches exist once.
"""

from collections.abc import Iterable
from datetime import date, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    or_,
    text,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import JSON, TypeDecorator

from shared.contracts.news import STRONGEST_FIRST, Audience
from shared.database import NAMING, Instant

ADDRESS_LENGTH = 320
NAME_LENGTH = 200
UNINDEXED = "ix_subscribers_unindexed"
UNLISTED = "noted_at IS NULL"


@lru_cache(maxsize=10_000)
def codes_of(text: str) -> frozenset[str]:
    """What a `CodeSet` keeps as this text; few sets are chosen by many."""
    return frozenset(code for code in text.split("|") if code)


@lru_cache(maxsize=10_000)
def text_of(codes: frozenset[str]) -> str:
    """The same the other way."""
    return "".join(f"|{code}" for code in sorted(codes)) + "|"


class CodeSet(TypeDecorator[frozenset[str]]):
    """A small set of codes in one text, `|0880|0881|`, so that both databases can test it without a join."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Iterable[str] | None, dialect: Dialect) -> str | None:
        if value is None or isinstance(value, str):
            return value
        return text_of(frozenset(value)) if value else ""

    def process_result_value(self, value: Any, dialect: Dialect) -> frozenset[str] | None:
        return None if value is None else codes_of(value)


def meets(column: Any, codes: Iterable[str]) -> ColumnElement[bool]:
    """Whether a `CodeSet` column and `codes` have something in common; an empty set on either side means all."""
    wanted = sorted(set(codes))
    if not wanted:
        return true()
    return or_(column == "", *(column.like(f"%|{code}|%") for code in wanted))


def rank_of(audience: Audience) -> int:
    """0 for the strongest audience; an index sorts by it."""
    return STRONGEST_FIRST.index(audience)


class OrganisationKind(StrEnum):
    """What an organisation is to us."""

    NEWSROOM = "newsroom"
    COUNCIL = "council"
    AGENCY = "agency"


class FanoutState(StrEnum):
    """Where a fan-out is: finding people, waiting for the broker's confirmations, told of."""

    PLANNING = "planning"
    PLANNED = "planned"
    COMPLETED = "completed"


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: Instant, frozenset[str]: CodeSet}


class Subscriber(Base):
    """A recipient: a person, or a newsroom's desk.

    `address_key` is the address as a mailbox is told apart (case folded, domain in ASCII). `generation` is in every
    link; raising it ends the old ones. `version` grows with every change: it is the ETag, and the version of the
    stops that are told. `indexed_version` is the version whose words the office's search knows (`office.indexing`).
    """

    __tablename__ = "subscribers"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    address: Mapped[str] = mapped_column(String(ADDRESS_LENGTH))
    address_key: Mapped[str] = mapped_column(String(ADDRESS_LENGTH), unique=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH), default="")
    locale: Mapped[str] = mapped_column(String(2))
    topics: Mapped[frozenset[str]] = mapped_column(default=frozenset())
    municipalities: Mapped[frozenset[str]] = mapped_column(default=frozenset())
    generation: Mapped[int] = mapped_column(default=1)
    version: Mapped[int] = mapped_column(default=1)
    indexed_version: Mapped[int] = mapped_column(default=0, server_default="0")
    paused_until: Mapped[datetime | None]
    unsubscribed_at: Mapped[datetime | None]
    suppressed_at: Mapped[datetime | None]
    link_mailed_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


for _name, _since in (
    ("ix_subscribers_suppressed", Subscriber.suppressed_at),
    ("ix_subscribers_unsubscribed", Subscriber.unsubscribed_at),
    ("ix_subscribers_paused", Subscriber.paused_until),
):
    Index(_name, Subscriber.id, postgresql_where=_since.is_not(None), sqlite_where=_since.is_not(None))


_unindexed = Subscriber.indexed_version < Subscriber.version
Index(UNINDEXED, Subscriber.id, postgresql_where=_unindexed, sqlite_where=_unindexed)


class Organisation(Base):
    """A newsroom, a council or board, or an agency. A newsroom covers `municipalities`; none means the whole county."""

    __tablename__ = "organisations"
    __table_args__ = (UniqueConstraint("kind", "name_key"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    name_key: Mapped[str] = mapped_column(String(NAME_LENGTH))
    municipalities: Mapped[frozenset[str]] = mapped_column(default=frozenset())
    created_at: Mapped[datetime]


class Group(Base):
    """A local collaboration group; it may span several municipalities."""

    __tablename__ = "groups"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    name_key: Mapped[str] = mapped_column(String(NAME_LENGTH), unique=True)
    municipalities: Mapped[frozenset[str]] = mapped_column(default=frozenset())
    created_at: Mapped[datetime]


class Role(Base):
    """Why somebody is in an audience. The id is derived from subscriber, audience and organisation or group, so that
    the same role given twice is one row. A mandate counts its first and its last day. `began_at` and `source` say when
    and by whose hand it came; the same role given again leaves them.
    """

    __tablename__ = "roles"
    __table_args__ = (Index("ix_roles_audience", "audience_rank", "subscriber_id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    subscriber_id: Mapped[UUID] = mapped_column(ForeignKey("subscribers.id", ondelete="CASCADE"), index=True)
    audience_rank: Mapped[int]
    organisation_id: Mapped[UUID | None] = mapped_column(ForeignKey("organisations.id"), index=True)
    group_id: Mapped[UUID | None] = mapped_column(ForeignKey("groups.id"), index=True)
    municipalities: Mapped[frozenset[str]] = mapped_column(default=frozenset())
    mandate_from: Mapped[date | None]
    mandate_until: Mapped[date | None]
    began_at: Mapped[datetime | None]
    source: Mapped[str] = mapped_column(String(20), default="", server_default="")


class Departure(Base):
    """Somebody left an audience of their own will. It outlives the role: an import brings nobody back."""

    __tablename__ = "departures"

    subscriber_id: Mapped[UUID] = mapped_column(ForeignKey("subscribers.id", ondelete="CASCADE"), primary_key=True)
    audience_rank: Mapped[int] = mapped_column(primary_key=True)
    left_at: Mapped[datetime]


class FrequencyRow(Base):
    """How often somebody gets what concerns a topic; the empty topic stands for everything that has no row."""

    __tablename__ = "frequencies"

    subscriber_id: Mapped[UUID] = mapped_column(ForeignKey("subscribers.id", ondelete="CASCADE"), primary_key=True)
    topic: Mapped[str] = mapped_column(String(50), primary_key=True)
    frequency: Mapped[str] = mapped_column(String(10))


class HistoryRow(Base):
    """One change to a subscription. It is written once: triggers refuse to update it, and to delete it while its
    subscriber exists. There is no foreign key, since it outlives the subscriber.
    """

    __tablename__ = "history"
    __table_args__ = (
        Index("ix_history_subscriber_id", "subscriber_id", "id"),
        Index("ix_history_act", "act", "at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    subscriber_id: Mapped[UUID]
    at: Mapped[datetime]
    act: Mapped[str] = mapped_column(String(20))
    source: Mapped[str] = mapped_column(String(20))
    before: Mapped[dict[str, Any]] = mapped_column(JSON)
    after: Mapped[dict[str, Any]] = mapped_column(JSON)
    undoes_id: Mapped[UUID | None] = mapped_column(unique=True)
    text_shown: Mapped[str] = mapped_column(String(20), default="")


class Erasure(Base):
    """Somebody was erased, whose id leads to nobody any more. Kept for ever: an old backup may still know them."""

    __tablename__ = "erasures"
    __table_args__ = (
        Index("ix_erasures_unlisted", "at", postgresql_where=text(UNLISTED), sqlite_where=text(UNLISTED)),
    )

    recipient_id: Mapped[UUID] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    noted_at: Mapped[datetime | None] = mapped_column(doc="when it went into the list of the erased")


class SignUp(Base):
    """Somebody asked for mail to this address, and nobody has confirmed it yet. The id becomes the subscriber's; where
    the address is somebody's by then, the row stays to name them, and holds no address any more.
    """

    __tablename__ = "sign_ups"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    address: Mapped[str | None] = mapped_column(String(ADDRESS_LENGTH))
    address_key: Mapped[str | None] = mapped_column(String(ADDRESS_LENGTH), unique=True)
    locale: Mapped[str] = mapped_column(String(2))
    topics: Mapped[frozenset[str]]
    municipalities: Mapped[frozenset[str]]
    frequency: Mapped[str] = mapped_column(String(10))
    asked_at: Mapped[datetime] = mapped_column(index=True)
    mailed_at: Mapped[datetime | None]
    subscriber_id: Mapped[UUID | None] = mapped_column(ForeignKey("subscribers.id", ondelete="CASCADE"), index=True)


class AddressChange(Base):
    """Somebody wants their mail at another address. Until it is confirmed there is no old address; for a week after
    it, the old one can take the change back. A person has one at a time.
    """

    __tablename__ = "address_changes"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    subscriber_id: Mapped[UUID] = mapped_column(ForeignKey("subscribers.id", ondelete="CASCADE"), unique=True)
    address: Mapped[str] = mapped_column(String(ADDRESS_LENGTH))
    address_key: Mapped[str] = mapped_column(String(ADDRESS_LENGTH))
    old_address: Mapped[str] = mapped_column(String(ADDRESS_LENGTH), default="")
    old_address_key: Mapped[str] = mapped_column(String(ADDRESS_LENGTH), default="")
    asked_at: Mapped[datetime]
    confirmed_at: Mapped[datetime | None]
    taken_back_at: Mapped[datetime | None]


class Tally(Base):
    """How often something was asked for in one hour, by or about one that the keyed hash `whom` does not tell."""

    __tablename__ = "tallies"

    counted: Mapped[str] = mapped_column(String(20), primary_key=True)
    whom: Mapped[str] = mapped_column(String(32), primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True, index=True)
    count: Mapped[int]


class Suppression(Base):
    """A stop that nobody chose, with its reason and by whose hand; one standing per reason. Lifted ones stay."""

    __tablename__ = "suppressions"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    subscriber_id: Mapped[UUID] = mapped_column(ForeignKey("subscribers.id", ondelete="CASCADE"), index=True)
    reason: Mapped[str] = mapped_column(String(20))
    source: Mapped[str] = mapped_column(String(20))
    note: Mapped[str] = mapped_column(String(200), default="")
    suppressed_at: Mapped[datetime]
    lifted_at: Mapped[datetime | None]
    lifted_by: Mapped[str] = mapped_column(String(20), default="")


_stands = Suppression.lifted_at.is_(None)
Index(
    "uq_suppressions_standing",
    Suppression.subscriber_id,
    Suppression.reason,
    unique=True,
    postgresql_where=_stands,
    sqlite_where=_stands,
)


Index(
    "ix_suppressions_standing",
    Suppression.reason,
    Suppression.id,
    postgresql_where=_stands,
    sqlite_where=_stands,
)


class SoftBounce(Base):
    """A delivery that a server put off until it gave up; counted for a while."""

    __tablename__ = "soft_bounces"

    delivery_id: Mapped[UUID] = mapped_column(primary_key=True)
    subscriber_id: Mapped[UUID] = mapped_column(ForeignKey("subscribers.id", ondelete="CASCADE"), index=True)
    bounced_at: Mapped[datetime]


class DigestEntry(Base):
    """An item that waits for somebody's digest. `published_at` is when its fan-out began; a digest run takes what was
    published before its slot.
    """

    __tablename__ = "digest_entries"

    subscriber_id: Mapped[UUID] = mapped_column(ForeignKey("subscribers.id", ondelete="CASCADE"), primary_key=True)
    item_id: Mapped[UUID] = mapped_column(primary_key=True)
    audience_rank: Mapped[int]
    published_at: Mapped[datetime]


class DigestRun(Base):
    """One gathering of what waits into one mail per person. The id is derived from the slot's day, so that a slot has
    one run. The checkpoint is the last subscriber planned; `mails` and `excluded` count what became of them.
    """

    __tablename__ = "digest_runs"
    __table_args__ = (Index("ix_digest_runs_state", "state", "slot_at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    slot_at: Mapped[datetime]
    weekly: Mapped[bool]
    state: Mapped[str] = mapped_column(String(20), default=FanoutState.PLANNING)
    last_subscriber_id: Mapped[UUID | None]
    mails: Mapped[int] = mapped_column(default=0)
    excluded: Mapped[int] = mapped_column(default=0)
    started_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(default=0)
    retry_at: Mapped[datetime | None]


class Item(Base):
    """The newest revision seen of an item, in whatever order the events came."""

    __tablename__ = "items"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    revision: Mapped[int]
    state: Mapped[str] = mapped_column(String(20))
    snapshot: Mapped[dict[str, Any]] = mapped_column(JSON)


class Fanout(Base):
    """How far one item has been carried out. The checkpoint is the audience at hand and the last subscriber planned in
    it. `started_at` becomes the mails' date. `failures` in a row put the next try off to `retry_at`.
    """

    __tablename__ = "fanouts"
    __table_args__ = (Index("ix_fanouts_waiting", "state", "audience_rank", "started_at"),)

    item_id: Mapped[UUID] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(20), default=FanoutState.PLANNING)
    audience_rank: Mapped[int] = mapped_column(default=0)
    last_subscriber_id: Mapped[UUID | None]
    cut_short: Mapped[bool] = mapped_column(default=False)
    correlation_id: Mapped[str] = mapped_column(String(128))
    traceparent: Mapped[str | None] = mapped_column(String(100))
    started_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(default=0)
    retry_at: Mapped[datetime | None]


class FanoutBatch(Base):
    """One `mail.requested` of a fan-out: its event's id, and how many it planned and left out."""

    __tablename__ = "fanout_batches"

    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    item_id: Mapped[UUID] = mapped_column(ForeignKey("fanouts.item_id", ondelete="CASCADE"), index=True)
    audience_rank: Mapped[int]
    planned: Mapped[int]
    excluded: Mapped[int]
