"""The table of the desks."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from subscriptions.models import Base


class Step(StrEnum):
    """What a desk waits for: the next question, the reminder, the task, or an address that the editor names."""

    ASK = "ask"
    REMIND = "remind"
    GIVE_UP = "give_up"
    ADDRESS = "address"


class Desk(Base):
    """A newsroom's desk: whose address it is, and the question whether it is still the right one.

    At `due_at` comes what `step` says. The desk outlives its subscriber: whoever is erased takes no desk along.
    `generation` is in the question's link; another address ends the old links.
    """

    __tablename__ = "desks"

    organisation_id: Mapped[UUID] = mapped_column(ForeignKey("organisations.id", ondelete="CASCADE"), primary_key=True)
    subscriber_id: Mapped[UUID | None] = mapped_column(ForeignKey("subscribers.id", ondelete="SET NULL"), index=True)
    generation: Mapped[int] = mapped_column(default=1)
    step: Mapped[str] = mapped_column(String(20))
    due_at: Mapped[datetime] = mapped_column(index=True)
    asked_at: Mapped[datetime | None]
    answered_at: Mapped[datetime | None]
