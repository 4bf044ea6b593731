"""The tables of who is signed in, and of the words that people are found by."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from subscriptions.models import Base

HANDLE_LENGTH = 16


class OfficeSession(Base):
    """Somebody came in with a key. The token is in their cookie alone; here is its hash, so that whoever reads the
    table cannot go in. `key_mark` tells that the settings' own key is still the one that was used; it is empty for a
    key that has a row, which is asked instead.
    """

    __tablename__ = "office_sessions"

    token_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(16))
    key_mark: Mapped[str] = mapped_column(String(32), default="")
    opened_at: Mapped[datetime]
    seen_at: Mapped[datetime]

    @property
    def handle(self) -> str:
        """Names it in addresses and logs: a part of the hash, which opens nothing and is told apart among a few."""
        return self.token_sha256[:HANDLE_LENGTH]


WORD_LENGTH = 64
Word = String(WORD_LENGTH).with_variant(String(WORD_LENGTH, collation="C"), "postgresql")
"""By code point on both databases, so that what begins alike stands together."""


class SearchWord(Base):
    """A word of somebody's name or address."""

    __tablename__ = "search_words"
    __table_args__ = (Index("ix_search_words_word", "word", "subscriber_id"),)

    subscriber_id: Mapped[UUID] = mapped_column(ForeignKey("subscribers.id", ondelete="CASCADE"), primary_key=True)
    word: Mapped[str] = mapped_column(Word, primary_key=True)
