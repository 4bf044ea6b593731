"""The API of the rolls: compare, then apply what was shown."""

import asyncio
from typing import Annotated, Any

from fastapi import File, Header, Query, Request, Response, UploadFile
from fastapi.responses import JSONResponse

from shared import correlation, problems
from shared.keys import Writer
from shared.problems import Problem, documented
from shared.routes import Router
from shared.uploads import alone, bounded
from subscriptions.csv_text import MAX_BYTES
from subscriptions.rolls import importing
from subscriptions.rolls.importing import RollChanged
from subscriptions.rolls.schemas import RollReport
from subscriptions.schemas import ImportProblem

router = Router(prefix="/api/subscriptions/v1", route_class=bounded(MAX_BYTES), responses=documented(401, 403, 422))


@router.post(
    "/rolls", response_model=RollReport, dependencies=[alone("file")], responses=documented(400, 412, 413, 428)
)
async def import_roll(
    request: Request,
    _: Writer,
    file: Annotated[UploadFile, File(description="CSV; the importer's columns for politicians, dates on every line")],
    dry_run: Annotated[bool, Query(description="compare only: who is new, who left, who changed")] = False,
    if_match: Annotated[str | None, Header(description="the ETag of the comparison that you saw")] = None,
) -> Any:
    """Import who sits in councils and boards, per mandate period. The file is the whole truth about each council that
    it names, for its term. A dry run answers the comparison and its ETag; applying needs that ETag, and answers 412
    where anything that the comparison was made from has changed. It is all done, or nothing.
    """
    database, now = request.app.state.database, request.app.state.clock.now()
    if dry_run:
        report = await importing.compare_file(database, file.file, now)
    elif if_match is None:
        raise Problem(428, detail="Compare first (dry_run=true), and send the ETag of the comparison in If-Match.")
    else:
        report = await _apply(database, file, if_match, now)
    if report.errors and not dry_run:
        return _refused(report)
    headers = {"ETag": f'"{report.version}"'} if report.version else {}
    document = await asyncio.to_thread(report.model_dump_json)
    return Response(document, headers=headers, media_type="application/json")


async def _apply(database: Any, file: UploadFile, if_match: str, now: Any) -> RollReport:
    tags = [tag.strip() for tag in if_match.split(",")]
    try:
        return await importing.apply_file(database, file.file, lambda version: f'"{version}"' in tags, now)
    except RollChanged as error:
        detail = "The roll has changed since you compared. Compare again (dry_run=true)."
        raise Problem(412, "roll_changed", detail) from error


def _refused(report: RollReport) -> JSONResponse:
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
