"""`/prenumeration/uppgifter/{token}`: a person's own data, behind a link that was mailed within the last half hour.

Whoever opens it has just read the person's mail, so here, and only here, stand the address and the name. The address
is changed after the new one has confirmed it; erasing asks for the address in writing, which no scanner that submits
forms as they stand will give.
"""

from datetime import datetime

from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import FormData

from shared.contracts.news import Locale
from shared.http import no_store
from shared.routes import Router
from shared.tokens import Claim, InvalidToken
from shared.web.origins import refuse_cross_site
from shared.web.pages import FormError
from shared.web.visits import PRIVATE
from subscriptions import address_changes, addresses, erasing, exporting, people
from subscriptions.addresses import Address, InvalidAddress
from subscriptions.history import Source
from subscriptions.limits import TooOften
from subscriptions.links import FRESH
from subscriptions.models import Subscriber
from subscriptions.stops import UnknownSubscriber
from subscriptions.web import own_presenters
from subscriptions.web.limiting import count_asks, pausing, refusal
from subscriptions.web.posting import read_form, text
from subscriptions.web.visiting import DeadLink, language_of, linked, now, onward

router = Router(include_in_schema=False, dependencies=[Depends(no_store)])


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


NOT_YOURS = _("Skriv adressen som står ovanför, så vet vi att du menar det.")
SAME = _("Det är redan din adress.")


@router.api_route("/prenumeration/uppgifter/{token}", methods=["GET", "HEAD"])
async def show(request: Request, token: str) -> Response:
    try:
        async with request.app.state.database.reading() as session:
            owner = await _owner(request, session, token)
            return onward(request, FRESH, token) or await _page(request, session, owner)
    except DeadLink:
        return _ended(request)


@router.api_route("/prenumeration/uppgifter/{token}/export.json", methods=["GET", "HEAD"])
async def download(request: Request, token: str) -> Response:
    try:
        async with request.app.state.database.reading() as session:
            owner = await _owner(request, session, token)
            held = await exporting.held_about(session, owner.id)
            document = exporting.export(owner, held, f"{_mails(request)}/export.json")
    except DeadLink:
        return _ended(request)
    attached = {"Content-Disposition": 'attachment; filename="mina-uppgifter.json"'}
    return JSONResponse(document, headers={**PRIVATE, **attached})


@router.post("/prenumeration/uppgifter/{token}")
async def act(request: Request, token: str) -> Response:
    refuse_cross_site(request)
    form = await read_form(request)
    try:
        async with request.app.state.database.transaction() as session:
            owner = await _owner(request, session, token)
            do = _erase if text(form, "action") == "erase" else _move
            return await do(request, session, owner, form)
    except TooOften as error:
        return pausing(request, error, await _refused(request, token, form, refusal(request, error, "new_address")))
    except (DeadLink, UnknownSubscriber):
        return _ended(request)


async def _owner(request: Request, session: AsyncSession, token: str) -> Subscriber:
    try:
        claim: Claim = request.app.state.links.read_fresh(linked(request, FRESH, token), now(request))
    except InvalidToken as error:
        raise DeadLink from error
    row = await people.subscriber(session, claim.subject)
    if row is None or row.generation != claim.generation:
        raise DeadLink
    request.state.fresh = claim
    return row


def _mails(request: Request) -> str:
    """Where the owner's mails are shown, for as long as this link holds."""
    url: str = request.app.state.links.mails(request.state.fresh)
    return url


async def _move(request: Request, session: AsyncSession, owner: Subscriber, form: FormData) -> Response:
    wanted, fault = _read(request, owner, text(form, "new_address")[:400])
    if wanted is None:
        return await _page(request, session, owner, form, FormError("new_address", fault), status=422)
    at: datetime = now(request)
    await count_asks(session, request, wanted, at)
    await address_changes.ask(session, request.app.state.links, owner, wanted, at)
    return _done(request, owner, "asked")


async def _erase(request: Request, session: AsyncSession, owner: Subscriber, form: FormData) -> Response:
    typed = text(form, "own_address")[:400]
    try:
        mine = addresses.parse(typed).key == owner.address_key
    except InvalidAddress:
        mine = False
    if not mine:
        fault = request.app.state.pages.gettext(language_of(request, owner).locale, NOT_YOURS)
        return await _page(request, session, owner, form, FormError("own_address", fault), status=422)
    answer = _done(request, owner, "erased")
    await erasing.erase(session, owner.id, now(request), Source.PAGE)
    return answer


def _read(request: Request, owner: Subscriber, typed: str) -> tuple[Address | None, str]:
    locale = language_of(request, owner).locale
    try:
        wanted = addresses.parse(typed)
    except InvalidAddress as error:
        return None, error.message_sv if locale is Locale.SV else error.message
    if wanted.text == owner.address:
        same: str = request.app.state.pages.gettext(locale, SAME)
        return None, same
    return wanted, ""


async def _refused(request: Request, token: str, form: FormData, fault: FormError) -> Response:
    try:
        async with request.app.state.database.reading() as session:
            return await _page(request, session, await _owner(request, session, token), form, fault, status=429)
    except DeadLink:
        return _ended(request)


async def _page(
    request: Request,
    session: AsyncSession,
    owner: Subscriber,
    form: FormData | None = None,
    fault: FormError | None = None,
    *,
    status: int = 200,
) -> Response:
    language = language_of(request, owner)
    held = await exporting.held_about(session, owner.id)
    answer: Response = request.app.state.pages.render(
        request,
        "own_data.html",
        language,
        status=status,
        headers=PRIVATE,
        held=own_presenters.own_data(owner, held, language.locale),
        mails=_mails(request).removeprefix(request.app.state.settings.public_url),
        new_address=text(form, "new_address") if form else "",
        own_address=text(form, "own_address") if form else "",
        errors=[fault] if fault else [],
    )
    return answer


def _done(request: Request, owner: Subscriber, step: str) -> Response:
    answer: Response = request.app.state.pages.render(
        request, "own_data_done.html", language_of(request, owner), headers=PRIVATE, step=step
    )
    return answer


def _ended(request: Request) -> Response:
    answer: Response = request.app.state.pages.render(request, "fresh_link_ended.html", status=404, headers=PRIVATE)
    return answer
