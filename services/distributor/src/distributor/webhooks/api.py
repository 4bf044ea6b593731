"""The endpoints' API: an agency's intranet is registered, changed, tested and taken away here.

A secret is in the answer that made it and in no other; not in the store of idempotent answers either, which keeps the
answer without it and reads it from its sealed row again. `ETag` is the endpoint's version; a change must name the
version it was made from.
"""

import json
from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from email_validator import EmailNotValidError, validate_email
from fastapi import Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.ext.asyncio import AsyncSession

from distributor.settings import DistributorSettings
from distributor.webhooks import endpoints, health, history, own_headers, trial
from distributor.webhooks.models import Algorithm, Endpoint, EndpointHealth, EndpointState
from distributor.webhooks.schemas import (
    EndpointAttempt,
    EndpointChange,
    EndpointCreated,
    EndpointDetail,
    EndpointIn,
    EndpointView,
    HealthView,
    Recovered,
    RecoverIn,
    SecretCreated,
    SecretIn,
    SecretView,
    TrialResult,
)
from distributor.webhooks.sending import seal_of
from distributor.webhooks.signing import InvalidSecret, SecretUnreadable, key_of, new_secret, public_key_of
from distributor.webhooks.urls import UrlNotAllowed, checked_url
from shared import paging
from shared.http import Reading, Writing
from shared.idempotency import Answer, OptionalKey, once
from shared.keys import Publisher, Reader, Writer
from shared.paging import Cursor, Limit, Page
from shared.problems import FieldError, Problem, documented, invalid, pointer_to
from shared.routes import Router

PREFIX = "/api/distributor/v1/endpoints"
MAX_VERSION_DIGITS = 9

HEADERS_NEEDED = FieldError(
    pointer="/headers",
    code="headers_needed",
    message="The new address is on another server: send its headers with it, or {} for none.",
    message_sv="Den nya adressen leder till en annan server. Skicka med dess egna huvuden, eller {} för inga.",
)

router = Router(prefix=PREFIX, tags=["Endpoints"])


def _if_match(
    if_match: Annotated[str | None, Header(description="the ETag that the change was made from")] = None,
) -> str:
    return (if_match or "").strip()


IfMatch = Annotated[str, Depends(_if_match)]
AttemptCursor = Annotated[
    str | None,
    Query(description="`next_cursor` of the page before", json_schema_extra={"pattern": f"^{history.CURSOR}$"}),
]


@router.post("", status_code=201, response_model=EndpointCreated, responses=documented(400, 401, 403, 409, 422))
async def create_endpoint(
    request: Request, body: EndpointIn, session: Writing, key: OptionalKey, _caller: Writer
) -> Response:
    """Register an endpoint. The answer shows its secret; nothing else ever will."""
    at, settings = _now(request), _settings(request)
    wanted = _checked(body.model_dump(exclude={"secret"}), settings)

    async def work() -> Answer:
        added = endpoints.register(session, wanted, _secret(body.secret), seal=seal_of(settings), at=at)
        found = await _existing(session, await _fresh(added))
        detail = await _detail(session, found, at)
        return Answer(EndpointCreated(**detail.model_dump()), 201, {"Location": f"{PREFIX}/{found.id}", **_etag(found)})

    answer = await once(session, key, at, work)
    return await _showing_secret(session, answer, settings)


@router.get("", responses=documented(401, 403, 422))
async def list_endpoints(
    request: Request, response: Response, session: Reading, _caller: Reader, cursor: Cursor = None, limit: Limit = 50
) -> Page[EndpointView]:
    """All endpoints, the oldest first."""
    rows = await endpoints.page(session, after=paging.decode(cursor), limit=limit + 1)
    following = paging.encode(rows[limit - 1].id) if len(rows) > limit else None
    paging.link_next(request, response, following)
    fares = await health.of(session, [row.id for row in rows])
    return Page(data=[_view(row, fares[row.id]) for row in rows[:limit]], next_cursor=following)


@router.get("/{endpoint_id}", responses=documented(401, 403, 404, 422))
async def get_endpoint(
    request: Request, response: Response, endpoint_id: UUID, session: Reading, _caller: Reader
) -> EndpointDetail:
    """One endpoint, with what is known of its secrets."""
    return await _answered(session, response, await _existing(session, endpoint_id), _now(request))


