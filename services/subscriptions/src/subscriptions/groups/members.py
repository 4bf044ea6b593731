"""Who is in a group, who its contact person is, and how somebody comes in and out of it.

Every change is a row, told to the contact person with an undo link and to the member with a way back. Removing somebody
who is not there, or restoring somebody who is, changes and tells nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.news import Audience
from shared.database import upsert
from shared.ids import new_id
from subscriptions import people, suppressions
from subscriptions.groups.letters import FAREWELL, TOLD, WELCOME, YOUR_PAGE, tell_contact, tell_member
from subscriptions.groups.models import GroupAct, GroupChange, GroupContact
from subscriptions.history import Source
from subscriptions.links import Links
from subscriptions.models import Group, Role, Subscriber
from subscriptions.people import role_id
from subscriptions.stops import changing, take_up
from subscriptions.suppressions import BY_MAILBOX
from subscriptions.tasks.tasks import About, TaskKind, raise_task

IN_GROUP = Audience.COLLABORATION_GROUP


class UnknownGroup(Exception):
    """There is no such group, or the link's contact is not its contact (any more)."""


@dataclass(frozen=True, slots=True)
class Held:
    """A group in its contact's hand."""

    group: Group
    contact: GroupContact
    subscriber: Subscriber


async def held(session: AsyncSession, group_id: UUID, generation: int) -> Held:
    """The group that a contact's link leads to; `UnknownGroup` where it leads nowhere."""
    group, contact = await people.group(session, group_id), await session.get(GroupContact, group_id)
    subscriber = await people.subscriber(session, contact.subscriber_id) if contact else None
    if group is None or contact is None or subscriber is None or contact.generation != generation:
        raise UnknownGroup
    return Held(group, contact, subscriber)


async def name_contact(session: AsyncSession, links: Links, group: Group, subscriber: Subscriber, at: datetime) -> None:
    """Make the member the contact person and mail the link; again where they are it already. Old links end."""
    insert = upsert(session, GroupContact.__table__).values(  # type: ignore[arg-type]
        group_id=group.id, subscriber_id=subscriber.id, generation=1
    )
    table = GroupContact.__table__.c
    moved = table.subscriber_id != insert.excluded.subscriber_id
    newer = {"subscriber_id": subscriber.id, "generation": table.generation + 1}
    await session.execute(insert.on_conflict_do_update(index_elements=["group_id"], set_=newer, where=moved))
    contact = await session.get_one(GroupContact, group.id, populate_existing=True)
    await tell_member(session, links, subscriber, YOUR_PAGE, links.group(group.id, contact.generation), group, at)


async def members(session: AsyncSession, group_id: UUID) -> Sequence[Subscriber]:
    """By name, then in the order in which they came."""
    held_by = select(Role.subscriber_id).where(Role.group_id == group_id)
    return (
        await session.scalars(
            select(Subscriber).where(Subscriber.id.in_(held_by)).order_by(Subscriber.name, Subscriber.id)
        )
    ).all()


async def count(session: AsyncSession, group_id: UUID) -> int:
    return await session.scalar(select(func.count()).select_from(Role).where(Role.group_id == group_id)) or 0


async def add(session: AsyncSession, links: Links, group: Group, member_id: UUID, at: datetime, source: Source) -> bool:
    """Put somebody into the group and tell them; whether they were not in it.

    Who accepts an invitation begins again for this group alone, and has shown that the address takes mail. Who is put
    back by the contact person stays as they were: nobody else ends what a person has left or ended.
    """
    async with changing(session, member_id, at, source) as person:
        values = people.role_values(member_id, IN_GROUP, group.id, began_at=at, source=str(source))
        is_new = await session.get(Role, values["id"]) is None
        await people.put_roles(session, [values])
        person.touched = is_new
        if is_new and source is Source.INVITATION:
            await take_up(session, person, IN_GROUP)
            await suppressions.lift(session, person.subscriber, BY_MAILBOX, Source.INVITATION, at)
    if is_new:
        preferences = links.preferences(member_id, person.subscriber.generation)
        await tell_member(session, links, person.subscriber, WELCOME, preferences, group, at)
    return is_new


async def remove(
    session: AsyncSession, links: Links, group: Group, member_id: UUID, at: datetime, source: Source = Source.GROUP
) -> None:
    """Take somebody out of the group, and tell both."""
    async with changing(session, member_id, at, source) as person:
        mine = Role.id == role_id(member_id, IN_GROUP, group.id)
        was_member = (await session.scalars(delete(Role).where(mine).returning(Role.id))).first() is not None
        person.touched = was_member
    if was_member:
        change = await tell(session, links, group, GroupAct.REMOVED, person.subscriber.name, at, member_id=member_id)
        back = links.return_to_group(change.id, person.subscriber.generation)
        await tell_member(session, links, person.subscriber, FAREWELL, back, group, at)


async def restore(session: AsyncSession, links: Links, group: Group, member_id: UUID, at: datetime) -> None:
    """Put back who was removed."""
    if await add(session, links, group, member_id, at, Source.GROUP):
        member = await people.subscriber(session, member_id)
        who = member.name if member else ""
        await tell(session, links, group, GroupAct.RESTORED, who, at, member_id=member_id)


async def tell(
    session: AsyncSession,
    links: Links,
    group: Group,
    act: GroupAct,
    who: str,
    at: datetime,
    *,
    member_id: UUID | None = None,
    invitation_id: UUID | None = None,
) -> GroupChange:
    """Write the change down, and tell the contact person."""
    change = GroupChange(
        id=new_id(), group_id=group.id, act=act, subscriber_id=member_id, invitation_id=invitation_id, at=at
    )
    session.add(change)
    await session.flush()
    await tell_contact(session, links, group, TOLD[act], change, who, at)
    return change


async def change(session: AsyncSession, change_id: UUID) -> GroupChange:
    """One change; `UnknownGroup` where there is none (any more)."""
    found = await session.get(GroupChange, change_id, populate_existing=True)
    if found is None:
        raise UnknownGroup
    return found


async def raise_for(session: AsyncSession, subscriber_id: UUID, status: str, at: datetime) -> None:
    """A task for each group that this address is the contact of: nobody could reach the group's hand any more."""
    theirs = select(GroupContact.group_id).where(GroupContact.subscriber_id == subscriber_id)
    for group_id in (await session.scalars(theirs)).all():
        about = About(group_id=group_id, subscriber_id=subscriber_id)
        await raise_task(session, TaskKind.GROUP_CONTACT_BOUNCED, about, at, {"status": status})
