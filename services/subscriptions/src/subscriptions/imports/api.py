"""The API of the imports: a small file is taken in the request that brings it, a large one by a worker."""

import asyncio
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import File, Form, Query, Request, UploadFile
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from shared import correlation, problems
from shared.contracts.news import Audience
from shared.http import Reading
from shared.keys import Reader, Writer
from shared.problems import Problem, documented
from shared.routes import Router
from shared.uploads import alone, bounded
from subscriptions import importing
from subscriptions.csv_reading import Reading as FileReading
from subscriptions.csv_text import MAX_BYTES, Unreadable
from subscriptions.imports import imports
from subscriptions.imports.models import Import, ImportState
from subscriptions.schemas import ImportProblem, ImportReport, LineError

router = Router(prefix="/api/subscriptions/v1", route_class=bounded(MAX_BYTES), responses=documented(401, 403, 422))

SMALL = 1_000_000
"""Bytes, some 15,000 lines: so much is written while a caller waits, and while others wait to write (SQLite)."""


class ImportOut(BaseModel):
    """A list on its way in. It has ended when `ended_at` is set."""

    id: UUID
    state: ImportState
    audience: Audience
    rows: int = Field(description="lines of people; read so far while it is being checked")
    rows_done: int = Field(description="of them, those that are written")
    created: int
    updated: int
    unchanged: int
    errors: list[LineError] = Field(description="why it is refused")
    errors_left_out: int = Field(description="errors beyond those listed")
    created_at: datetime
    ended_at: datetime | None


@router.post(
    "/imports",
    response_model=ImportReport,
    dependencies=[alone("file", "audience")],
    responses={
        202: {"model": ImportOut, "description": "Accepted; `Location` tells how far it is"},
        **documented(400, 413),
    },
)
async def import_file(
    request: Request,
    _: Writer,
    file: Annotated[UploadFile, File(description="CSV; the columns are documented per audience")],
    audience: Annotated[Audience, Form()],
    dry_run: Annotated[bool, Query(description="say what would happen, change nothing")] = False,
) -> Any:
    """Import a list of people: all of it, or nothing when any line is faulty. Importing the same file twice changes
    nothing, so no Idempotency-Key is needed. A dry run answers 200 and lists the faults; else they come as a problem,
    each with `line` and `column` beside its pointer. A file of more than a megabyte is answered 202 and imported by a
    worker: ask its `Location` how far it is, and for the faults.
    """
    if not dry_run and (file.size or 0) > SMALL:
        return await _store(request, file, audience)
    database, now = request.app.state.database, request.app.state.clock.now()
    report = await importing.import_file(database, file.file, audience, dry_run=dry_run, at=now)
    return _refused(report) if report.errors and not dry_run else report


@router.get("/imports/{import_id}", responses=documented(404))
async def read_import(import_id: UUID, session: Reading, _: Reader) -> ImportOut:
    """How far an import is."""
    found = await imports.look(session, import_id)
    if found is None:
        raise Problem(404)
    return _shown(found)


async def _store(request: Request, file: UploadFile, audience: Audience) -> JSONResponse:
    try:
        content = await asyncio.to_thread(imports.compressed, file.file)
    except Unreadable as error:
        reading = FileReading()
        reading.fault(1, "", *error.args)
        return _refused(importing.report_of(reading, audience, dry_run=False))
    state = request.app.state
    async with state.database.transaction() as session:
        name = file.filename or ""
        import_id = await imports.store(session, content, audience, state.clock.now(), file_name=name, is_agreed=True)
        found = await imports.look(session, import_id)
        assert found is not None
        shown = _shown(found)
    headers = {"Location": f"{router.prefix}/imports/{import_id}"}
    return JSONResponse(shown.model_dump(mode="json"), status_code=202, headers=headers)


def _shown(row: Import) -> ImportOut:
    report = row.report if not row.is_roll else {}
    return ImportOut(
        id=row.id,
        state=ImportState(row.state),
        audience=Audience(row.audience),
        rows=row.rows,
        rows_done=row.rows_done,
        created=report.get("created", 0),
        updated=report.get("updated", 0),
        unchanged=report.get("unchanged", 0),
        errors=row.report.get("errors", []),
        errors_left_out=row.report.get("errors_left_out", 0),
        created_at=row.created_at,
        ended_at=row.ended_at,
    )


def _refused(report: ImportReport) -> JSONResponse:
    document = ImportProblem(
        type=problems.TYPE_URL + "import_refused",
        title=problems.TITLES[422][1],
        status=422,
        code="import_refused",
        detail="Nothing was imported. Mend the lines and send the file again.",
        instance=correlation.current().correlation_id,
        errors=report.errors,
        errors_left_out=report.errors_left_out,
    )
    return JSONResponse(document.model_dump(), status_code=422, media_type=problems.CONTENT_TYPE)
