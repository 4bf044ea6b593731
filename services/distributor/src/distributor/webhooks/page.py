"""`/intranat/{token}`: an endpoint's own page, for its contact: how it fares, last attempts, a sample, a new secret.

The link stands in the mails to the contact and is the authority; it opens this endpoint alone, and only as long as it
has the same contact. GET changes nothing. A new secret is shown in the answer that made it and never again; the one
before goes on signing for a day.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from fastapi import Depends, Request, Response
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from distributor.webhooks import endpoints, health, history, trial
from distributor.webhooks.contact_mail import fault_words
from distributor.webhooks.links import PURPOSE
from distributor.webhooks.models import Endpoint, EndpointHealth, EndpointState
from distributor.webhooks.schemas import TrialResult
from distributor.webhooks.sending import seal_of
from distributor.webhooks.signing import new_secret
from shared.contracts.delivery import DeliveryState
from shared.http import no_store
from shared.routes import Router
from shared.tokens import InvalidToken
from shared.web.origins import refuse_cross_site
from shared.web.visits import PRIVATE

router = Router(prefix="/intranat", include_in_schema=False, dependencies=[Depends(no_store)])

SHOWN_ATTEMPTS = 10
SHOWN_REPLY = 200
OVERLAP = timedelta(hours=24)


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


ROTATED_ENOUGH = _("Det finns redan fem hemligheter som gäller. Vänta tills någon av dem har slutat gälla.")


@dataclass(frozen=True, slots=True)
class ShownAttempt:
    """One line of the list."""

    at: datetime
    arrived: bool
    status: int | None
    fault: str
    duration_ms: int
    reply: str


@dataclass(frozen=True, slots=True)
class Shown:
    """The page's facts."""

    name: str
    url: str
    header_names: Sequence[str]
    enabled: bool
    works: bool | None
    failures: int
    failing_since: datetime | None
    last_success_at: datetime | None
    fault: str
    attempts: Sequence[ShownAttempt]


@router.api_route("/{token}", methods=["GET", "HEAD"])
async def show(request: Request, token: str) -> Response:
    return await _answer(request, token)


@router.post("/{token}/prov")
async def send_sample(request: Request, token: str) -> Response:
    """Send a test webhook at once and show what came back."""
    refuse_cross_site(request)
    state = request.app.state
    async with state.database.reading() as session:
        endpoint = await _endpoint(request, session, token)
    if endpoint is None:
        return _dead_link(request)
    result = await trial.run(endpoint.id, settings=state.settings, database=state.database, clock=state.clock)
    return await _answer(request, token, sample=result)


@router.post("/{token}/hemlighet")
async def new_key(request: Request, token: str) -> Response:
    """Make a new secret and show it."""
    refuse_cross_site(request)
    state, secret, problem = request.app.state, new_secret(), ""
    try:
        async with state.database.transaction() as session:
            endpoint = await _endpoint(request, session, token)
            if endpoint is None:
                return _dead_link(request)
            seal, at = seal_of(state.settings), state.clock.now()
            await endpoints.rotate(session, endpoint.id, secret, overlap=OVERLAP, seal=seal, at=at)
    except endpoints.TooManySecrets:
        secret, problem = "", ROTATED_ENOUGH
    return await _answer(request, token, secret=secret, problem=problem)


async def _answer(
    request: Request, token: str, *, sample: TrialResult | None = None, secret: str = "", problem: str = ""
) -> Response:
    async with request.app.state.database.reading() as session:
        endpoint = await _endpoint(request, session, token)
        if endpoint is None:
            return _dead_link(request)
        if request.method != "POST" and (place := request.app.state.visits.onward(request, PURPOSE, token)):
            return cast("Response", place)
        fares = (await health.of(session, [endpoint.id]))[endpoint.id]
        tried = await history.attempts(session, endpoint.id, before=None, limit=SHOWN_ATTEMPTS)
    answer: Response = request.app.state.pages.render(
        request,
        "endpoint.html",
        status=409 if problem else 200,
        headers=PRIVATE,
        endpoint=_shown(endpoint, fares, tried),
        base=f"/intranat/{token}",
        sample=sample,
        sample_fault=fault_words(sample.status, sample.failure or "") if sample else "",
        secret=secret,
        problem=problem,
    )
    return answer


async def _endpoint(request: Request, session: AsyncSession, token: str) -> Endpoint | None:
    try:
        claim = request.app.state.endpoint_links.read(request.app.state.visits.token(request, PURPOSE, token))
    except InvalidToken:
        return None
    endpoint = await endpoints.find(session, claim.subject)
    return endpoint if endpoint is not None and endpoint.generation == claim.generation else None


def _dead_link(request: Request) -> Response:
    """The same whatever is wrong with the link."""
    answer: Response = request.app.state.pages.render(request, "endpoint_dead_link.html", status=404, headers=PRIVATE)
    return answer


def _shown(endpoint: Endpoint, fares: EndpointHealth, tried: Sequence[Row[Any]]) -> Shown:
    return Shown(
        name=endpoint.name,
        url=endpoint.url,
        header_names=endpoint.header_names,
        enabled=endpoint.state == EndpointState.ENABLED,
        works=fares.works,
        failures=fares.failures,
        failing_since=fares.failing_since,
        last_success_at=fares.last_success_at,
        fault=fault_words(fares.last_status, fares.last_phase),
        attempts=[_shown_attempt(row) for row in tried],
    )


def _shown_attempt(row: Row[Any]) -> ShownAttempt:
    arrived = row.state == DeliveryState.SENT
    fault = "" if arrived else fault_words(row.code, row.phase)
    return ShownAttempt(row.ended_at, arrived, row.code, fault, row.duration_ms, row.reply[:SHOWN_REPLY])
