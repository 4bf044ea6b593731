"""The tables of the groups, beside `groups` itself and the members' roles."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from subscriptions.models import ADDRESS_LENGTH, NAME_LENGTH, Base


class GroupAct(StrEnum):
    """What happened to a group's membership."""

    INVITED = "invited"
    JOINED = "joined"
    REMOVED = "removed"
    RESTORED = "restored"


class GroupContact(Base):
    """Who may invite and remove. `generation` is in the links; another contact ends the old ones."""

    __tablename__ = "group_contacts"

    group_id: Mapped[UUID] = mapped_column(ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True)
    subscriber_id: Mapped[UUID] = mapped_column(ForeignKey("subscribers.id", ondelete="CASCADE"), index=True)
    generation: Mapped[int] = mapped_column(default=1)


class Invitation(Base):
    """Somebody is asked into a group. Once accepted, it names the member and holds no address any more."""

    __tablename__ = "invitations"
    __table_args__ = (UniqueConstraint("group_id", "address_key"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    group_id: Mapped[UUID] = mapped_column(ForeignKey("groups.id", ondelete="CASCADE"))
    address: Mapped[str | None] = mapped_column(String(ADDRESS_LENGTH))
    address_key: Mapped[str | None] = mapped_column(String(ADDRESS_LENGTH), index=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    locale: Mapped[str] = mapped_column(String(2))
    expires_at: Mapped[datetime] = mapped_column(index=True)
    subscriber_id: Mapped[UUID | None] = mapped_column(ForeignKey("subscribers.id", ondelete="CASCADE"), index=True)


class GroupChange(Base):
    """One change of a group's membership, which its undo link names. It ends with the person that it is about."""

    __tablename__ = "group_changes"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    group_id: Mapped[UUID] = mapped_column(ForeignKey("groups.id", ondelete="CASCADE"), index=True)
    act: Mapped[str] = mapped_column(String(20))
    subscriber_id: Mapped[UUID | None] = mapped_column(ForeignKey("subscribers.id", ondelete="CASCADE"), index=True)
    invitation_id: Mapped[UUID | None] = mapped_column(ForeignKey("invitations.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime] = mapped_column(index=True)
    undone_at: Mapped[datetime | None]
