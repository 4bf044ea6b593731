"""Everything that this service holds about one person, in one document: for the person's page and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.news import Audience
from subscriptions import history, people, suppressions
from subscriptions.consent import ground_of
from subscriptions.frequencies import Frequencies, frequencies_of
from subscriptions.history import Change
from subscriptions.models import AddressChange, DigestEntry, SoftBounce, Subscriber, Suppression
from subscriptions.people import RoleRow

ALL = 10_000
ELSEWHERE = (
    "The delivery ledger keeps, per mail, when it was sent and what the receiving server answered. "
    "Ask the organisation for an extract."
)


@dataclass(frozen=True, slots=True)
class Held:
    """What there is about a person beside their own row."""

    roles: Sequence[RoleRow]
    left: Sequence[Audience]
    frequencies: Frequencies
    moving: AddressChange | None
    changes: Sequence[Change]
    suppressions: Sequence[Suppression]
    soft_bounces: Sequence[datetime]
    waiting: Sequence[DigestEntry]


async def held_about(session: AsyncSession, subscriber_id: UUID) -> Held:
    """All of it."""
    moving = select(AddressChange).where(AddressChange.subscriber_id == subscriber_id)
    soft_bounces = select(SoftBounce.bounced_at).where(SoftBounce.subscriber_id == subscriber_id)
    waiting = select(DigestEntry).where(DigestEntry.subscriber_id == subscriber_id)
    return Held(
        roles=(await people.roles_of(session, [subscriber_id]))[subscriber_id],
        left=sorted((await people.left_by(session, [subscriber_id]))[subscriber_id]),
        frequencies=(await frequencies_of(session, [subscriber_id])).get(subscriber_id, {}),
        moving=await session.scalar(moving),
        changes=await history.newest_changes(session, subscriber_id, limit=ALL),
        suppressions=await suppressions.all_of(session, subscriber_id),
        soft_bounces=(await session.scalars(soft_bounces.order_by(SoftBounce.bounced_at))).all(),
        waiting=(await session.scalars(waiting.order_by(DigestEntry.published_at))).all(),
    )


def export(subscriber: Subscriber, held: Held) -> dict[str, Any]:
    """The document; plain JSON values."""
    return {
        "id": str(subscriber.id),
        "address": subscriber.address,
        "name": subscriber.name,
        "language": subscriber.locale,
        "since": subscriber.created_at.isoformat(),
        "roles": [_role(role, held.changes) for role in held.roles],
        "left_audiences": [str(audience) for audience in held.left],
        "topics": sorted(subscriber.topics),
        "municipalities": sorted(subscriber.municipalities),
        "frequencies": {topic: str(often) for topic, often in held.frequencies.items()},
        "paused_until": _instant(subscriber.paused_until),
        "unsubscribed_at": _instant(subscriber.unsubscribed_at),
        "suppressed_at": _instant(subscriber.suppressed_at),
        "suppressions": [_suppression(row) for row in held.suppressions],
        "soft_bounces": [instant.isoformat() for instant in held.soft_bounces],
        "waiting_for_digest": [str(entry.item_id) for entry in held.waiting],
        "link_mailed_at": _instant(subscriber.link_mailed_at),
        "address_change": _moving(held.moving),
        "history": [_change(change) for change in held.changes],
        "elsewhere": ELSEWHERE,
    }


def _role(role: RoleRow, changes: Sequence[Change]) -> dict[str, Any]:
    ground = ground_of(role.audience, changes)
    return {
        "legal_basis": str(ground.basis),
        "legal_basis_since": _instant(ground.since),
        "text_consented_to": ground.text,
        "audience": str(role.audience),
        "place": role.name,
        "municipalities": sorted(role.municipalities),
        "mandate_from": _instant(role.mandate_from),
        "mandate_until": _instant(role.mandate_until),
    }


def _suppression(row: Suppression) -> dict[str, Any]:
    return {
        "reason": row.reason,
        "note": row.note,
        "suppressed_at": _instant(row.suppressed_at),
        "lifted_at": _instant(row.lifted_at),
        "lifted_by": row.lifted_by,
    }


def _moving(change: AddressChange | None) -> dict[str, Any] | None:
    if change is None:
        return None
    return {
        "address": change.address,
        "old_address": change.old_address,
        "asked_at": _instant(change.asked_at),
        "confirmed_at": _instant(change.confirmed_at),
        "taken_back_at": _instant(change.taken_back_at),
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "at": change.at.isoformat(),
        "act": str(change.act),
        "source": str(change.source),
        "before": dict(change.before),
        "after": dict(change.after),
    }


def _instant(value: Any) -> str | None:
    return value.isoformat() if value is not None else None
