"""Invitations into a group: sent by the contact person, answered by a button, gone after 30 days.

Inviting answers the same whether the address is known, a member or neither. An open invitation exists once per group
and address; inviting again mails it again and lets it run from now. Accepting is safe to repeat: the row keeps whose it
became, and holds no address from then on. Whoever is new becomes a subscriber under the invitation's id.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.news import Locale
from shared.database import upsert
from shared.ids import new_id
from subscriptions import people
from subscriptions.addresses import Address
from subscriptions.forgetting import forget
from subscriptions.groups import members
from subscriptions.groups.letters import DECLINED, INVITATION, TAKEN_BACK, addressee, tell_contact
from subscriptions.groups.members import IN_GROUP
from subscriptions.groups.models import GroupAct, Invitation
from subscriptions.history import Source
from subscriptions.links import Links
from subscriptions.mailing import Addressee, request_mail
from subscriptions.models import Group, Role, Subscriber
from subscriptions.people import role_id
from subscriptions.subscribing import values_of

KEPT = timedelta(days=30)


class UnknownInvitation(Exception):
    """Nobody is invited by it (any more)."""


@dataclass(frozen=True, slots=True)
class Invited:
    """Whom to invite."""

    address: Address
    name: str
    locale: Locale


async def invite(session: AsyncSession, links: Links, group: Group, invited: Invited, at: datetime) -> None:
    """Invite by mail, unless they are a member. The contact person is told of the first mail."""
    known = await people.subscriber_by_address(session, invited.address.key)
    if known is not None and await session.get(Role, role_id(known.id, IN_GROUP, group.id)) is not None:
        return
    fresh_id = new_id()
    invitation_id = await _keep(session, group, invited, fresh_id, at)
    to = Addressee(invitation_id, invited.address.text, invited.locale)
    if known is not None:
        to = addressee(links, known)
    await request_mail(session, to, INVITATION, links.invitation(invitation_id), at, group=group.name)
    if invitation_id == fresh_id:
        await members.tell(session, links, group, GroupAct.INVITED, invited.name, at, invitation_id=invitation_id)


async def _keep(session: AsyncSession, group: Group, invited: Invited, fresh_id: UUID, at: datetime) -> UUID:
    newest: dict[str, Any] = {
        "address": invited.address.text,
        "name": invited.name,
        "locale": str(invited.locale),
        "expires_at": at + KEPT,
    }
    insert = upsert(session, Invitation.__table__).values(  # type: ignore[arg-type]
        id=fresh_id, group_id=group.id, address_key=invited.address.key, **newest
    )
    set_ = {name: insert.excluded[name] for name in newest}
    kept = insert.on_conflict_do_update(index_elements=["group_id", "address_key"], set_=set_)
    invitation_id: UUID = (await session.execute(kept.returning(Invitation.__table__.c.id))).scalar_one()
    return invitation_id


async def waiting(session: AsyncSession, group_id: UUID, at: datetime) -> list[Invitation]:
    """The group's open invitations, the one that ends first before the others."""
    theirs = select(Invitation).where(Invitation.group_id == group_id, *_open(at))
    return list(await session.scalars(theirs.order_by(Invitation.expires_at, Invitation.id)))


async def count(session: AsyncSession, group_id: UUID, at: datetime) -> int:
    theirs = select(func.count()).select_from(Invitation).where(Invitation.group_id == group_id, *_open(at))
    return await session.scalar(theirs) or 0


async def look(session: AsyncSession, invitation_id: UUID, at: datetime) -> tuple[Invitation, Group]:
    """The invitation, open or accepted, and its group; held until the transaction ends."""
    mine = select(Invitation).where(Invitation.id == invitation_id).with_for_update()
    found = await session.scalar(mine.execution_options(populate_existing=True))
    if found is None or (found.subscriber_id is None and found.expires_at <= at):
        raise UnknownInvitation
    group = await people.group(session, found.group_id)
    if group is None:
        raise UnknownInvitation
    return found, group


async def accept(session: AsyncSession, links: Links, invitation_id: UUID, at: datetime) -> Subscriber:
    """Make whoever is invited a member, once."""
    invitation, group = await look(session, invitation_id, at)
    if invitation.subscriber_id is not None:
        accepted = await people.subscriber(session, invitation.subscriber_id)
        if accepted is None:
            raise UnknownInvitation
        return accepted
    assert invitation.address is not None
    assert invitation.address_key is not None
    address = Address(invitation.address, invitation.address_key)
    values = values_of(address, invitation.name, Locale(invitation.locale), at)
    is_new = await people.insert_subscriber(session, {"id": invitation.id, **values}) is not None
    subscriber = await people.subscriber_by_address(session, address.key)
    assert subscriber is not None
    if not is_new:
        await forget(session, invitation.id, at)
    invitation.subscriber_id, invitation.address, invitation.address_key = subscriber.id, None, None
    await session.flush()
    if await members.add(session, links, group, subscriber.id, at, Source.INVITATION):
        await members.tell(session, links, group, GroupAct.JOINED, subscriber.name, at, member_id=subscriber.id)
    return subscriber


async def decline(session: AsyncSession, links: Links, invitation_id: UUID, at: datetime) -> None:
    """Say no: the invitation and its address go, and the contact person is told."""
    invitation, group = await look(session, invitation_id, at)
    if invitation.subscriber_id is None:
        await withdraw(session, invitation, at)
        await tell_contact(session, links, group, DECLINED, None, invitation.name, at)


async def take_back(session: AsyncSession, links: Links, group: Group, invitation: Invitation, at: datetime) -> None:
    """Withdraw it for the contact person, who is told; the way back is to invite again."""
    if await withdraw(session, invitation, at):
        await tell_contact(session, links, group, TAKEN_BACK, None, invitation.name, at)


async def withdraw(session: AsyncSession, invitation: Invitation, at: datetime) -> bool:
    """Take an open invitation away, and have the distributor forget its address; whether it was open."""
    gone = await session.scalars(
        delete(Invitation)
        .where(Invitation.id == invitation.id, Invitation.subscriber_id.is_(None))
        .returning(Invitation.id)
        .execution_options(synchronize_session=False)
    )
    if gone.first() is None:
        return False
    await forget(session, invitation.id, at)
    return True


async def forget_address(session: AsyncSession, key: str, at: datetime) -> list[UUID]:
    """Take away every open invitation to an address that is erased; their ids."""
    theirs = delete(Invitation).where(Invitation.address_key == key).returning(Invitation.id)
    gone = list((await session.scalars(theirs.execution_options(synchronize_session=False))).all())
    for invitation_id in gone:
        await forget(session, invitation_id, at)
    return gone


def _open(at: datetime) -> tuple[Any, Any]:
    return Invitation.subscriber_id.is_(None), Invitation.expires_at > at
