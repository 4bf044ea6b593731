"""The API of digest runs: how far each has come, and one on demand."""

from fastapi import Request, Response

from shared.database import instant
from shared.http import Reading, Writing
from shared.idempotency import Answer, OptionalKey, once
from shared.ids import new_id
from shared.keys import Publisher, Reader
from shared.paging import Limit
from shared.problems import documented
from shared.routes import Router
from subscriptions import digest_rows
from subscriptions.schemas import DigestRunIn, DigestRunOut, DigestRuns

router = Router(prefix="/api/subscriptions/v1/digest-runs", tags=["Digests"], responses=documented(401, 403, 422))


@router.get("")
async def list_digest_runs(session: Reading, _: Reader, limit: Limit = 50) -> DigestRuns:
    """The newest runs, the newest first."""
    found = await digest_rows.runs(session, limit=limit)
    return DigestRuns(data=[DigestRunOut.model_validate(row, from_attributes=True) for row in found])


@router.post("", status_code=202, response_model=DigestRunOut, responses=documented(400, 409, 413, 415))
async def begin_digest_run(
    request: Request, wanted: DigestRunIn, session: Writing, key: OptionalKey, _: Publisher
) -> Response:
    """Send now what waits for digests. What it takes, the next regular run does not find again."""
    now = await instant(session, request.app.state.clock)

    async def work() -> Answer:
        run_id = new_id()
        await digest_rows.begin(session, run_id, now, now, weekly=wanted.weekly)
        begun = await digest_rows.run(session, run_id)
        return Answer(DigestRunOut.model_validate(begun, from_attributes=True), 202)

    return await once(session, key, now, work)
