"""`/kansli/organisationer`: newsrooms with their desk and people, councils with their terms, agencies."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.vocabulary import MUNICIPALITIES
from shared.http import Reading
from shared.problems import Problem
from shared.routes import Router
from shared.web.pages import FormError, reader_language
from subscriptions import people
from subscriptions.desks import desks
from subscriptions.desks.models import Step
from subscriptions.models import Organisation, OrganisationKind, Role
from subscriptions.office import finding, places
from subscriptions.office.finding import Wanted
from subscriptions.schemas import OrganisationIn
from subscriptions.subscribing import ORGANISATION_OF
from subscriptions.web.fields import Choice, municipality_choices
from subscriptions.web.office.door import HOME, Office, SignedIn, done, now, page
from subscriptions.web.office.faults import fault
from subscriptions.web.office.listing import asked, kept, linked
from subscriptions.web.office.people import gone
from subscriptions.web.office.places import Line, Room, TypedPlace, member, place_fields, place_form, saved, typed_place
from subscriptions.web.office.wording import KINDS, OfficeWording
from subscriptions.web.posting import read_form, text

router = Router(include_in_schema=False)

PATH = f"{HOME}/organisationer"
SHOWN = 50
AUDIENCE_OF = {kind: audience for audience, kind in ORGANISATION_OF.items()}


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


ROOM = Room(PATH, _("Lägg till en organisation"), _("Ändra organisationen"), Problem(409, "organisation_exists"))
NO_KIND = _("Välj vad det är.")
NOT_A_HOLDER = _("Välj en av redaktionens adresser.")
STEPS = {
    Step.ASK: _("Nästa fråga om adress och bevakning"),
    Step.REMIND: _("Frågan är skickad, påminnelse"),
    Step.GIVE_UP: _("Påminnelsen är skickad, uppgift till kansliet"),
    Step.ADDRESS: _("Ingen redaktionsadress är vald"),
}


@dataclass(frozen=True, slots=True)
class DeskTold:
    """Where the question to a desk stands."""

    step: str
    due_at: datetime | None
    asked_at: datetime | None
    answered_at: datetime | None


@router.api_route(PATH, methods=["GET", "HEAD"])
async def listing(request: Request, office: SignedIn, session: Reading) -> Response:
    query, wording = kept(request, "sok", "slag", "kommun"), OfficeWording(reader_language(request).locale)
    kind = OrganisationKind(query["slag"]) if query["slag"] in tuple(OrganisationKind) else None
    area = query["kommun"] if query["kommun"] in MUNICIPALITIES else ""
    place = (asked(request, "efterslag"), asked(request, "efter"))
    after = place if all(place) else None
    found = await places.organisations(session, kind, query["sok"], area, after, SHOWN)
    counts = await places.members_of(session, Role.organisation_id, [row.id for row in found.places])
    further = {**query, **dict(zip(("efterslag", "efter"), found.after, strict=True))} if found.after else {}
    return page(
        request,
        office,
        "organisations.html",
        organisations=[_line(row, counts.get(row.id, 0), wording) for row in found.places],
        typed=query["sok"],
        is_filtered=any(query.values()),
        kinds=[Choice(str(key), wording.gettext(label), key == kind) for key, label in KINDS.items()],
        municipalities=municipality_choices({area}),
        beginning=linked(request, PATH, query) if after else "",
        following=linked(request, PATH, further) if further else "",
    )


@router.api_route(f"{PATH}/ny", methods=["GET", "HEAD"])
async def newcomer(request: Request, office: SignedIn) -> Response:
    return _form(request, office, TypedPlace(kind=asked(request, "slag")))


@router.post(f"{PATH}/ny")
async def add(request: Request, office: SignedIn) -> Response:
    typed = typed_place(await read_form(request))
    if typed.kind not in tuple(OrganisationKind):
        return _form(request, office, typed, [fault(request, "slag", NO_KIND)])

    async def work(session: AsyncSession) -> UUID:
        wanted, area = _wanted(typed)
        return await places.add_organisation(session, wanted.kind, wanted.name, area, now(request))

    key, errors = await saved(request, ROOM, work)
    return _form(request, office, typed, errors) if errors else done(request, f"{PATH}/{key}", "plats-tillagd")


@router.api_route(PATH + "/{organisation_id}", methods=["GET", "HEAD"])
async def show(request: Request, office: SignedIn, session: Reading, organisation_id: UUID) -> Response:
    row = await people.organisation(session, organisation_id)
    return gone(request, office) if row is None else await _page(request, office, session, row)


@router.api_route(PATH + "/{organisation_id}/andra", methods=["GET", "HEAD"])
async def edit(request: Request, office: SignedIn, session: Reading, organisation_id: UUID) -> Response:
    row = await people.organisation(session, organisation_id)
    if row is None:
        return gone(request, office)
    return _form(request, office, TypedPlace(row.name, row.municipalities, row.kind), whom=row.id)


@router.post(PATH + "/{organisation_id}/andra")
async def save(request: Request, office: SignedIn, organisation_id: UUID) -> Response:
    typed = typed_place(await read_form(request))

    async def work(session: AsyncSession) -> Organisation | None:
        nonlocal typed
        row = await people.organisation(session, organisation_id)
        if row is not None:
            typed = replace(typed, kind=row.kind)
            wanted, area = _wanted(typed)
            await places.change(session, row, wanted.name, area)
        return row

    row, errors = await saved(request, ROOM, work)
    if errors:
        return _form(request, office, typed, errors, whom=organisation_id)
    return gone(request, office) if row is None else done(request, f"{PATH}/{organisation_id}", "sparat")


@router.post(PATH + "/{organisation_id}/redaktionsadress")
async def name_desk(request: Request, office: SignedIn, organisation_id: UUID) -> Response:
    chosen, state = text(await read_form(request), "adress"), request.app.state
    async with state.database.transaction() as session:
        row = await people.organisation(session, organisation_id)
        found = await desks.holders(session, organisation_id)
        holder = next((holder for holder in found if str(holder.id) == chosen), None)
        if holder is not None:
            await desks.name_desk(session, organisation_id, holder, now(request), state.settings.desk_rhythm)
    if holder is not None:
        return done(request, f"{PATH}/{organisation_id}", "redaktionsadress")
    if row is None:
        return gone(request, office)
    async with state.database.reading() as session:
        return await _page(request, office, session, row, [fault(request, "adress", NOT_A_HOLDER)])


def _wanted(typed: TypedPlace) -> tuple[OrganisationIn, list[str]]:
    """Only a newsroom covers an area of its own."""
    wanted = OrganisationIn.model_validate({"kind": typed.kind, **place_fields(typed)})
    return wanted, wanted.municipalities if wanted.kind is OrganisationKind.NEWSROOM else []


def _line(row: Organisation, members: int, wording: OfficeWording) -> Line:
    kind = OrganisationKind(row.kind)
    words = [wording.gettext(KINDS[kind])]
    words += [wording.municipalities(row.municipalities)] if kind is OrganisationKind.NEWSROOM else []
    return Line(f"{PATH}/{row.id}", row.name, ", ".join(words), members)


def _form(
    request: Request,
    office: Office,
    typed: TypedPlace,
    errors: Sequence[FormError] = (),
    *,
    whom: UUID | None = None,
) -> Response:
    wording = OfficeWording(reader_language(request).locale)
    kinds = [Choice(str(key), wording.gettext(label), key == typed.kind) for key, label in KINDS.items()]
    has_area = whom is None or typed.kind == OrganisationKind.NEWSROOM
    offered = [] if whom else kinds
    return place_form(request, office, ROOM, typed, errors, whom=whom, kinds=offered, has_area=has_area)


async def _page(
    request: Request, office: Office, session: AsyncSession, row: Organisation, errors: Sequence[FormError] = ()
) -> Response:
    wording, kind, at = OfficeWording(reader_language(request).locale), OrganisationKind(row.kind), now(request)
    audience = AUDIENCE_OF[kind]
    desk = await desks.desk(session, row.id) if kind is OrganisationKind.NEWSROOM else None
    found = await finding.find(session, Wanted(organisation_id=row.id), None, SHOWN, at)
    desk_id = desk.subscriber_id if desk else None
    terms = await places.terms_of(session, row.id) if kind is OrganisationKind.COUNCIL else []
    return page(
        request,
        office,
        "organisation.html",
        status=422 if errors else 200,
        errors=list(errors),
        line=_line(row, 0, wording),
        kind=kind,
        audience=str(audience),
        id=str(row.id),
        members=[member(person, desk_id, wording, at) for person in found.people],
        has_more=found.after is not None,
        desk=_desk(desk, wording) if desk else None,
        terms=[
            (
                wording.municipalities(term.municipalities),
                wording.term(term.mandate_from, term.mandate_until),
                term.members,
            )
            for term in terms
        ],
    )


def _desk(desk: Any, wording: OfficeWording) -> DeskTold:
    step = Step(desk.step)
    due_at = None if step is Step.ADDRESS else desk.due_at
    return DeskTold(wording.gettext(STEPS[step]), due_at, desk.asked_at, desk.answered_at)
