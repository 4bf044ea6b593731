"""`/kansli/grupper`: a collaboration group's members, contact person and open invitations.

What happens to a member is told to them, and to the contact person with a link that undoes it, as when the contact
person does it themselves.
"""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import FormData

from shared.contracts.news import Audience, Locale
from shared.contracts.vocabulary import MUNICIPALITIES
from shared.http import Reading
from shared.plain_text import is_line
from shared.problems import Problem
from shared.routes import Router
from shared.web.pages import FormError, reader_language
from subscriptions import addresses, people
from subscriptions.addresses import InvalidAddress
from subscriptions.groups import invitations, members
from subscriptions.groups.invitations import Invited
from subscriptions.groups.models import GroupContact
from subscriptions.history import Source
from subscriptions.models import NAME_LENGTH, Group, Role
from subscriptions.office import places
from subscriptions.schemas import GroupIn
from subscriptions.stops import UnknownSubscriber
from subscriptions.web.fields import language_choices, municipality_choices
from subscriptions.web.office.door import HOME, Office, SignedIn, done, now, page
from subscriptions.web.office.faults import fault
from subscriptions.web.office.listing import asked, kept, linked
from subscriptions.web.office.people import gone
from subscriptions.web.office.places import Line, Room, TypedPlace, member, place_fields, place_form, saved, typed_place
from subscriptions.web.office.wording import OfficeWording
from subscriptions.web.posting import read_form, text

router = Router(include_in_schema=False)

PATH = f"{HOME}/grupper"
SHOWN = 50


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


ROOM = Room(PATH, _("Lägg till en grupp"), _("Ändra gruppen"), Problem(409, "group_exists"))
NOT_A_MEMBER = _("Välj en av gruppens medlemmar.")
LONG_NAME = _("Skriv ett namn på högst 200 tecken.")


@dataclass(frozen=True, slots=True)
class Waiting:
    """Somebody who is invited and has not answered."""

    id: UUID
    name: str
    address: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class TypedInvitation:
    """The form of an invitation, as it was sent."""

    email: str = ""
    name: str = ""
    locale: str = Locale.SV


@router.api_route(PATH, methods=["GET", "HEAD"])
async def listing(request: Request, office: SignedIn, session: Reading) -> Response:
    query, wording = kept(request, "sok", "kommun"), OfficeWording(reader_language(request).locale)
    area, after = query["kommun"] if query["kommun"] in MUNICIPALITIES else "", asked(request, "efter")
    found = await places.groups(session, query["sok"], area, (after,) if after else None, SHOWN)
    counts = await places.members_of(session, Role.group_id, [row.id for row in found.places])
    following = linked(request, PATH, {**query, "efter": found.after[0]}) if found.after else ""
    return page(
        request,
        office,
        "groups.html",
        groups=[
            Line(f"{PATH}/{row.id}", row.name, wording.municipalities(row.municipalities), counts.get(row.id, 0))
            for row in found.places
        ],
        typed=query["sok"],
        is_filtered=any(query.values()),
        municipalities=municipality_choices({area}),
        beginning=linked(request, PATH, query) if after else "",
        following=following,
    )


@router.api_route(f"{PATH}/ny", methods=["GET", "HEAD"])
async def newcomer(request: Request, office: SignedIn) -> Response:
    return place_form(request, office, ROOM, TypedPlace())


@router.post(f"{PATH}/ny")
async def add(request: Request, office: SignedIn) -> Response:
    typed = typed_place(await read_form(request))

    async def work(session: AsyncSession) -> UUID:
        wanted = GroupIn.model_validate(place_fields(typed))
        return await places.add_group(session, wanted.name, wanted.municipalities, now(request))

    group_id, errors = await saved(request, ROOM, work)
    if errors:
        return place_form(request, office, ROOM, typed, errors)
    return done(request, f"{PATH}/{group_id}", "plats-tillagd")


@router.api_route(PATH + "/{group_id}", methods=["GET", "HEAD"])
async def show(request: Request, office: SignedIn, session: Reading, group_id: UUID) -> Response:
    row = await people.group(session, group_id)
    return gone(request, office) if row is None else await _page(request, office, session, row)


@router.api_route(PATH + "/{group_id}/andra", methods=["GET", "HEAD"])
async def edit(request: Request, office: SignedIn, session: Reading, group_id: UUID) -> Response:
    row = await people.group(session, group_id)
    if row is None:
        return gone(request, office)
    return place_form(request, office, ROOM, TypedPlace(row.name, row.municipalities), whom=row.id)


@router.post(PATH + "/{group_id}/andra")
async def save(request: Request, office: SignedIn, group_id: UUID) -> Response:
    typed = typed_place(await read_form(request))

    async def work(session: AsyncSession) -> Group | None:
        row = await people.group(session, group_id)
        if row is not None:
            wanted = GroupIn.model_validate(place_fields(typed))
            await places.change(session, row, wanted.name, wanted.municipalities)
        return row

    row, errors = await saved(request, ROOM, work)
    if errors:
        return place_form(request, office, ROOM, typed, errors, whom=group_id)
    return gone(request, office) if row is None else done(request, f"{PATH}/{group_id}", "sparat")


