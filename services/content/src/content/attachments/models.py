"""Where files lie: their bytes in parts, once however many items have them, and which items those are.

What is told of a file stands in the item's working copy and in each of its revisions. Nothing here is ever read along
with an item.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from content.models import Base


class StoredFile(Base):
    """A file. Its row is the lock of whoever begins or ceases to need it."""

    __tablename__ = "files"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    stored_at: Mapped[datetime]


class FilePart(Base):
    """Some of its bytes, counted from 0: a reader on a slow line holds one part in memory, not the file."""

    __tablename__ = "file_parts"

    sha256: Mapped[str] = mapped_column(ForeignKey("files.sha256"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)


class ItemFile(Base):
    """An item that has the file, in its working copy or in a revision."""

    __tablename__ = "item_files"

    item_id: Mapped[UUID] = mapped_column(ForeignKey("items.id"), primary_key=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("files.sha256"), primary_key=True, index=True)
