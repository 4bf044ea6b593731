"""The API of suppressions: what stops mail to somebody beside their own choices, the office's stop, the way back."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request

from shared.http import Reading, Writing
from shared.keys import Reader, Writer
from shared.problems import Problem, documented
from shared.routes import Router
from subscriptions import people, suppressions
from subscriptions.history import Source
from subscriptions.schemas import SuppressionIn, SuppressionOut, Suppressions
from subscriptions.stops import UnknownSubscriber, changing
from subscriptions.suppressions import BY_OTHERS, SuppressionReason

router = Router(
    prefix="/api/subscriptions/v1/subscribers/{subscriber_id}/suppressions",
    tags=["Suppressions"],
    responses=documented(401, 403, 404, 422),
)


def _clock(request: Request) -> datetime:
    now: datetime = request.app.state.clock.now()
    return now


Now = Annotated[datetime, Depends(_clock)]


@router.get("")
async def list_suppressions(subscriber_id: UUID, session: Reading, _: Reader) -> Suppressions:
    """What stands and what has been lifted, the newest first."""
    if await people.subscriber(session, subscriber_id) is None:
        raise Problem(404)
    return await _shown(session, subscriber_id)


@router.post("", responses=documented(400, 413, 415))
async def suppress(subscriber_id: UUID, wanted: SuppressionIn, now: Now, session: Writing, _: Writer) -> Suppressions:
    """Stop all mails to somebody until the office lifts it. Doing it twice is doing it once."""
    try:
        async with changing(session, subscriber_id, now, Source.OFFICE) as person:
            await suppressions.suppress(
                session, person.subscriber, SuppressionReason.MANUAL, Source.OFFICE, now, wanted.note
            )
    except UnknownSubscriber as error:
        raise Problem(404) from error
    return await _shown(session, subscriber_id)


@router.delete("")
async def lift(subscriber_id: UUID, now: Now, session: Writing, _: Writer) -> Suppressions:
    """Lift bounces and the office's stop. A complaint is the reader's own word, and only they take it back."""
    try:
        async with changing(session, subscriber_id, now, Source.OFFICE) as person:
            await suppressions.lift(session, person.subscriber, BY_OTHERS, Source.OFFICE, now)
    except UnknownSubscriber as error:
        raise Problem(404) from error
    return await _shown(session, subscriber_id)


async def _shown(session: Reading, subscriber_id: UUID) -> Suppressions:
    rows = await suppressions.all_of(session, subscriber_id)
    return Suppressions(data=[SuppressionOut.model_validate(row, from_attributes=True) for row in rows])
