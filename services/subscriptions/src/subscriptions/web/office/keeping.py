"""`/kansli/personer/…`: the office adds, changes, stops and erases people, by the use cases of the API.

What cannot be saved comes back with the fault beside its field and everything that was typed. Two who change the same
person: the later one is told. Erasing has a page of its own, since nobody can take it back.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any
from uuid import UUID

from fastapi import Request, Response
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import FormData

from shared.contracts.news import STRONGEST_FIRST, Audience, Locale
from shared.http import Reading
from shared.problems import Problem
from shared.routes import Router
from shared.web.pages import FormError, reader_language
from subscriptions import erasing, people, subscribing, suppressions
from subscriptions.history import Source
from subscriptions.models import Subscriber
from subscriptions.office.indexing import keep_words_of
from subscriptions.people import RoleRow, role_id
from subscriptions.schemas import RoleIn, SubscriberIn, SubscriberPatch
from subscriptions.stops import UnknownSubscriber, changing
from subscriptions.subscribing import ORGANISATION_OF
from subscriptions.suppressions import BY_OTHERS, NOTE_LENGTH, SuppressionReason
from subscriptions.web.fields import Choice, language_choices, municipality_choices, topic_choices
from subscriptions.web.office.door import Office, SignedIn, done, now, page
from subscriptions.web.office.faults import fault, faults_of
from subscriptions.web.office.people import PATH, gone
from subscriptions.web.office.wording import AUDIENCES
from subscriptions.web.posting import read_form, text, texts
from subscriptions.wording import Wording

router = Router(include_in_schema=False)

PLACES_OFFERED = 500
FIELDS = {
    "/address": "email",
    "/name": "name",
    "/locale": "locale",
    "/topics": "topics",
    "/municipalities": "municipalities",
    "/roles": "malgrupp",
    "subscriber_exists": "email",
    "precondition_failed": "innehall",
}


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


NO_AUDIENCE = _("Välj en målgrupp.")
UNKNOWN_PLACE = _(
    "Det finns ingen redaktion, nämnd, myndighet eller grupp med det namnet för målgruppen. Lägg till den först."
)
NOT_A_DATE = _("Skriv datumet så här: 2026-12-24.")
ENDS_FIRST = _("Sista dagen är före den första.")
HELD_ALREADY = _("Personen har redan den rollen.")
LONG_NOTE = _("Skriv högst 200 tecken.")


@dataclass(frozen=True, slots=True)
class TypedPerson:
    """The form of a person, as it was sent or as the database has it."""

    email: str = ""
    name: str = ""
    locale: str = Locale.SV
    topics: frozenset[str] = frozenset()
    municipalities: frozenset[str] = frozenset()
    version: int = 0


@dataclass(frozen=True, slots=True)
class TypedRole:
    """The form of a role; `place` is the name of an organisation or a group."""

    audience: str = ""
    place: str = ""
    areas: frozenset[str] = frozenset()
    first_day: str = ""
    last_day: str = ""


@router.api_route(f"{PATH}/ny", methods=["GET", "HEAD"])
async def newcomer(request: Request, office: SignedIn, session: Reading) -> Response:
    role = TypedRole(request.query_params.get("malgrupp", ""), request.query_params.get("plats", ""))
    return await _person_form(request, office, session, TypedPerson(), role)


@router.post(f"{PATH}/ny")
async def add(request: Request, office: SignedIn) -> Response:
    form = await read_form(request)
    typed, typed_role = _typed_person(form), _typed_role(form)
    try:
        async with request.app.state.database.transaction() as session:
            role = await _read_role(request, session, typed_role)
            wanted = SubscriberIn.model_validate({**_fields(typed), "roles": [role]})
            subscriber_id = await subscribing.add(session, wanted, now(request))
            await keep_words_of(session, subscriber_id)
    except _Faulty as error:
        errors = error.errors
    except (Problem, ValidationError) as error:
        errors = faults_of(request, error, FIELDS)
    else:
        return done(request, f"{PATH}/{subscriber_id}", "tillagd")
    async with request.app.state.database.reading() as session:
        return await _person_form(request, office, session, typed, typed_role, errors=errors)


@router.api_route(PATH + "/{subscriber_id}/andra", methods=["GET", "HEAD"])
async def edit(request: Request, office: SignedIn, session: Reading, subscriber_id: UUID) -> Response:
    row = await people.subscriber(session, subscriber_id)
    if row is None:
        return gone(request, office)
    typed = TypedPerson(row.address, row.name, row.locale, row.topics, row.municipalities, row.version)
    return await _person_form(request, office, session, typed, None, whom=row)


@router.post(PATH + "/{subscriber_id}/andra")
async def save(request: Request, office: SignedIn, subscriber_id: UUID) -> Response:
    typed = _typed_person(await read_form(request))

    async def change(session: AsyncSession) -> None:
        patch = SubscriberPatch.model_validate(_fields(typed))
        await subscribing.change(session, subscriber_id, patch, lambda version: version == typed.version, now(request))
        await keep_words_of(session, subscriber_id)

    async def again(session: AsyncSession, row: Subscriber, errors: list[FormError]) -> Response:
        newest = replace(typed, version=row.version)
        return await _person_form(request, office, session, newest, None, whom=row, errors=errors)

    return await _carry_out(request, office, subscriber_id, change, again, "sparat")


@router.api_route(PATH + "/{subscriber_id}/roller", methods=["GET", "HEAD"])
async def new_role(request: Request, office: SignedIn, session: Reading, subscriber_id: UUID) -> Response:
    row = await people.subscriber(session, subscriber_id)
    return gone(request, office) if row is None else await _role_form(request, office, session, row, TypedRole())


@router.post(PATH + "/{subscriber_id}/roller")
async def add_role(request: Request, office: SignedIn, subscriber_id: UUID) -> Response:
    typed = _typed_role(await read_form(request))

    async def change(session: AsyncSession) -> None:
        held = await _held(session, subscriber_id)
        role = await _read_role(request, session, typed)
        if _id_of(subscriber_id, role) in {_id_of(subscriber_id, other) for other in held}:
            raise _Faulty([fault(request, "malgrupp", HELD_ALREADY)])
        await _give_roles(request, session, subscriber_id, [*held, role])

    async def again(session: AsyncSession, row: Subscriber, errors: list[FormError]) -> Response:
        return await _role_form(request, office, session, row, typed, errors)

    return await _carry_out(request, office, subscriber_id, change, again, "roll")


@router.post(PATH + "/{subscriber_id}/roller/bort")
async def drop_role(request: Request, office: SignedIn, subscriber_id: UUID) -> Response:
    dropped = text(await read_form(request), "roll")

    async def change(session: AsyncSession) -> None:
        held = await _held(session, subscriber_id)
        kept = [role for role in held if str(_id_of(subscriber_id, role)) != dropped]
        if len(kept) < len(held):
            await _give_roles(request, session, subscriber_id, kept)

    return await _carry_out(request, office, subscriber_id, change, None, "roll-borta")


@router.api_route(PATH + "/{subscriber_id}/stoppa", methods=["GET", "HEAD"])
async def ask_to_stop(request: Request, office: SignedIn, session: Reading, subscriber_id: UUID) -> Response:
    row = await people.subscriber(session, subscriber_id)
    return gone(request, office) if row is None else page(request, office, "stop.html", whom=_whom(row), note="")


@router.post(PATH + "/{subscriber_id}/stoppa")
async def stop(request: Request, office: SignedIn, subscriber_id: UUID) -> Response:
    note = " ".join(text(await read_form(request), "note").split())

    async def change(session: AsyncSession) -> None:
        if len(note) > NOTE_LENGTH:
            raise _Faulty([fault(request, "note", LONG_NOTE)])
        at, why, source = now(request), SuppressionReason.MANUAL, Source.OFFICE
        async with changing(session, subscriber_id, at, source) as person:
            await suppressions.suppress(session, person.subscriber, why, source, at, note)

    async def again(_session: AsyncSession, row: Subscriber, errors: list[FormError]) -> Response:
        return page(request, office, "stop.html", status=422, whom=_whom(row), note=note, errors=errors)

    return await _carry_out(request, office, subscriber_id, change, again, "stoppad")


@router.post(PATH + "/{subscriber_id}/upphav")
async def lift(request: Request, office: SignedIn, subscriber_id: UUID) -> Response:
    async def change(session: AsyncSession) -> None:
        async with changing(session, subscriber_id, now(request), Source.OFFICE) as person:
            await suppressions.lift(session, person.subscriber, BY_OTHERS, Source.OFFICE, now(request))

    return await _carry_out(request, office, subscriber_id, change, None, "upphavt")


@router.api_route(PATH + "/{subscriber_id}/radera", methods=["GET", "HEAD"])
async def ask_to_erase(request: Request, office: SignedIn, session: Reading, subscriber_id: UUID) -> Response:
    row = await people.subscriber(session, subscriber_id)
    return gone(request, office) if row is None else page(request, office, "erase.html", whom=_whom(row))


@router.post(PATH + "/{subscriber_id}/radera")
async def erase(request: Request, office: SignedIn, subscriber_id: UUID) -> Response:
    try:
        async with request.app.state.database.transaction() as session:
            await erasing.erase(session, subscriber_id, now(request), Source.OFFICE)
    except UnknownSubscriber:
        return gone(request, office)
    return done(request, PATH, "raderad")


class _Faulty(Exception):
    """The form has faults; nothing was done."""

    def __init__(self, errors: list[FormError]) -> None:
        super().__init__()
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Whom:
    """Whom a page is about."""

    path: str
    name: str
    address: str


def _whom(row: Subscriber) -> Whom:
    return Whom(f"{PATH}/{row.id}", row.name or row.address, row.address)


Again = Callable[[AsyncSession, Subscriber, list[FormError]], Awaitable[Response]]


async def _carry_out(
    request: Request,
    office: Office,
    subscriber_id: UUID,
    change: Callable[[AsyncSession], Awaitable[None]],
    again: Again | None,
    what: str,
) -> Response:
    """Do it in one transaction and go to the person; where something is wrong, show the form again."""
    try:
        async with request.app.state.database.transaction() as session:
            await change(session)
    except UnknownSubscriber:
        return gone(request, office)
    except _Faulty as error:
        errors = error.errors
    except (Problem, ValidationError) as error:
        errors = faults_of(request, error, FIELDS)
    else:
        return done(request, f"{PATH}/{subscriber_id}", what)
    async with request.app.state.database.reading() as session:
        row = await people.subscriber(session, subscriber_id)
        if row is None or again is None:
            return gone(request, office)
        return await again(session, row, errors)


def _typed_person(form: FormData) -> TypedPerson:
    version = text(form, "version")
    return TypedPerson(
        text(form, "email")[:400],
        text(form, "name")[:400],
        text(form, "locale") or Locale.SV,
        frozenset(texts(form, "topics")),
        frozenset(texts(form, "municipalities")),
        int(version) if version.isascii() and version.isdigit() else 0,
    )


def _typed_role(form: FormData) -> TypedRole:
    return TypedRole(
        text(form, "malgrupp"),
        text(form, "plats")[:400],
        frozenset(texts(form, "omraden")),
        text(form, "fran")[:40],
        text(form, "till")[:40],
    )


def _fields(typed: TypedPerson) -> dict[str, Any]:
    return {
        "address": typed.email,
        "name": typed.name,
        "locale": typed.locale,
        "topics": sorted(typed.topics),
        "municipalities": sorted(typed.municipalities),
    }


async def _read_role(request: Request, session: AsyncSession, typed: TypedRole) -> RoleIn:
    """The role that the form names; `_Faulty` with all that is wrong."""
    if typed.audience not in tuple(Audience):
        raise _Faulty([fault(request, "malgrupp", NO_AUDIENCE)])
    audience, errors = Audience(typed.audience), []
    organisation_id, group_id = await _place(session, audience, typed.place)
    if audience is not Audience.PUBLIC and organisation_id is None and group_id is None:
        errors.append(fault(request, "plats", UNKNOWN_PLACE))
    elected = audience is Audience.POLITICIAN
    first, last = (_day(typed.first_day), _day(typed.last_day)) if elected else (None, None)
    if elected and typed.first_day and first is None:
        errors.append(fault(request, "fran", NOT_A_DATE))
    if elected and typed.last_day and last is None:
        errors.append(fault(request, "till", NOT_A_DATE))
    if first and last and last < first:
        errors.append(fault(request, "till", ENDS_FIRST))
    if errors:
        raise _Faulty(errors)
    return RoleIn(
        audience=audience,
        organisation_id=organisation_id,
        group_id=group_id,
        municipalities=sorted(typed.areas) if audience not in subscribing.WITHOUT_AREA else [],
        mandate_from=first,
        mandate_until=last,
    )


async def _place(session: AsyncSession, audience: Audience, name: str) -> tuple[UUID | None, UUID | None]:
    """The organisation or the group of that name."""
    if audience is Audience.COLLABORATION_GROUP:
        group = await people.group_named(session, name)
        return None, group.id if group else None
    kind = ORGANISATION_OF.get(audience)
    organisation = await people.organisation_named(session, kind, name) if kind else None
    return organisation.id if organisation else None, None


def _day(typed: str) -> date | None:
    try:
        return date.fromisoformat(typed)
    except ValueError:
        return None


async def _held(session: AsyncSession, subscriber_id: UUID) -> list[RoleIn]:
    """The roles as they are, nobody else changing them meanwhile."""
    if not await people.hold(session, subscriber_id):
        raise UnknownSubscriber
    return [_as_given(role) for role in (await people.roles_of(session, [subscriber_id]))[subscriber_id]]


def _as_given(role: RoleRow) -> RoleIn:
    return RoleIn(
        audience=role.audience,
        organisation_id=role.organisation_id,
        group_id=role.group_id,
        municipalities=sorted(role.municipalities),
        mandate_from=role.mandate_from,
        mandate_until=role.mandate_until,
    )


def _id_of(subscriber_id: UUID, role: RoleIn) -> UUID:
    return role_id(subscriber_id, role.audience, role.organisation_id or role.group_id, role.mandate_from)


async def _give_roles(request: Request, session: AsyncSession, subscriber_id: UUID, roles: Sequence[RoleIn]) -> None:
    patch = SubscriberPatch(roles=list(roles))
    await subscribing.change(session, subscriber_id, patch, lambda _version: True, now(request))


async def _person_form(
    request: Request,
    office: Office,
    session: AsyncSession,
    typed: TypedPerson,
    role: TypedRole | None,
    *,
    whom: Subscriber | None = None,
    errors: list[FormError] | None = None,
) -> Response:
    wording = Wording(reader_language(request).locale)
    return page(
        request,
        office,
        "person_form.html",
        status=422 if errors else 200,
        errors=errors or [],
        typed=typed,
        whom=_whom(whom) if whom else None,
        topics=topic_choices(typed.topics, wording),
        municipalities=municipality_choices(typed.municipalities),
        languages_offered=language_choices(typed.locale),
        **(await _role_fields(request, session, role or TypedRole())),
    )


async def _role_form(
    request: Request,
    office: Office,
    session: AsyncSession,
    row: Subscriber,
    typed: TypedRole,
    errors: list[FormError] | None = None,
) -> Response:
    return page(
        request,
        office,
        "role_form.html",
        status=422 if errors else 200,
        errors=errors or [],
        whom=_whom(row),
        **(await _role_fields(request, session, typed)),
    )


async def _role_fields(request: Request, session: AsyncSession, typed: TypedRole) -> dict[str, Any]:
    wording = Wording(reader_language(request).locale)
    return {
        "role": typed,
        "audiences": [
            Choice(str(audience), wording.gettext(AUDIENCES[audience]), audience == typed.audience)
            for audience in STRONGEST_FIRST
        ],
        "areas": municipality_choices(typed.areas),
        "places": await people.place_names(session, limit=PLACES_OFFERED),
    }
