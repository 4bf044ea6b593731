"""The API of the tasks: what waits for the editor, and how it was settled."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request, Response
from pydantic import AfterValidator, BaseModel, Field

from shared import paging
from shared.http import Reading, RequestModel, Writing
from shared.keys import Reader, Writer
from shared.paging import Cursor, Limit, Page
from shared.plain_text import SEEN_LINE, TRIMMED, said
from shared.problems import Problem, documented
from shared.routes import Router
from subscriptions.schemas import one_line, seen
from subscriptions.tasks import tasks
from subscriptions.tasks.models import REASON_LENGTH, Task
from subscriptions.tasks.tasks import TaskClosed, TaskKind, TaskState

router = Router(prefix="/api/subscriptions/v1", responses=documented(401, 403, 422))


class TaskOut(BaseModel):
    """Something that only a person can settle."""

    id: UUID
    kind: TaskKind
    state: TaskState
    organisation_id: UUID | None
    group_id: UUID | None
    subscriber_id: UUID | None
    details: dict[str, Any] = Field(description="what is wished, for example; forgotten when the task is closed")
    raised_at: datetime
    closed_at: datetime | None
    reason: str = Field(description="how it was settled; empty while it is open")


class TaskClosing(RequestModel):
    """How it was settled."""

    reason: Annotated[
        str,
        Field(min_length=1, max_length=REASON_LENGTH),
        said(SEEN_LINE),
        TRIMMED,
        AfterValidator(one_line),
        AfterValidator(seen),
    ]


@router.get("/tasks")
async def list_tasks(
    request: Request,
    response: Response,
    session: Reading,
    _: Reader,
    limit: Limit = 50,
    cursor: Cursor = None,
    state: TaskState | None = None,
    kind: Annotated[TaskKind | None, Query(description="only these")] = None,
) -> Page[TaskOut]:
    """Tasks in the order in which they were raised."""
    rows = await tasks.listing(session, after=paging.decode(cursor), limit=limit + 1, state=state, kind=kind)
    shown = [_shown(row) for row in rows[:limit]]
    following = paging.encode(shown[-1].id) if len(rows) > limit else None
    paging.link_next(request, response, following)
    return Page(data=shown, next_cursor=following)


@router.get("/tasks/{task_id}", responses=documented(404))
async def read_task(task_id: UUID, session: Reading, _: Reader) -> TaskOut:
    """One task."""
    found = await tasks.task(session, task_id)
    if found is None:
        raise Problem(404)
    return _shown(found)


@router.post("/tasks/{task_id}/close", responses=documented(400, 404, 409, 413, 415))
async def close_task(request: Request, task_id: UUID, closing: TaskClosing, session: Writing, _: Writer) -> TaskOut:
    """Say how a task was settled. It happens once."""
    try:
        closed = await tasks.close(session, task_id, closing.reason, request.app.state.clock.now())
    except TaskClosed as error:
        raise Problem(409, "task_closed", "The task was closed before.") from error
    if closed is None:
        raise Problem(404)
    return _shown(closed)


def _shown(row: Task) -> TaskOut:
    return TaskOut(
        id=row.id,
        kind=TaskKind(row.kind),
        state=TaskState.OPEN if row.closed_at is None else TaskState.CLOSED,
        organisation_id=row.organisation_id,
        group_id=row.group_id,
        subscriber_id=row.subscriber_id,
        details=row.details,
        raised_at=row.raised_at,
        closed_at=row.closed_at,
        reason=row.closed_because,
    )
