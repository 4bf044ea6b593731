"""The table of who is signed in."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from subscriptions.models import Base


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
