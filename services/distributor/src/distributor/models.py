"""The distributor's tables: what is to go out, what went out, and who must not get anything more.

`deliveries` is the ledger. A row is unique on (subject, revision, channel, recipient): whatever is accepted twice, is
there once. A row is due when `next_attempt_at` is set and has come; a row in somebody's hands is `leased`, and
`begun_at` says that its bytes may have left: only such a row is in doubt when its sender dies.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, BigInteger, Index, Integer, MetaData, String, Text, UniqueConstraint, Uuid
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from distributor.states import APART
from shared.database import NAMING, Instant


class Base(DeclarativeBase):
    """All tables of the distributor."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {datetime: Instant, UUID: Uuid, dict[str, Any]: JSON}  # noqa: RUF012 - SQLAlchemy's own form


class Item(Base):
    """The newest that is known of an item; nothing older is begun, whatever order its events came in."""

    __tablename__ = "items"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    newest_revision: Mapped[int]
    withdrawn: Mapped[bool] = mapped_column(default=False)
    follow_ups_due_at: Mapped[datetime | None] = mapped_column(index=True)
    followed_to: Mapped[str] = mapped_column(String(90), default="", doc="how far the follow-up worker has come")
    progress_sequence: Mapped[int] = mapped_column(default=0)
    progress_digest: Mapped[str] = mapped_column(String(64), default="")


class SubjectContent(Base):
    """What a subject's revision says, kept once for all its deliveries."""

    __tablename__ = "contents"

    subject_id: Mapped[UUID] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True)
    subject_kind: Mapped[str] = mapped_column(String(20))
    item: Mapped[dict[str, Any] | None]
    request: Mapped[dict[str, Any] | None]
    note: Mapped[str] = mapped_column(Text, default="")
    heard: Mapped[bool] = mapped_column(default=False, doc="the news event itself has told of it, not only a batch")
    correlation_id: Mapped[str] = mapped_column(String(128), default="")
    traceparent: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime]
    forgotten_at: Mapped[datetime | None] = mapped_column(doc="since then nothing personal is left in its deliveries")
    weeded_at: Mapped[datetime | None] = mapped_column(doc="since then its deliveries are deleted")
    weeding_place: Mapped[str] = mapped_column(String(60), default="", doc="how far the retention job has come")


_unforgotten = SubjectContent.forgotten_at.is_(None)
Index(
    "ix_contents_unforgotten",
    SubjectContent.created_at,
    postgresql_where=_unforgotten,
    sqlite_where=_unforgotten,
)
_unweeded = SubjectContent.weeded_at.is_(None)
Index("ix_contents_unweeded", SubjectContent.created_at, postgresql_where=_unweeded, sqlite_where=_unweeded)


class DigestItemRow(Base):
    """What digests say of one revision of an item."""

    __tablename__ = "digest_items"

    item_id: Mapped[UUID] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True)
    told: Mapped[dict[str, Any]]


class Edition(Base):
    """What some recipients of a digest run get: the id is derived from the run and the list of items."""

    __tablename__ = "editions"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    run_id: Mapped[UUID]
    planned_at: Mapped[datetime]


class EditionItem(Base):
    """One item revision of an edition, and the audience that its readers get it as."""

    __tablename__ = "edition_items"

    edition_id: Mapped[UUID] = mapped_column(primary_key=True)
    item_id: Mapped[UUID] = mapped_column(primary_key=True, index=True)
    revision: Mapped[int]
    audience: Mapped[str] = mapped_column(String(30))


class Delivery(Base):
    """One subject revision, one recipient, one channel. A digest's row names the edition that it carries.

    The personal columns (`address`, `reason` and the links) are dropped by erasure and by the retention job; the rest
    stays as proof.
    """

    __tablename__ = "deliveries"
    # In this order, all of a recipient's rows of a subject lie side by side.
    __table_args__ = (UniqueConstraint("subject_id", "channel", "recipient_id", "revision"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    subject_kind: Mapped[str] = mapped_column(String(20))
    subject_id: Mapped[UUID]
    revision: Mapped[int]
    edition_id: Mapped[UUID | None]
    channel: Mapped[str] = mapped_column(String(10))
    recipient_id: Mapped[UUID]
    audience: Mapped[str | None] = mapped_column(String(30))
    form: Mapped[str] = mapped_column(String(20))
    lane: Mapped[int] = mapped_column(Integer, doc="rank of the lane: 0 goes first")
    locale: Mapped[str] = mapped_column(String(2))
    address: Mapped[str | None] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    preferences_url: Mapped[str | None] = mapped_column(Text)
    unsubscribe_url: Mapped[str | None] = mapped_column(Text)
    one_click_url: Mapped[str | None] = mapped_column(Text)
    thread_of: Mapped[str] = mapped_column(
        String(100), default="", doc="earlier revisions or digest runs, comma between"
    )
    planned_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(String(12))
    ended_reason: Mapped[str] = mapped_column(String(30), default="")
    next_attempt_at: Mapped[datetime | None]
    leased_from: Mapped[str] = mapped_column(String(12), default="", doc="the state that a lease returns to")
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    begun_at: Mapped[datetime | None]
    tries: Mapped[int] = mapped_column(default=0, doc="attempt rows written")
    attempts: Mapped[int] = mapped_column(default=0, doc="tries that count on the retry schedule")
    repeats: Mapped[int] = mapped_column(default=0, doc="tries made in doubt")
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]


_due = Delivery.next_attempt_at.is_not(None)
Index(
    "ix_deliveries_due",
    Delivery.channel,
    Delivery.lane,
    Delivery.next_attempt_at,
    postgresql_where=_due,
    sqlite_where=_due,
)
_carrying = Delivery.edition_id.is_not(None)
Index("ix_deliveries_edition", Delivery.edition_id, Delivery.id, postgresql_where=_carrying, sqlite_where=_carrying)
_leased = Delivery.lease_owner.is_not(None)
Index("ix_deliveries_leased", Delivery.lease_owner, postgresql_where=_leased, sqlite_where=_leased)
Index("ix_deliveries_recipient", Delivery.recipient_id, Delivery.id)
_apart = Delivery.state.in_(APART)
Index("ix_deliveries_apart", Delivery.state, Delivery.id, postgresql_where=_apart, sqlite_where=_apart)
Index(
    "ix_deliveries_apart_of_subject",
    Delivery.subject_id,
    Delivery.state,
    Delivery.id,
    postgresql_where=_apart,
    sqlite_where=_apart,
)


class Attempt(Base):
    """One try: what we did, and the receiver's own words with its queue id. That is the proof."""

    __tablename__ = "delivery_attempts"

    delivery_id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(12))
    code: Mapped[int | None]
    enhanced: Mapped[str] = mapped_column(String(16), default="")
    reply: Mapped[str] = mapped_column(Text, default="")
    phase: Mapped[str] = mapped_column(String(20), default="")
    fault: Mapped[str] = mapped_column(String(12), default="")
    duration_ms: Mapped[int] = mapped_column(default=0)
    ended_at: Mapped[datetime]


