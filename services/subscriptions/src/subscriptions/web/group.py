"""`/prenumeration/grupp/…`: a contact person invites and removes.

The standing link opens a page that invites and names nobody. Who the members are, and who is invited, stands behind a
link that was mailed to the contact person within the last half hour, since mails are forwarded. GET changes nothing.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import FormData

from shared.contracts.news import Locale
from shared.plain_text import is_line
from shared.routes import Router
from shared.tokens import InvalidToken
from shared.web.origins import refuse_cross_site
from shared.web.pages import FormError, href
from shared.web.visits import PRIVATE
from subscriptions import addresses, links
from subscriptions.addresses import Address, InvalidAddress
from subscriptions.groups import invitations, members
from subscriptions.groups.invitations import Invited
from subscriptions.groups.letters import MEMBERS, addressee
from subscriptions.groups.members import Held, UnknownGroup
from subscriptions.limits import TooOften
from subscriptions.links import GROUP
from subscriptions.mailing import request_mail
from subscriptions.models import NAME_LENGTH
from subscriptions.stops import UnknownSubscriber
from subscriptions.web.fields import language_choices
from subscriptions.web.limiting import count_asks, pausing, refusal
from subscriptions.web.posting import read_form, text
from subscriptions.web.visiting import dead_link, language_of, linked, now, onward
from subscriptions.wording import Wording

router = Router(include_in_schema=False)


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


NOT_A_NAME = _("Skriv namnet på en rad, med högst 200 tecken.")
UNCLEAR = _("Välj något av det som går att göra på sidan.")


@dataclass(frozen=True, slots=True)
class Member:
    """One member, for the contact person's eyes within the half hour."""

    id: UUID
    name: str
    address: str
    is_contact: bool


@dataclass(frozen=True, slots=True)
class Waiting:
    """One open invitation."""

    id: UUID
    name: str
    address: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Typed:
    """The form that invites."""

    email: str = ""
    name: str = ""
    locale: str = Locale.SV


@router.api_route("/prenumeration/grupp/{token}", methods=["GET", "HEAD"])
async def show(request: Request, token: str) -> Response:
    try:
        async with request.app.state.database.reading() as session:
            held = await _held(request, session, token)
            return onward(request, GROUP, token) or await _page(request, session, held, Typed())
    except UnknownGroup:
        return dead_link(request)


@router.post("/prenumeration/grupp/{token}")
async def act(request: Request, token: str) -> Response:
    refuse_cross_site(request)
    form = await read_form(request)
    action, typed = text(form, "action"), _typed(form)
    try:
        async with request.app.state.database.transaction() as session:
            held = await _held(request, session, token)
            if action == "members":
                return await _mail_members(request, session, held)
            invited, errors = _read(request, held, typed, action)
            if invited is None:
                return await _page(request, session, held, typed, errors, status=422)
            await count_asks(session, request, invited.address, now(request))
            await invitations.invite(session, request.app.state.links, held.group, invited, now(request))
    except UnknownGroup:
        return dead_link(request)
    except TooOften as error:
        return pausing(request, error, await _refused(request, token, typed, refusal(request, error)))
    return _done(request, held, "inbjuden")


@router.api_route("/prenumeration/grupp/medlemmar/{token}", methods=["GET", "HEAD"])
async def show_members(request: Request, token: str) -> Response:
    try:
        async with request.app.state.database.reading() as session:
            held = await _held_fresh(request, session, token)
            return onward(request, links.MEMBERS, token) or await _members_page(request, session, held)
    except UnknownGroup:
        return _ended(request)


@router.post("/prenumeration/grupp/medlemmar/{token}")
async def change_members(request: Request, token: str) -> Response:
    refuse_cross_site(request)
    form = await read_form(request)
    try:
        async with request.app.state.database.transaction() as session:
            held = await _held_fresh(request, session, token)
            done = await _change(request, session, held, form)
    except UnknownGroup:
        return _ended(request)
    return RedirectResponse(
        href(language_of(request, held.subscriber), request.url.path, klart=done), 303, headers=PRIVATE
    )


async def _held(request: Request, session: AsyncSession, token: str) -> Held:
    try:
        claim = request.app.state.links.read_group(linked(request, GROUP, token))
    except InvalidToken as error:
        raise UnknownGroup from error
    return await members.held(session, claim.subject, claim.generation)


async def _held_fresh(request: Request, session: AsyncSession, token: str) -> Held:
    try:
        claim = request.app.state.links.read_members(linked(request, links.MEMBERS, token), now(request))
    except InvalidToken as error:
        raise UnknownGroup from error
    return await members.held(session, claim.subject, claim.generation)