@router.post(PATH + "/{group_id}/kontaktperson")
async def name_contact(request: Request, office: SignedIn, group_id: UUID) -> Response:
    chosen = text(await read_form(request), "kontakt")

    async def work(session: AsyncSession, group: Group) -> list[FormError]:
        found = await members.members(session, group_id)
        member = next((member for member in found if str(member.id) == chosen), None)
        if member is None:
            return [fault(request, "kontakt", NOT_A_MEMBER)]
        await members.name_contact(session, request.app.state.links, group, member, now(request))
        return []

    return await _carry_out(request, office, group_id, work, "kontaktperson")


@router.post(PATH + "/{group_id}/bort")
async def remove(request: Request, office: SignedIn, group_id: UUID) -> Response:
    member_id = _id(text(await read_form(request), "medlem"))

    async def work(session: AsyncSession, group: Group) -> list[FormError]:
        contact = await session.get(GroupContact, group_id)
        if member_id is not None and (contact is None or contact.subscriber_id != member_id):
            with contextlib.suppress(UnknownSubscriber):
                links, at = request.app.state.links, now(request)
                await members.remove(session, links, group, member_id, at, Source.OFFICE)
        return []

    return await _carry_out(request, office, group_id, work, "medlem-borta")


@router.post(PATH + "/{group_id}/bjud-in")
async def invite(request: Request, office: SignedIn, group_id: UUID) -> Response:
    typed = _typed(await read_form(request))
    invited, errors = _read(request, typed)

    async def work(session: AsyncSession, group: Group) -> list[FormError]:
        if invited is not None:
            await invitations.invite(session, request.app.state.links, group, invited, now(request))
        return errors

    return await _carry_out(request, office, group_id, work, "inbjuden", typed)


@router.post(PATH + "/{group_id}/ta-tillbaka")
async def take_back(request: Request, office: SignedIn, group_id: UUID) -> Response:
    invitation_id = _id(text(await read_form(request), "inbjudan"))

    async def work(session: AsyncSession, group: Group) -> list[FormError]:
        at = now(request)
        for invitation in await invitations.waiting(session, group_id, at):
            if invitation.id == invitation_id:
                await invitations.take_back(session, request.app.state.links, group, invitation, at)
        return []

    return await _carry_out(request, office, group_id, work, "inbjudan-borta")


Work = Callable[[AsyncSession, Group], Awaitable[list[FormError]]]


async def _carry_out(
    request: Request, office: Office, group_id: UUID, work: Work, what: str, typed: TypedInvitation | None = None
) -> Response:
    """Do it in one transaction and show the group; where something is wrong, with the fault."""
    database = request.app.state.database
    async with database.transaction() as session:
        group = await people.group(session, group_id)
        errors = await work(session, group) if group is not None else []
    if group is None:
        return gone(request, office)
    if not errors:
        return done(request, f"{PATH}/{group_id}", what)
    async with database.reading() as session:
        return await _page(request, office, session, group, typed, errors)


def _id(typed: str) -> UUID | None:
    try:
        return UUID(typed)
    except ValueError:
        return None


def _typed(form: FormData) -> TypedInvitation:
    return TypedInvitation(text(form, "email")[:400], text(form, "name")[:400], text(form, "locale") or Locale.SV)


def _read(request: Request, typed: TypedInvitation) -> tuple[Invited | None, list[FormError]]:
    errors, address = [], None
    try:
        address = addresses.parse(typed.email)
    except InvalidAddress as error:
        swedish = reader_language(request).locale is Locale.SV
        errors.append(FormError("email", error.message_sv if swedish else error.message))
    name = " ".join(typed.name.split())
    if len(name) > NAME_LENGTH or not is_line(name):
        errors.append(fault(request, "name", LONG_NAME))
    if address is None or errors:
        return None, errors
    locale = Locale(typed.locale) if typed.locale in tuple(Locale) else Locale.SV
    return Invited(address, name, locale), []


async def _page(
    request: Request,
    office: Office,
    session: AsyncSession,
    group: Group,
    typed: TypedInvitation | None = None,
    errors: Sequence[FormError] = (),
) -> Response:
    wording, at, typed = OfficeWording(reader_language(request).locale), now(request), typed or TypedInvitation()
    contact = await session.get(GroupContact, group.id)
    found = await members.members(session, group.id)
    return page(
        request,
        office,
        "group.html",
        status=422 if errors else 200,
        errors=list(errors),
        line=Line(f"{PATH}/{group.id}", group.name, wording.municipalities(group.municipalities), len(found)),
        audience=str(Audience.COLLABORATION_GROUP),
        members=[member(row, contact.subscriber_id if contact else None, wording, at) for row in found],
        waiting=[
            Waiting(row.id, row.name or row.address or "", (row.address or "") if row.name else "", row.expires_at)
            for row in await invitations.waiting(session, group.id, at)
        ],
        typed=typed,
        languages_offered=language_choices(typed.locale),
    )
