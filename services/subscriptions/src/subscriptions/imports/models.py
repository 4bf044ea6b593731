"""The tables of the imports."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import JSON

from subscriptions.models import Base

FILE_NAME_LENGTH = 100


class ImportState(StrEnum):
    """Where an import is. The first two and the fourth are on their way; the others have ended."""

    STORED = "stored"
    CHECKED = "checked"
    WRITING = "writing"
    DONE = "done"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Import(Base):
    """A list on its way in. `line` is the checkpoint: the last line of the file that has been written. `version` is of
    a roll's comparison. What `report` holds of people is forgotten at the end; counts and faults stay.
    """

    __tablename__ = "imports"
    __table_args__ = (Index("ix_imports_state", "state", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    audience: Mapped[str] = mapped_column(String(30))
    is_roll: Mapped[bool]
    is_agreed: Mapped[bool]
    file_name: Mapped[str] = mapped_column(String(FILE_NAME_LENGTH))
    state: Mapped[str] = mapped_column(String(20))
    rows: Mapped[int] = mapped_column(default=0)
    rows_done: Mapped[int] = mapped_column(default=0)
    line: Mapped[int] = mapped_column(default=0)
    version: Mapped[str] = mapped_column(String(40), default="")
    is_compared_again: Mapped[bool] = mapped_column(default=False)
    report: Mapped[dict[str, Any]] = mapped_column(JSON)
    failures: Mapped[int] = mapped_column(default=0)
    lease_id: Mapped[UUID | None]
    leased_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None] = mapped_column(index=True)


class ImportFile(Base):
    """The file, compressed. It goes in the transaction that ends the import."""

    __tablename__ = "import_files"

    import_id: Mapped[UUID] = mapped_column(ForeignKey("imports.id", ondelete="CASCADE"), primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)
