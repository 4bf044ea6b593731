"""The API of the groups' contact persons."""

from uuid import UUID

from fastapi import Request
from pydantic import BaseModel

from shared.http import Reading, RequestModel, Writing
from shared.keys import Reader, Writer
from shared.problems import Problem, documented, invalid
from shared.routes import Router
from subscriptions import people
from subscriptions.groups import members
from subscriptions.groups.models import GroupContact

router = Router(prefix="/api/subscriptions/v1", responses=documented(401, 403, 422))


class ContactIn(RequestModel):
    """The member who is to be the contact person."""

    subscriber_id: UUID


class ContactOut(BaseModel):
    """Who may invite and remove by the group's own page."""

    group_id: UUID
    subscriber_id: UUID


@router.get("/groups/{group_id}/contact", responses=documented(404))
async def read_contact(group_id: UUID, session: Reading, _: Reader) -> ContactOut:
    """The group's contact person, where it has one."""
    found = await session.get(GroupContact, group_id)
    if found is None:
        raise Problem(404)
    return ContactOut(group_id=group_id, subscriber_id=found.subscriber_id)


@router.put("/groups/{group_id}/contact", responses=documented(400, 404, 413, 415))
async def name_contact(request: Request, group_id: UUID, wanted: ContactIn, session: Writing, _: Writer) -> ContactOut:
    """Name the contact person and mail them the link to the group's page; the same one again is mailed it anew."""
    group = await people.group(session, group_id)
    if group is None:
        raise Problem(404)
    found = await members.members(session, group_id)
    subscriber = next((member for member in found if member.id == wanted.subscriber_id), None)
    if subscriber is None:
        message = "Name a member of the group."
        raise invalid("/subscriber_id", "unknown_subscriber", message, "Ange en medlem i gruppen.")
    state = request.app.state
    await members.name_contact(session, state.links, group, subscriber, state.clock.now())
    return ContactOut(group_id=group_id, subscriber_id=subscriber.id)