@router.patch("/{endpoint_id}", responses=documented(400, 401, 403, 404, 409, 412, 422, 428))
async def change_endpoint(
    request: Request,
    response: Response,
    endpoint_id: UUID,
    body: EndpointChange,
    session: Writing,
    if_match: IfMatch,
    _caller: Writer,
) -> EndpointDetail:
    """Change an endpoint, or enable and disable it. Needs `If-Match`. Its headers are replaced together; an address on
    another server asks for them anew.
    """
    if not if_match:
        raise Problem(428)
    at = _now(request)
    wanted = _checked(body.model_dump(exclude_unset=True), _settings(request))
    try:
        changed = await endpoints.change(session, endpoint_id, wanted, version=_version(if_match), at=at)
    except endpoints.LeadsElsewhere as error:
        raise Problem(409, HEADERS_NEEDED.code, HEADERS_NEEDED.message, errors=[HEADERS_NEEDED]) from error
    if not changed:
        await _existing(session, endpoint_id)
        raise Problem(412)
    return await _answered(session, response, await _existing(session, endpoint_id), at)


@router.delete("/{endpoint_id}", status_code=204, responses=documented(401, 403, 404, 412, 422))
async def delete_endpoint(endpoint_id: UUID, session: Writing, if_match: IfMatch, _caller: Writer) -> None:
    """Take an endpoint away with its secrets. What was sent to it stays in the ledger."""
    if not await endpoints.remove(session, endpoint_id, version=_version(if_match)):
        await _existing(session, endpoint_id)
        raise Problem(412)


@router.post(
    "/{endpoint_id}/secrets",
    status_code=201,
    response_model=SecretCreated,
    responses=documented(400, 401, 403, 404, 409, 422),
)
async def rotate_secret(
    request: Request, endpoint_id: UUID, body: SecretIn, session: Writing, key: OptionalKey, _caller: Writer
) -> Response:
    """Make a new secret. The older ones sign beside it until `overlap_h` hours have passed."""
    at, settings = _now(request), _settings(request)
    if body.secret and body.algorithm is Algorithm.ED25519:
        raise invalid("/secret", "invalid_secret", "An Ed25519 key is always ours.", "En Ed25519-nyckel gör alltid vi.")
    overlap = timedelta(hours=body.overlap_h)

    async def work() -> Answer:
        await _existing(session, endpoint_id)
        secret = _secret(body.secret) or new_secret(body.algorithm)
        rotated = endpoints.rotate(session, endpoint_id, secret, overlap=overlap, seal=seal_of(settings), at=at)
        public = {"algorithm": body.algorithm, "public_key": public_key_of(secret)}
        return Answer(SecretCreated(id=await _fresh(rotated), **public, created_at=at, retires_at=None), 201)

    answer = await once(session, key, at, work)
    return await _showing_secret(session, answer, settings)


@router.post("/{endpoint_id}/test", responses=documented(401, 403, 404, 422))
async def try_endpoint(request: Request, endpoint_id: UUID, _caller: Writer) -> TrialResult:
    """Send a test webhook now and say what came back. The ledger is not touched; an answer of 2xx ends a series of
    failures.
    """
    state = request.app.state
    result = await trial.run(endpoint_id, settings=_settings(request), database=state.database, clock=state.clock)
    if result is None:
        raise Problem(404, "unknown_endpoint")
    return result


@router.get("/{endpoint_id}/attempts", responses=documented(401, 403, 404, 422))
async def list_attempts(
    request: Request,
    response: Response,
    endpoint_id: UUID,
    session: Reading,
    _caller: Reader,
    cursor: AttemptCursor = None,
    limit: Limit = 10,
) -> Page[EndpointAttempt]:
    """The last tries to reach the endpoint, newest first."""
    await _existing(session, endpoint_id)
    rows = await history.attempts(session, endpoint_id, before=history.decode(cursor), limit=limit + 1)
    following = history.encode(rows[limit - 1]) if len(rows) > limit else None
    paging.link_next(request, response, following)
    return Page(data=[EndpointAttempt.model_validate(row._asdict()) for row in rows[:limit]], next_cursor=following)


@router.post("/{endpoint_id}/recover", status_code=202, responses=documented(400, 401, 403, 404, 409, 422))
async def recover_endpoint(
    request: Request, endpoint_id: UUID, body: RecoverIn, session: Writing, _caller: Publisher
) -> Recovered:
    """Send everything once more that failed, or was put off, since then, and what was never sent because the endpoint
    was disabled: each item in its newest revision. Asking twice sends once.
    """
    endpoint = await _existing(session, endpoint_id)
    if endpoint.state == EndpointState.DISABLED:
        raise Problem(409, "endpoint_disabled", "Nothing is sent to a disabled endpoint; enable it first.")
    return Recovered(replanned=await history.recover(session, endpoint, body.since, _now(request)))


def _now(request: Request) -> datetime:
    at: datetime = request.app.state.clock.now()
    return at


def _settings(request: Request) -> DistributorSettings:
    settings: DistributorSettings = request.app.state.settings
    return settings


