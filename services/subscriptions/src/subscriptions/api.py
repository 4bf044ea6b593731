"""The API of `subscriptions`: subscribers, organisations, groups and the editor's preview."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Header, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from shared import paging
from shared.contracts.news import Audience, Locale
from shared.http import Reading, Writing
from shared.idempotency import Answer, OptionalKey, once
from shared.keys import Reader, Writer
from shared.paging import Cursor, Limit, Page
from shared.problems import Problem, documented
from shared.routes import Router
from shared.web.dates import STOCKHOLM
from subscriptions import erasing, people, preview, stops, subscribing
from subscriptions.audience import Target
from subscriptions.frequencies import Frequencies, as_told, frequencies_of
from subscriptions.history import Source
from subscriptions.models import Group, Organisation, OrganisationKind, Subscriber
from subscriptions.people import RoleRow
from subscriptions.schemas import (
    GroupIn,
    GroupOut,
    OrganisationIn,
    OrganisationOut,
    PreviewIn,
    PreviewOut,
    RoleOut,
    SubscriberIn,
    SubscriberOut,
    SubscriberPatch,
)
from subscriptions.states import state_of

router = Router(prefix="/api/subscriptions/v1", responses=documented(401, 403, 422))
IfMatch = Annotated[str | None, Header(description="the ETag that you read")]


@router.post(
    "/subscribers", status_code=201, response_model=SubscriberOut, responses=documented(400, 409, 410, 413, 415)
)
async def add_subscriber(
    request: Request, wanted: SubscriberIn, session: Writing, key: OptionalKey, _: Writer
) -> Response:
    """Add a person or a newsroom's desk."""
    now = _now(request)

    async def work() -> Answer:
        subscriber_id = await subscribing.add(session, wanted, now)
        shown = await _show(session, subscriber_id, now)
        place = f"{router.prefix}/subscribers/{subscriber_id}"
        return Answer(shown, 201, {"Location": place, "ETag": _etag(shown.version)})

    return await once(session, key, now, work)


@router.get("/subscribers")
async def list_subscribers(
    request: Request,
    response: Response,
    session: Reading,
    _: Reader,
    limit: Limit = 50,
    cursor: Cursor = None,
    audience: Annotated[Audience | None, Query(description="only who has a role in it")] = None,
) -> Page[SubscriberOut]:
    """Subscribers in the order in which they came."""
    after = paging.decode(cursor)
    rows = await people.subscribers(session, after=after, limit=limit + 1, audience=audience)
    shown = await _shown(session, list(rows[:limit]), _now(request))
    return _page(request, response, shown, len(rows) > limit)


@router.get("/subscribers/{subscriber_id}", responses=documented(404))
async def read_subscriber(
    request: Request, response: Response, subscriber_id: UUID, session: Reading, _: Reader
) -> SubscriberOut:
    """One subscriber; the ETag goes into `If-Match` of a change."""
    shown = await _show(session, subscriber_id, _now(request))
    response.headers["ETag"] = _etag(shown.version)
    return shown


@router.patch("/subscribers/{subscriber_id}", responses=documented(400, 404, 409, 412, 413, 415, 428))
async def change_subscriber(
    request: Request,
    response: Response,
    subscriber_id: UUID,
    patch: SubscriberPatch,
    session: Writing,
    _: Writer,
    if_match: IfMatch = None,
) -> SubscriberOut:
    """Change what the body names."""
    if if_match is None:
        raise Problem(428)
    now = _now(request)
    try:
        await subscribing.change(session, subscriber_id, patch, lambda version: _covers(if_match, version), now)
    except stops.UnknownSubscriber as error:
        raise Problem(404) from error
    shown = await _show(session, subscriber_id, now)
    response.headers["ETag"] = _etag(shown.version)
    return shown


@router.delete("/subscribers/{subscriber_id}", status_code=204, responses=documented(404))
async def erase_subscriber(request: Request, subscriber_id: UUID, session: Writing, _: Writer) -> None:
    """Erase everything held about a subscriber, here and (by event) in the delivery ledger."""
    try:
        await erasing.erase(session, subscriber_id, _now(request), Source.OFFICE)
    except stops.UnknownSubscriber as error:
        raise Problem(404) from error


@router.post(
    "/organisations", status_code=201, response_model=OrganisationOut, responses=documented(400, 409, 413, 415)
)
async def add_organisation(
    request: Request, wanted: OrganisationIn, session: Writing, key: OptionalKey, _: Writer
) -> Response:
    """Add a newsroom, a council or board, or an agency."""
    now = _now(request)

    async def work() -> Answer:
        row = await people.insert_organisation(session, wanted.kind, wanted.name, wanted.municipalities, now)
        if row is None:
            existing = await people.organisation_named(session, wanted.kind, wanted.name)
            raise _exists("organisation_exists", existing)
        return Answer(_organisation(row), 201)

    return await once(session, key, now, work)