async def _mail_members(request: Request, session: AsyncSession, held: Held) -> Response:
    state, at, mine = request.app.state, now(request), held.subscriber
    await count_asks(session, request, Address(mine.address, mine.address_key), at)
    link = state.links.members(held.group.id, held.contact.generation, at)
    await request_mail(session, addressee(state.links, mine), MEMBERS, link, at, group=held.group.name)
    return _done(request, held, "mejlat")


async def _change(request: Request, session: AsyncSession, held: Held, form: FormData) -> str:
    """Remove a member, or take back an invitation; what is not there (any more) changes nothing."""
    state, at = request.app.state, now(request)
    member_id, invitation_id = _id(text(form, "remove")), _id(text(form, "withdraw"))
    if member_id is not None and member_id != held.subscriber.id:
        with contextlib.suppress(UnknownSubscriber):
            await members.remove(session, state.links, held.group, member_id, at)
        return "borttagen"
    open_ones = {invitation.id: invitation for invitation in await invitations.waiting(session, held.group.id, at)}
    if invitation_id in open_ones:
        await invitations.take_back(session, state.links, held.group, open_ones[invitation_id], at)
        return "tillbakatagen"
    return ""


def _id(typed: str) -> UUID | None:
    try:
        return UUID(typed)
    except ValueError:
        return None


def _typed(form: FormData) -> Typed:
    return Typed(text(form, "email")[:400], text(form, "name")[:400], text(form, "locale") or Locale.SV)


def _read(request: Request, held: Held, typed: Typed, action: str) -> tuple[Invited | None, list[FormError]]:
    locale = language_of(request, held.subscriber).locale

    def fault(field: str, message: str) -> FormError:
        return FormError(field, request.app.state.pages.gettext(locale, message))

    if action != "invite" or typed.locale not in tuple(Locale):
        return None, [fault("email", UNCLEAR)]
    errors = []
    address: Address | None = None
    try:
        address = addresses.parse(typed.email)
    except InvalidAddress as error:
        errors.append(FormError("email", error.message_sv if locale is Locale.SV else error.message))
    name = " ".join(typed.name.split(" "))
    if len(name) > NAME_LENGTH or not is_line(name):
        errors.append(fault("name", NOT_A_NAME))
    if address is None or errors:
        return None, errors
    return Invited(address, name, Locale(typed.locale)), []


async def _refused(request: Request, token: str, typed: Typed, error: FormError) -> Response:
    try:
        async with request.app.state.database.reading() as session:
            held = await _held(request, session, token)
            return await _page(request, session, held, typed, [error], status=429)
    except UnknownGroup:
        return dead_link(request)


def _done(request: Request, held: Held, done: str) -> Response:
    place = href(language_of(request, held.subscriber), request.url.path, klart=done)
    return RedirectResponse(place, 303, headers=PRIVATE)


async def _page(
    request: Request,
    session: AsyncSession,
    held: Held,
    typed: Typed,
    errors: Sequence[FormError] = (),
    *,
    status: int = 200,
) -> Response:
    language = language_of(request, held.subscriber)
    return _rendered(
        request,
        held,
        "group.html",
        status=status,
        area=Wording(language.locale).municipalities(held.group.municipalities),
        members=await members.count(session, held.group.id),
        invited=await invitations.count(session, held.group.id, now(request)),
        typed=typed,
        languages_offered=language_choices(typed.locale),
        errors=list(errors),
    )


async def _members_page(request: Request, session: AsyncSession, held: Held) -> Response:
    found = await members.members(session, held.group.id)
    waiting = await invitations.waiting(session, held.group.id, now(request))
    standing = request.app.state.links.group(held.group.id, held.contact.generation)
    return _rendered(
        request,
        held,
        "group_members.html",
        members=[Member(row.id, row.name, row.address, row.id == held.subscriber.id) for row in found],
        waiting=[Waiting(row.id, row.name, row.address or "", row.expires_at) for row in waiting],
        standing=standing.removeprefix(request.app.state.settings.public_url),
    )


def _rendered(request: Request, held: Held, template: str, *, status: int = 200, **names: Any) -> Response:
    answer: Response = request.app.state.pages.render(
        request,
        template,
        language_of(request, held.subscriber),
        status=status,
        headers=PRIVATE,
        group=held.group.name,
        done="" if names.get("errors") else request.query_params.get("klart", ""),
        **names,
    )
    return answer


def _ended(request: Request) -> Response:
    answer: Response = request.app.state.pages.render(request, "group_members_ended.html", status=404, headers=PRIVATE)
    return answer