def _checked(wanted: dict[str, Any], settings: DistributorSettings) -> dict[str, Any]:
    """The fields as they are to be stored; 422 where the URL or the address cannot be."""
    if "url" in wanted:
        wanted["url"] = _url(wanted["url"], settings)
    if "contact_email" in wanted:
        wanted["contact_email"] = _address(wanted["contact_email"])
    if "headers" in wanted:
        wanted["headers"] = _sealed(wanted["headers"], settings)
    return wanted


def _url(text: str, settings: DistributorSettings) -> str:
    try:
        return checked_url(text, settings.address_policy, own_url=settings.public_url)
    except UrlNotAllowed as error:
        raise invalid("/url", "url_not_allowed", str(error), error.swedish) from error


def _address(text: str) -> str:
    try:
        valid = validate_email(text, check_deliverability=False)
    except EmailNotValidError as error:
        swedish = "Adressen är inte en giltig e-postadress. Skriv den så här: namn@exempel.se."
        raise invalid("/contact_email", "invalid_email", str(error), swedish) from error
    return f"{valid.local_part}@{valid.ascii_domain}"


def _sealed(headers: dict[str, str], settings: DistributorSettings) -> dict[str, str]:
    """Headers as they are stored: the names can be read, the values not."""
    twice = own_headers.repeated(headers)
    if twice is not None:
        raise invalid(pointer_to("headers", twice), *own_headers.TWICE)
    seal = seal_of(settings)
    return {name: seal.close(value) for name, value in headers.items()}


def _secret(text: str) -> str:
    if text:
        try:
            key_of(text)
        except InvalidSecret as error:
            raise invalid("/secret", "invalid_secret", str(error), "Hemligheten har fel form.") from error
    return text


async def _fresh(made: Awaitable[UUID]) -> UUID:
    """What `made` gives, with its complaints about the secret as problems."""
    try:
        return await made
    except endpoints.SecretReused as error:
        message = "The secret is in use already; let us make one."
        raise invalid("/secret", "secret_reused", message, "Hemligheten används redan.") from error
    except endpoints.TooManySecrets as error:
        detail = f"At most {endpoints.MAX_SECRETS} secrets sign at once; wait until one retires, or use overlap_h 0."
        raise Problem(409, "too_many_secrets", detail) from error


async def _existing(session: AsyncSession, endpoint_id: UUID) -> Endpoint:
    endpoint = await endpoints.find(session, endpoint_id)
    if endpoint is None:
        raise Problem(404, "unknown_endpoint")
    return endpoint


def _version(if_match: str) -> int | None:
    """The version that the caller read; `None` when any will do, 412 for what cannot be one of ours."""
    if if_match in ("", "*"):
        return None
    version = if_match.removeprefix('"').removesuffix('"')
    if (
        f'"{version}"' != if_match
        or not (version.isascii() and version.isdecimal())
        or len(version) > MAX_VERSION_DIGITS
    ):
        raise Problem(412)
    return int(version)


def _etag(endpoint: Endpoint) -> dict[str, str]:
    return {"ETag": f'"{endpoint.version}"'}


async def _answered(session: AsyncSession, response: Response, endpoint: Endpoint, at: datetime) -> EndpointDetail:
    response.headers.update(_etag(endpoint))
    return await _detail(session, endpoint, at)


async def _detail(session: AsyncSession, endpoint: Endpoint, at: datetime) -> EndpointDetail:
    secrets = await endpoints.secrets_of(session, endpoint.id, at)
    shown = [SecretView.model_validate(secret) for secret in secrets]
    fares = await health.of(session, [endpoint.id])
    return EndpointDetail(**_view(endpoint, fares[endpoint.id]).model_dump(), secrets=shown)


def _view(endpoint: Endpoint, fares: EndpointHealth) -> EndpointView:
    kept = {name: getattr(endpoint, name) for name in EndpointView.model_fields if name != "health"}
    return EndpointView(**kept, health=HealthView.model_validate(fares))


async def _showing_secret(session: AsyncSession, answer: Response, settings: DistributorSettings) -> Response:
    """The answer with the secret put in, which is stored nowhere but sealed."""
    shown = json.loads(bytes(answer.body))
    secret_id = UUID(shown["secrets"][0]["id"] if "secrets" in shown else shown["id"])
    sealed = await endpoints.sealed_secret(session, secret_id)
    try:
        secret = seal_of(settings).open(sealed) if sealed else None
        shown["secret"] = None if secret and public_key_of(secret) else secret
    except SecretUnreadable:
        shown["secret"] = None
    kept = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
    return JSONResponse(shown, answer.status_code, {**kept, "Cache-Control": "no-store"})
