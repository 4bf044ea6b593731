"""The editors' API: `/api/content/v1`. It parses and calls; `publishing` decides."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request, Response

from content import publishing, repository
from content.fields import ItemChanges, ItemDraft
from content.models import Item, Schedule
from content.preconditions import OptionalMatch, RequiredMatch, etag
from content.publishing import Act
from content.reach import Reach
from content.schemas import Correction, ItemView, Publication, Revisions, RevisionView, Withdrawal, reach_view
from shared import paging
from shared.contracts.news import ItemState, Kind
from shared.database import instant
from shared.http import Reading, Writing
from shared.idempotency import Answer, OptionalKey, once
from shared.keys import Principal, Publisher, Reader, Writer
from shared.paging import Cursor, Limit, Page
from shared.problems import Problem, documented
from shared.routes import Router

router = Router(prefix="/api/content/v1", tags=["items"], responses=documented(401, 403, 422, 503))

ACT_RESPONSES: dict[int | str, dict[str, Any]] = documented(400, 404, 409, 412)


@router.post("/items", status_code=201, response_model=ItemView, responses=documented(400, 413))
async def create_item(
    request: Request, draft: ItemDraft, key: OptionalKey, caller: Writer, session: Writing
) -> Response:
    """Save a draft."""

    async def work() -> Answer:
        item = await publishing.save_draft(session, draft, _act(request, caller))
        location = {"Location": f"/api/content/v1/items/{item.id}"}
        return _answer(request, item, 201, location)

    return await once(session, key, request.app.state.clock.now(), work)


@router.get("/items")
async def list_items(
    request: Request,
    response: Response,
    caller: Reader,
    session: Reading,
    state: Annotated[ItemState | None, Query()] = None,
    kind: Annotated[Kind | None, Query()] = None,
    schedule: Annotated[
        Schedule | None, Query(description="drafts that are scheduled, or whose time was missed")
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> Page[ItemView]:
    """Items, the newest first."""
    after = paging.decode(cursor)
    rows = await repository.items(session, after=after, limit=limit + 1, state=state, kind=kind, schedule=schedule)
    shown = rows[:limit]
    following = paging.encode(shown[-1].id) if len(rows) > limit else None
    paging.link_next(request, response, following)
    return Page(data=[ItemView.of(row, _site(request)) for row in shown], next_cursor=following)


@router.get("/items/{item_id}", responses=documented(404))
async def read_item(request: Request, response: Response, item_id: UUID, caller: Reader, session: Reading) -> ItemView:
    """The item's working copy and state; its ETag is what an edit must name."""
    item = await _known(session, item_id)
    response.headers["ETag"] = etag(item)
    return ItemView.of(item, _site(request))


@router.patch("/items/{item_id}", responses=documented(400, 404, 409, 412, 413, 428))
async def edit_item(
    request: Request,
    response: Response,
    item_id: UUID,
    changes: ItemChanges,
    expected: RequiredMatch,
    caller: Writer,
    session: Writing,
) -> ItemView:
    """Change the working copy. A published item's public text changes when it is corrected; a scheduled one is not
    edited.
    """
    item = await publishing.edit(session, item_id, changes, _act(request, caller, expected))
    response.headers["ETag"] = etag(item)
    return ItemView.of(item, _site(request))


@router.get("/items/{item_id}/revisions", responses=documented(404))
async def list_revisions(item_id: UUID, caller: Reader, session: Reading) -> Revisions:
    """Everything that was public, as it was."""
    await _known(session, item_id)
    rows = await repository.revisions(session, item_id)
    return Revisions(data=[RevisionView.of(row) for row in rows])


@router.post("/items/{item_id}/publish", status_code=202, response_model=ItemView, responses=ACT_RESPONSES)
async def publish_item(
    request: Request,
    item_id: UUID,
    expected: OptionalMatch,
    key: OptionalKey,
    caller: Publisher,
    session: Writing,
    publication: Publication | None = None,
) -> Response:
    """Make a draft public and send it to everybody it is for: at once, or at the time that is given. Until then it can
    be given another time, be unscheduled, or be published at once.
    """
    act = await _dated_act(request, session, caller, expected)
    publish_at = publication.publish_at if publication else None
    if publish_at is None:
        return await _acted(request, session, key, lambda: publishing.publish(session, item_id, act))
    return await _acted(request, session, key, lambda: publishing.schedule(session, item_id, publish_at, act))


@router.post("/items/{item_id}/unschedule", response_model=ItemView, responses=ACT_RESPONSES)
async def unschedule_item(
    request: Request, item_id: UUID, expected: OptionalMatch, key: OptionalKey, caller: Publisher, session: Writing
) -> Response:
    """Let a draft not be published by itself, or say that its missed time was seen."""
    act = _act(request, caller, expected)
    return await _acted(request, session, key, lambda: publishing.unschedule(session, item_id, act), 200)


@router.post("/items/{item_id}/correct", status_code=202, response_model=ItemView, responses=ACT_RESPONSES)
async def correct_item(
    request: Request,
    item_id: UUID,
    correction: Correction,
    expected: OptionalMatch,
    key: OptionalKey,
    caller: Publisher,
    session: Writing,
) -> Response:
    """Make the working copy the next revision and tell everybody who got an older one."""
    act = await _dated_act(request, session, caller, expected)
    return await _acted(request, session, key, lambda: publishing.correct(session, item_id, correction.note, act))


@router.post("/items/{item_id}/withdraw", status_code=202, response_model=ItemView, responses=ACT_RESPONSES)
async def withdraw_item(
    request: Request,
    item_id: UUID,
    withdrawal: Withdrawal,
    expected: OptionalMatch,
    key: OptionalKey,
    caller: Publisher,
    session: Writing,
) -> Response:
    """Take the item back and tell everybody who got it."""
    act = await _dated_act(request, session, caller, expected)
    return await _acted(request, session, key, lambda: publishing.withdraw(session, item_id, withdrawal.reason, act))


@router.get("/items/{item_id}/reach", responses=documented(404))
async def read_reach(request: Request, item_id: UUID, caller: Reader, session: Reading) -> Reach:
    """Whom the item was for and what became of each, by channel and audience."""
    item = await _known(session, item_id)
    progress = await repository.progress_of(session, item_id)
    totals = await repository.totals_of(session, item_id)
    return reach_view(item, progress, totals, request.app.state.clock.now())


async def _known(session: Reading, item_id: UUID) -> Item:
    item = await repository.item(session, item_id)
    if item is None:
        raise Problem(404)
    return item


async def _acted(
    request: Request, session: Writing, key: OptionalKey, act: Callable[[], Awaitable[Item]], status: int = 202
) -> Response:
    async def work() -> Answer:
        return _answer(request, await act(), status, {})

    return await once(session, key, request.app.state.clock.now(), work)


def _act(request: Request, caller: Principal, expected: frozenset[int] | None = None) -> Act:
    return Act(caller.key_id, request.app.state.clock.now(), _site(request), expected)


async def _dated_act(request: Request, session: Writing, caller: Principal, expected: frozenset[int] | None) -> Act:
    """What readers see the time of, or wait for: the database tells it, since machines' clocks differ."""
    return replace(_act(request, caller, expected), at=await instant(session, request.app.state.clock))


def _answer(request: Request, item: Item, status: int, headers: dict[str, str]) -> Answer:
    return Answer(ItemView.of(item, _site(request)), status, {"ETag": etag(item), **headers})


def _site(request: Request) -> str:
    site: str = request.app.state.settings.public_url
    return site