@router.get("/organisations")
async def list_organisations(
    request: Request,
    response: Response,
    session: Reading,
    _: Reader,
    limit: Limit = 50,
    cursor: Cursor = None,
    kind: OrganisationKind | None = None,
) -> Page[OrganisationOut]:
    """Organisations in the order in which they came."""
    rows = await people.organisations(session, after=paging.decode(cursor), limit=limit + 1, kind=kind)
    return _page(request, response, [_organisation(row) for row in rows[:limit]], len(rows) > limit)


@router.post("/groups", status_code=201, response_model=GroupOut, responses=documented(400, 409, 413, 415))
async def add_group(request: Request, wanted: GroupIn, session: Writing, key: OptionalKey, _: Writer) -> Response:
    """Add a local collaboration group."""
    now = _now(request)

    async def work() -> Answer:
        row = await people.insert_group(session, wanted.name, wanted.municipalities, now)
        if row is None:
            raise _exists("group_exists", await people.group_named(session, wanted.name))
        return Answer(_group(row), 201)

    return await once(session, key, now, work)


@router.get("/groups")
async def list_groups(
    request: Request, response: Response, session: Reading, _: Reader, limit: Limit = 50, cursor: Cursor = None
) -> Page[GroupOut]:
    """Groups in the order in which they came."""
    rows = await people.groups(session, after=paging.decode(cursor), limit=limit + 1)
    return _page(request, response, [_group(row) for row in rows[:limit]], len(rows) > limit)


@router.post("/audience-preview", responses=documented(400, 413, 415))
async def preview_audience(request: Request, wanted: PreviewIn, session: Reading, _: Reader) -> PreviewOut:
    """Who would get an item with these audiences, municipalities and topics, right now."""
    now = _now(request)
    target = Target(
        frozenset(wanted.audiences),
        frozenset(wanted.municipalities),
        frozenset(wanted.topics),
        now.astimezone(STOCKHOLM).date(),
    )
    return await preview.preview(session, target, now)


async def _show(session: AsyncSession, subscriber_id: UUID, now: datetime) -> SubscriberOut:
    row = await people.subscriber(session, subscriber_id)
    if row is None:
        raise Problem(404)
    return (await _shown(session, [row], now))[0]


async def _shown(session: AsyncSession, rows: list[Subscriber], now: datetime) -> list[SubscriberOut]:
    ids = [row.id for row in rows]
    roles, left = await people.roles_of(session, ids), await people.left_by(session, ids)
    chosen = await frequencies_of(session, ids)
    return [_subscriber(row, roles[row.id], left[row.id], chosen.get(row.id, {}), now) for row in rows]


def _subscriber(
    row: Subscriber, roles: list[RoleRow], left: set[Audience], chosen: Frequencies, now: datetime
) -> SubscriberOut:
    return SubscriberOut(
        id=row.id,
        address=row.address,
        name=row.name,
        locale=Locale(row.locale),
        state=state_of(row, now),
        roles=[_role(role) for role in roles],
        topics=sorted(row.topics),
        municipalities=sorted(row.municipalities),
        frequencies=as_told(chosen),
        left_audiences=sorted(left),
        paused_until=row.paused_until,
        version=row.version,
        created_at=row.created_at,
    )


def _role(row: RoleRow) -> RoleOut:
    return RoleOut(
        audience=row.audience,
        organisation_id=row.organisation_id,
        group_id=row.group_id,
        name=row.name,
        municipalities=sorted(row.municipalities),
        mandate_from=row.mandate_from,
        mandate_until=row.mandate_until,
    )


def _organisation(row: Organisation) -> OrganisationOut:
    return OrganisationOut(
        id=row.id,
        kind=OrganisationKind(row.kind),
        name=row.name,
        municipalities=sorted(row.municipalities),
        created_at=row.created_at,
    )


def _group(row: Group) -> GroupOut:
    return GroupOut(id=row.id, name=row.name, municipalities=sorted(row.municipalities), created_at=row.created_at)


def _page(request: Request, response: Response, shown: list[Any], more: bool) -> Page[Any]:
    cursor = paging.encode(shown[-1].id) if more else None
    paging.link_next(request, response, cursor)
    return Page(data=shown, next_cursor=cursor)


def _exists(code: str, existing: Organisation | Group | None) -> Problem:
    return Problem(409, code, f"There is one of that name: {existing.id if existing else ''}.")


def _etag(version: int) -> str:
    return f'"{version}"'


def _covers(if_match: str, version: int) -> bool:
    """RFC 9110, section 13.1.1: a list of strong tags, or `*`."""
    tags = [tag.strip() for tag in if_match.split(",")]
    return "*" in tags or _etag(version) in tags


def _now(request: Request) -> datetime:
    now: datetime = request.app.state.clock.now()
    return now
