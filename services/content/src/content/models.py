"""Content's tables: items with their working copy, their revisions, and how far each has come.

`items` holds what is edited; `item_revisions` what was made public, written once and never changed. `version` grows
with every change of an item and is its ETag.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, ForeignKey, Index, MetaData, String, Text, Uuid
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.database import NAMING, Instant

Json = dict[str, Any]
JsonList = list[dict[str, Any]]


class Base(DeclarativeBase):
    """Base of content's tables."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it so
        datetime: Instant,
        UUID: Uuid,
        Json: JSON,
        JsonList: JSON,
    }


class Schedule(StrEnum):
    """Where a draft's publication at its time stands: it is still to come, or was missed."""

    WAITING = "waiting"
    MISSED = "missed"


class Item(Base):
    """What is published. `revision` is 0 until then; `published_at` is when it first was.

    A draft with `publish_at` is scheduled, by whoever changed it last, in a call with this correlation id and
    traceparent. `missed_at` is the `publish_at` that passed in vain.
    """

    __tablename__ = "items"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(20))
    revision: Mapped[int]
    version: Mapped[int]
    slug: Mapped[str | None] = mapped_column(String(120), unique=True)
    working_copy: Mapped[Json]
    created_by: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    changed_by: Mapped[str] = mapped_column(String(16))
    changed_at: Mapped[datetime]
    published_at: Mapped[datetime | None]
    revised_at: Mapped[datetime | None]
    publish_at: Mapped[datetime | None]
    missed_at: Mapped[datetime | None]
    correlation_id: Mapped[str | None] = mapped_column(String(128))
    traceparent: Mapped[str | None] = mapped_column(String(55))

    __table_args__ = (Index("ix_items_published", "published_at", "id"),)


IS_SCHEDULED = Item.publish_at.is_not(None)
Index("ix_items_publish_at", Item.publish_at, postgresql_where=IS_SCHEDULED, sqlite_where=IS_SCHEDULED)


class ItemRevision(Base):
    """One public revision, whole: what it said, who made it public, when, and why it replaced the one before."""

    __tablename__ = "item_revisions"

    item_id: Mapped[UUID] = mapped_column(ForeignKey("items.id"), primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(20))
    fields: Mapped[Json]
    body_html: Mapped[str] = mapped_column(Text)
    body_text: Mapped[str] = mapped_column(Text)
    popular_version_html: Mapped[str] = mapped_column(Text)
    popular_version_text: Mapped[str] = mapped_column(Text)
    note: Mapped[str] = mapped_column(Text)
    made_by: Mapped[str] = mapped_column(String(16))
    made_at: Mapped[datetime]


class ReachSnapshot(Base):
    """The latest counts that the distributor told of an item. No foreign key: counts may outlive a restored item."""

    __tablename__ = "reach_snapshots"

    item_id: Mapped[UUID] = mapped_column(primary_key=True)
    sequence: Mapped[int]
    counted_at: Mapped[datetime]
    deliveries: Mapped[JsonList]
    exclusions: Mapped[JsonList]


class FanoutTotals(Base):
    """What an item's fan-out found in each audience, once it was complete."""

    __tablename__ = "fanout_totals"

    item_id: Mapped[UUID] = mapped_column(primary_key=True)
    revision: Mapped[int]
    totals: Mapped[JsonList]
    cut_short: Mapped[bool]
    received_at: Mapped[datetime]
