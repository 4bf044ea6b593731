"""Undoing one change of a group, by the contact person's link; and a removed member who asks to stay."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from subscriptions import people
from subscriptions.groups import invitations, members
from subscriptions.groups.letters import WANTS_BACK, tell_contact
from subscriptions.groups.members import Held, UnknownGroup
from subscriptions.groups.models import GroupAct, GroupChange, Invitation
from subscriptions.links import Links
from subscriptions.models import Group, Subscriber
from subscriptions.tasks.tasks import About, TaskKind, raise_task


async def undo(session: AsyncSession, links: Links, held: Held, change: GroupChange, at: datetime) -> None:
    """Undo the change, once however often it is asked; that is a change of its own, and told."""
    mine = update(GroupChange).where(GroupChange.id == change.id, GroupChange.undone_at.is_(None))
    undoing = mine.values(undone_at=at).returning(GroupChange.id).execution_options(synchronize_session=False)
    if await session.scalar(undoing) is None:
        return
    if change.act == GroupAct.INVITED:
        await _uninvite(session, links, held.group, change, at)
    elif change.subscriber_id is not None:
        do = members.restore if change.act == GroupAct.REMOVED else members.remove
        await do(session, links, held.group, change.subscriber_id, at)


async def _uninvite(session: AsyncSession, links: Links, group: Group, change: GroupChange, at: datetime) -> None:
    """Take the invitation back, also where it has been accepted meanwhile."""
    invitation = await session.get(Invitation, change.invitation_id, populate_existing=True, with_for_update=True)
    if invitation is None:
        return
    if invitation.subscriber_id is None:
        await invitations.take_back(session, links, group, invitation, at)
    else:
        await members.remove(session, links, group, invitation.subscriber_id, at)


async def removed(session: AsyncSession, change_id: UUID, generation: int) -> tuple[GroupChange, Group, Subscriber]:
    """What a removed member's link is about; `UnknownGroup` where it is nothing (any more)."""
    change = await members.change(session, change_id)
    group = await people.group(session, change.group_id)
    subscriber = await people.subscriber(session, change.subscriber_id) if change.subscriber_id else None
    if group is None or subscriber is None or subscriber.generation != generation:
        raise UnknownGroup
    return change, group, subscriber


async def ask_back(
    session: AsyncSession, links: Links, change: GroupChange, group: Group, subscriber: Subscriber, at: datetime
) -> None:
    """Tell the contact person, with the link that undoes the removal, and the editor by a task; once while it is open.

    Nothing happens where the removal has been undone.
    """
    about = About(group_id=group.id, subscriber_id=subscriber.id)
    if change.undone_at is None and await raise_task(session, TaskKind.GROUP_RETURN, about, at):
        await tell_contact(session, links, group, WANTS_BACK, change, subscriber.name, at)
