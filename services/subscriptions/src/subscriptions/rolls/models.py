"""The tables of the rolls. Who sits in a council is in `roles`; what outlives its members is here."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from subscriptions.models import Base


class Council(Base):
    """There is this council or board in this area: known from the first roll on, also when its members are weeded.

    The id is derived from organisation and area. Whoever applies a roll locks the row.
    """

    __tablename__ = "councils"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    organisation_id: Mapped[UUID] = mapped_column(ForeignKey("organisations.id", ondelete="CASCADE"), index=True)
    municipalities: Mapped[frozenset[str]] = mapped_column(default=frozenset())
    imported_at: Mapped[datetime]
