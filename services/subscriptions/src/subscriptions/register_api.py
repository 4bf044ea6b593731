"""The API of the data-protection officer: the register with its legal bases, and what happened to one subscription."""

from typing import Annotated
from uuid import UUID

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse

from shared import paging
from shared.http import Reading
from shared.keys import Admin
from shared.paging import Cursor, Limit, Page
from shared.problems import documented
from shared.routes import Router
from subscriptions import history, register
from subscriptions.schemas import HistoryEntry, RegisterEntry

router = Router(prefix="/api/subscriptions/v1", tags=["Register"], responses=documented(401, 403, 422))


class CsvAnswer(StreamingResponse):
    """Lines as they are read."""

    media_type = "text/csv"


@router.get("/register")
async def read_register(
    request: Request, response: Response, session: Reading, _: Admin, limit: Limit = 50, cursor: Cursor = None
) -> Page[RegisterEntry]:
    """Everybody in the register, with the legal basis of each subscription, its source, time and text."""
    found = await register.entries(session, after=paging.decode(cursor), limit=limit + 1)
    shown, following = found[:limit], None
    if len(found) > limit:
        following = paging.encode(shown[-1].id)
    paging.link_next(request, response, following)
    return Page(data=shown, next_cursor=following)


@router.get("/register.csv", response_class=CsvAnswer)
async def download_register(request: Request, _: Admin) -> Response:
    """The same as a file, a subscription a line."""
    attached = {"Content-Disposition": 'attachment; filename="register.csv"', "Cache-Control": "no-store"}
    return CsvAnswer(register.lines(request.app.state.database), headers=attached)


@router.get("/subscribers/{subscriber_id}/history")
async def read_history(
    request: Request,
    response: Response,
    subscriber_id: UUID,
    session: Reading,
    _: Admin,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: Cursor = None,
) -> Page[HistoryEntry]:
    """What happened to one subscription, the newest first; also after its person was erased."""
    found = await history.newest_changes(session, subscriber_id, limit=limit + 1, before=paging.decode(cursor))
    shown = [HistoryEntry.model_validate(change, from_attributes=True) for change in found[:limit]]
    following = paging.encode(shown[-1].id) if len(found) > limit else None
    paging.link_next(request, response, following)
    return Page(data=shown, next_cursor=following)
