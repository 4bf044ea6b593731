"""The weeding log: how much was ended or removed each day because its time was over; never whom.

It is written in the transaction that weeds, and stays: log lines rotate away, and a data-protection officer asks later.
"""

from collections.abc import Sequence
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import String, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from shared.database import upsert
from shared.web.dates import STOCKHOLM
from subscriptions.models import Base


class Weeded(StrEnum):
    """What had had its time."""

    SIGN_UPS = "sign_ups"
    CONSENT = "consent"
    PRESS_REGISTER = "press_register"
    PUBLIC_TASK = "public_task"
    MANDATES = "mandates"
    INVITATIONS = "invitations"
    IMPORTS = "imports"
    HISTORY = "history"


class Weeding(Base):
    """What was weeded of one kind on one Swedish day; `erased` are people of whom nothing was left then."""

    __tablename__ = "weedings"

    day: Mapped[date] = mapped_column(primary_key=True)
    what: Mapped[str] = mapped_column(String(20), primary_key=True)
    ended: Mapped[int]
    erased: Mapped[int]


async def note(session: AsyncSession, what: Weeded, at: datetime, ended: int, erased: int = 0) -> None:
    """Add to the day's count; nothing weeded is no row."""
    if not ended:
        return
    row = {"day": at.astimezone(STOCKHOLM).date(), "what": str(what), "ended": ended, "erased": erased}
    table: Any = Weeding.__table__
    insert = upsert(session, table).values(row)
    more = {name: table.c[name] + insert.excluded[name] for name in ("ended", "erased")}
    await session.execute(insert.on_conflict_do_update(index_elements=["day", "what"], set_=more))


async def newest(session: AsyncSession, *, limit: int) -> Sequence[Weeding]:
    """The last of them, the newest first."""
    return (await session.scalars(select(Weeding).order_by(Weeding.day.desc(), Weeding.what).limit(limit))).all()
