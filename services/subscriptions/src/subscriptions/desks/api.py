"""The API of the desks: which address is a newsroom's, and whether it has said that it is right."""

from datetime import datetime
from uuid import UUID

from fastapi import Request
from pydantic import BaseModel, Field

from shared.http import Reading, RequestModel, Writing
from shared.keys import Reader, Writer
from shared.problems import Problem, documented, invalid
from shared.routes import Router
from subscriptions.desks import desks
from subscriptions.desks.models import Desk, Step

router = Router(prefix="/api/subscriptions/v1", responses=documented(401, 403, 422))


class DeskIn(RequestModel):
    """The address that is to be the desk; its subscriber has a role in the newsroom."""

    subscriber_id: UUID


class DeskOut(BaseModel):
    """A newsroom's desk."""

    organisation_id: UUID
    subscriber_id: UUID | None = Field(description="missing when the address is gone and nobody has named another")
    step: Step = Field(description="what comes next, at `due_at`")
    due_at: datetime
    asked_at: datetime | None
    answered_at: datetime | None


@router.get("/organisations/{organisation_id}/desk", responses=documented(404))
async def read_desk(organisation_id: UUID, session: Reading, _: Reader) -> DeskOut:
    """The newsroom's desk, once it has one."""
    found = await desks.desk(session, organisation_id)
    if found is None:
        raise Problem(404)
    return _shown(found)


@router.put("/organisations/{organisation_id}/desk", responses=documented(400, 404, 413, 415))
async def name_desk(request: Request, organisation_id: UUID, wanted: DeskIn, session: Writing, _: Writer) -> DeskOut:
    """Say which of the newsroom's addresses is the desk. Links that were mailed to another one end."""
    found = await desks.holders(session, organisation_id)
    if not found:
        raise Problem(404)
    subscriber = next((holder for holder in found if holder.id == wanted.subscriber_id), None)
    if subscriber is None:
        message = "Name somebody who has a role in this newsroom."
        raise invalid("/subscriber_id", "unknown_subscriber", message, "Ange någon som hör till redaktionen.")
    state = request.app.state
    await desks.name_desk(session, organisation_id, subscriber, state.clock.now(), state.settings.desk_rhythm)
    named = await desks.desk(session, organisation_id)
    assert named is not None
    return _shown(named)


def _shown(row: Desk) -> DeskOut:
    return DeskOut(
        organisation_id=row.organisation_id,
        subscriber_id=row.subscriber_id,
        step=Step(row.step),
        due_at=row.due_at,
        asked_at=row.asked_at,
        answered_at=row.answered_at,
    )
