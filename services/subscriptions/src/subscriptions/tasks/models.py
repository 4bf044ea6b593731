"""The table of the tasks."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import JSON

from subscriptions.models import Base

REASON_LENGTH = 500


class Task(Base):
    """Something for the editor to settle. `topic` says what it is about: of one topic, one task is open at a time."""

    __tablename__ = "tasks"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(40))
    topic: Mapped[str] = mapped_column(String(200))
    organisation_id: Mapped[UUID | None] = mapped_column(ForeignKey("organisations.id", ondelete="SET NULL"))
    group_id: Mapped[UUID | None] = mapped_column(ForeignKey("groups.id", ondelete="SET NULL"))
    subscriber_id: Mapped[UUID | None] = mapped_column(ForeignKey("subscribers.id", ondelete="SET NULL"), index=True)
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    raised_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    closed_because: Mapped[str] = mapped_column(String(REASON_LENGTH), default="")


OPEN = Task.closed_at.is_(None)
Index("uq_tasks_open", Task.topic, unique=True, postgresql_where=OPEN, sqlite_where=OPEN)
Index("ix_tasks_kind", Task.kind, Task.id)
for _name, _columns in (("ix_tasks_open", (Task.id,)), ("ix_tasks_open_kind", (Task.kind, Task.id))):
    Index(_name, *_columns, postgresql_where=OPEN, sqlite_where=OPEN)