class Arrival(Base):
    """A delivery that came to the canary: seen there, whatever its receiver's server had said before or says later."""

    __tablename__ = "arrivals"

    delivery_id: Mapped[UUID] = mapped_column(primary_key=True)
    arrived_at: Mapped[datetime]


class LateArrival(Base):
    """An older delivery that was on its way out when the follow-up worker passed it: to be looked at again."""

    __tablename__ = "late_arrivals"

    item_id: Mapped[UUID] = mapped_column(primary_key=True)
    delivery_id: Mapped[UUID] = mapped_column(primary_key=True)


class Tally(Base):
    """How many of an item's or an edition's deliveries, or of an item's exclusions, stand alike; see `tallies`."""

    __tablename__ = "tallies"

    subject_id: Mapped[UUID] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True)
    channel: Mapped[str] = mapped_column(String(10), primary_key=True)
    audience: Mapped[str] = mapped_column(String(30), primary_key=True)
    form: Mapped[str] = mapped_column(String(20), primary_key=True)
    state: Mapped[str] = mapped_column(String(12), primary_key=True)
    mark: Mapped[str] = mapped_column(String(30), primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
    weeded: Mapped[int] = mapped_column(BigInteger, doc="of these, how many have no row any more")


class TallyChange(Base):
    """What a transaction adds to a tally, or takes from it."""

    __tablename__ = "tally_changes"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    subject_id: Mapped[UUID] = mapped_column(index=True)
    revision: Mapped[int]
    channel: Mapped[str] = mapped_column(String(10))
    audience: Mapped[str] = mapped_column(String(30))
    form: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(12))
    mark: Mapped[str] = mapped_column(String(30))
    count: Mapped[int]
    weeded: Mapped[int]


class ExclusionRow(Base):
    """Somebody in an item's audience who was left out, and why; never an address."""

    __tablename__ = "exclusions"

    item_id: Mapped[UUID] = mapped_column(primary_key=True)
    recipient_id: Mapped[UUID] = mapped_column(primary_key=True, index=True)
    audience: Mapped[str] = mapped_column(String(30))
    reason: Mapped[str] = mapped_column(String(30))
    detail: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime]


class RecipientStop(Base):
    """The newest word on whether a recipient may be sent to; it may come before the batch that it concerns."""

    __tablename__ = "recipient_stops"

    recipient_id: Mapped[UUID] = mapped_column(primary_key=True)
    audience: Mapped[str] = mapped_column(String(30), primary_key=True, doc="empty: everything")
    version: Mapped[int]
    stopped: Mapped[bool]
    until: Mapped[datetime | None]
    erased: Mapped[bool] = mapped_column(default=False)
    changed_at: Mapped[datetime] = mapped_column(index=True)
    look_again_at: Mapped[datetime | None] = mapped_column(
        index=True, doc="when an erasure is done once more, for what was being written at its moment"
    )


class SenderLease(Base):
    """A sender process that lives: what it has leased is its own until `held_until`."""

    __tablename__ = "sender_leases"

    owner: Mapped[str] = mapped_column(String(64), primary_key=True)
    held_until: Mapped[datetime]


class LedgerHome(Base):
    """Where this ledger was last seen, so that one that was put back from a backup is known; one row."""

    __tablename__ = "ledger_home"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    place: Mapped[str] = mapped_column(String(100))
    seen_at: Mapped[datetime]
    restored_at: Mapped[datetime | None] = mapped_column(doc="when it was found elsewhere; senders wait for a word")
    held_before: Mapped[datetime | None] = mapped_column(doc="what was planned before is held when it comes again")
