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
from subscriptions.desks.models import Desk
from subscriptions.frequencies import Frequencies, frequencies_of
from subscriptions.groups.models import GroupContact, Invitation
from subscriptions.history import Change
from subscriptions.models import (
    AddressChange,
    DigestEntry,
    Group,
    Item,
    Organisation,
    SoftBounce,
    Subscriber,
    Suppression,
)
from subscriptions.people import RoleRow
from subscriptions.tasks.models import Task

ALL = 10_000


@dataclass(frozen=True, slots=True)
class Invited:
    """An open invitation to the person's address, as whoever invited wrote it."""

    group: str
    name: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Waiting:
    """An item that waits for the person's digest."""

    item_id: UUID
    title: str
    published_at: datetime


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
    waiting: Sequence[Waiting]
    contact_of: Sequence[str]
    desk_of: Sequence[str]
    invitations: Sequence[Invited]
    tasks: Sequence[Task]


async def held_about(session: AsyncSession, subscriber_id: UUID) -> Held:
    """All of it."""
    moving = select(AddressChange).where(AddressChange.subscriber_id == subscriber_id)
    soft_bounces = select(SoftBounce.bounced_at).where(SoftBounce.subscriber_id == subscriber_id)
    return Held(
        roles=(await people.roles_of(session, [subscriber_id]))[subscriber_id],
        left=sorted((await people.left_by(session, [subscriber_id]))[subscriber_id]),
        frequencies=(await frequencies_of(session, [subscriber_id])).get(subscriber_id, {}),
        moving=await session.scalar(moving),
        changes=await history.newest_changes(session, subscriber_id, limit=ALL),
        suppressions=await suppressions.all_of(session, subscriber_id),
        soft_bounces=(await session.scalars(soft_bounces.order_by(SoftBounce.bounced_at))).all(),
        waiting=await _waiting(session, subscriber_id),
        contact_of=await _contact_of(session, subscriber_id),
        desk_of=await _desk_of(session, subscriber_id),
        invitations=await _invitations(session, subscriber_id),
        tasks=(await session.scalars(select(Task).where(Task.subscriber_id == subscriber_id).order_by(Task.id))).all(),
    )


async def _waiting(session: AsyncSession, subscriber_id: UUID) -> list[Waiting]:
    columns = select(DigestEntry.item_id, Item.snapshot, DigestEntry.published_at)
    mine = columns.join(Item, Item.id == DigestEntry.item_id).where(DigestEntry.subscriber_id == subscriber_id)
    rows = await session.execute(mine.order_by(DigestEntry.published_at))
    return [Waiting(row.item_id, str(row.snapshot["title"]), row.published_at) for row in rows]


async def _contact_of(session: AsyncSession, subscriber_id: UUID) -> Sequence[str]:
    named = select(Group.name).join(GroupContact, GroupContact.group_id == Group.id)
    return (await session.scalars(named.where(GroupContact.subscriber_id == subscriber_id).order_by(Group.name))).all()


async def _desk_of(session: AsyncSession, subscriber_id: UUID) -> Sequence[str]:
    named = select(Organisation.name).join(Desk, Desk.organisation_id == Organisation.id)
    mine = named.where(Desk.subscriber_id == subscriber_id).order_by(Organisation.name)
    return (await session.scalars(mine)).all()


async def _invitations(session: AsyncSession, subscriber_id: UUID) -> list[Invited]:
    """They wait for an address, not for a person: whoever answers becomes a member."""
    key = select(Subscriber.address_key).where(Subscriber.id == subscriber_id).scalar_subquery()
    asked = select(Group.name, Invitation.name, Invitation.expires_at).join(Group, Group.id == Invitation.group_id)
    mine = asked.where(Invitation.address_key == key).order_by(Invitation.expires_at)
    return [Invited(*row) for row in await session.execute(mine)]


def export(subscriber: Subscriber, held: Held, mails_url: str) -> dict[str, Any]:
    """The document; plain JSON values. The mails are in the delivery ledger, which is another service's to open."""
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
        "waiting_for_digest": [{"item": str(one.item_id), "title": one.title} for one in held.waiting],
        "contact_person_for": list(held.contact_of),
        "desk_of": list(held.desk_of),
        "invitations": [_invitation(invited) for invited in held.invitations],
        "tasks": [_task(task) for task in held.tasks],
        "link_mailed_at": _instant(subscriber.link_mailed_at),
        "address_change": _moving(held.moving),
        "history": [_change(change) for change in held.changes],
        "mails": mails_url,
    }


def _role(role: RoleRow, changes: Sequence[Change]) -> dict[str, Any]:
    ground = ground_of(role, changes)
    return {
        "legal_basis": str(ground.basis),
        "legal_basis_since": _instant(ground.since),
        "legal_basis_source": ground.source,
        "text_consented_to": ground.text,
        "text_version": ground.text_shown,
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


def _invitation(invited: Invited) -> dict[str, Any]:
    return {"group": invited.group, "name": invited.name, "expires_at": _instant(invited.expires_at)}


def _task(task: Task) -> dict[str, Any]:
    return {
        "kind": task.kind,
        "details": task.details,
        "raised_at": _instant(task.raised_at),
        "closed_at": _instant(task.closed_at),
        "closed_because": task.closed_because,
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
        "text_shown": change.text_shown,
        "before": dict(change.before),
        "after": dict(change.after),
    }


def _instant(value: Any) -> str | None:
    return value.isoformat() if value is not None else None
