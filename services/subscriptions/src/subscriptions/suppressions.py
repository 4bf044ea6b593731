"""Suppressions: stops that nobody chose on the preference page, each with its reason, its source and a way back.

- A hard bounce: the receiver's server says that there is no such mailbox.
- Soft bounces on `DAYS` different days within `WINDOW`: a mailbox that is full for weeks is nobody's any more. A day
  counts once, so that a server that is away for an afternoon harms nobody.
- A complaint: the reader has called a mail spam. It ends the mails as an unsubscription does.
- The office's own stop.

What stands, stands once; what has been lifted stays as a row, with the time and by whose hand. `suppressed_at` of the
subscriber says whether anything stands (a complaint is in `unsubscribed_at`): fan-outs and digest runs ask it, and the
distributor hears of it by `recipient.stopped`. The reader lifts what their mailbox caused, on the preference page, by
confirming a sign-up or by a new address; the office lifts all but a complaint.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import delete, exists, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database import insert_ignoring
from shared.ids import new_id
from shared.web.dates import STOCKHOLM
from subscriptions.history import Source
from subscriptions.models import SoftBounce, Subscriber, Suppression

DAYS = 5
WINDOW = timedelta(days=60)
"""Five weekly digests in a row are enough, too."""
NOTE_LENGTH = 200


class SuppressionReason(StrEnum):
    """What caused it."""

    HARD_BOUNCE = "hard_bounce"
    SOFT_BOUNCES = "soft_bounces"
    COMPLAINT = "complaint"
    MANUAL = "manual"


BY_MAILBOX = frozenset({SuppressionReason.HARD_BOUNCE, SuppressionReason.SOFT_BOUNCES})
"""What ends when the mailbox works."""
BY_OTHERS = BY_MAILBOX | {SuppressionReason.MANUAL}
"""All but what the reader wished."""


async def suppress(
    session: AsyncSession, subscriber: Subscriber, why: SuppressionReason, source: Source, at: datetime, note: str = ""
) -> None:
    """Stop the mails; nothing happens where that reason stands already. The caller holds the subscriber's row."""
    row = {
        "id": new_id(),
        "subscriber_id": subscriber.id,
        "reason": str(why),
        "source": str(source),
        "note": note[:NOTE_LENGTH],
        "suppressed_at": at,
        "lifted_by": "",
    }
    await session.execute(insert_ignoring(session, Suppression.__table__).values(row))  # type: ignore[arg-type]
    if why is SuppressionReason.COMPLAINT:
        subscriber.unsubscribed_at = subscriber.unsubscribed_at or at
    else:
        subscriber.suppressed_at = subscriber.suppressed_at or at


async def lift(
    session: AsyncSession, subscriber: Subscriber, reasons: Collection[SuppressionReason], source: Source, at: datetime
) -> None:
    """End these; mail flows again when nothing else stands."""
    lifted = {"lifted_at": at, "lifted_by": str(source)}
    mine = _standing(subscriber.id, reasons)
    await session.execute(update(Suppression).where(*mine).values(lifted).execution_options(synchronize_session=False))
    if not await session.scalar(select(exists().where(*_standing(subscriber.id, BY_OTHERS)))):
        subscriber.suppressed_at = None


async def lifted_after(session: AsyncSession, subscriber_id: UUID, why: SuppressionReason, at: datetime) -> bool:
    """Whether a suppression for this reason has been lifted since `at`: what was told then has been dealt with. Events
    come again, by hours where the broker's loss is mended.
    """
    mine = (Suppression.subscriber_id == subscriber_id, Suppression.reason == str(why), Suppression.lifted_at > at)
    return bool(await session.scalar(select(exists().where(*mine))))


async def lift_what_ended(
    session: AsyncSession, subscriber: Subscriber, before: Any, source: Source, at: datetime
) -> None:
    """Whoever has begun again since `before` (a standing of the history) is no longer stopped by a complaint."""
    if before["unsubscribed"] and subscriber.unsubscribed_at is None:
        await lift(session, subscriber, {SuppressionReason.COMPLAINT}, source, at)


async def note_soft_bounce(session: AsyncSession, subscriber_id: UUID, delivery_id: UUID, at: datetime) -> bool:
    """Write a soft bounce down, once per delivery; whether there have been so many that the mails should stop."""
    row = {"delivery_id": delivery_id, "subscriber_id": subscriber_id, "bounced_at": at}
    await session.execute(insert_ignoring(session, SoftBounce.__table__).values(row))  # type: ignore[arg-type]
    mine = SoftBounce.subscriber_id == subscriber_id
    await session.execute(delete(SoftBounce).where(mine, SoftBounce.bounced_at <= at - WINDOW))
    instants = await session.scalars(select(SoftBounce.bounced_at).where(mine))
    days = {instant.astimezone(STOCKHOLM).date() for instant in instants}
    if len(days) < DAYS:
        return False
    await session.execute(delete(SoftBounce).where(mine))  # who comes back begins anew
    return True


async def standing(session: AsyncSession, subscriber_id: UUID) -> set[SuppressionReason]:
    """What keeps mail from flowing."""
    reasons = await session.scalars(select(Suppression.reason).where(*_standing(subscriber_id, SuppressionReason)))
    return {SuppressionReason(reason) for reason in reasons}


async def all_of(session: AsyncSession, subscriber_id: UUID) -> Sequence[Suppression]:
    """Standing and lifted, the newest first."""
    mine = select(Suppression).where(Suppression.subscriber_id == subscriber_id)
    return (await session.scalars(mine.order_by(Suppression.id.desc()))).all()


async def standing_for(
    session: AsyncSession, reasons: Sequence[SuppressionReason], *, after: UUID | None, limit: int
) -> list[tuple[Suppression, Subscriber]]:
    """What stands for one of these reasons, the newest first: a stretch of the index for each, put together."""
    found: list[Suppression] = []
    for reason in reasons:
        mine = select(Suppression).where(Suppression.reason == str(reason), Suppression.lifted_at.is_(None))
        further = mine if after is None else mine.where(Suppression.id < after)
        found += (await session.scalars(further.order_by(Suppression.id.desc()).limit(limit))).all()
    newest = sorted(found, key=lambda stop: stop.id, reverse=True)[:limit]
    ids = {stop.subscriber_id for stop in newest}
    people = {row.id: row for row in await session.scalars(select(Subscriber).where(Subscriber.id.in_(ids)))}
    return [(stop, people[stop.subscriber_id]) for stop in newest]


def _standing(subscriber_id: UUID, reasons: Collection[SuppressionReason] | type[SuppressionReason]) -> tuple[Any, ...]:
    among = Suppression.reason.in_([str(reason) for reason in reasons])
    return Suppression.subscriber_id == subscriber_id, Suppression.lifted_at.is_(None), among
