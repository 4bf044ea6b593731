"""`/prenumerera`: anybody signs up, and confirms by the link in the mail. The answer is the same for every address.

GET of the link shows a page with a button, since mail scanners follow links; the POST confirms, and again shows the
same when it comes twice.
"""

from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from starlette.datastructures import FormData

from shared.contracts.news import Locale
from shared.contracts.vocabulary import MUNICIPALITIES, TOPICS
from shared.routes import Router
from shared.tokens import InvalidToken
from shared.web.origins import refuse_cross_site
from shared.web.pages import FormError, ReaderLanguage, reader_language
from shared.web.visits import PRIVATE
from subscriptions import addresses, consent, signing_up
from subscriptions.addresses import Address, InvalidAddress
from subscriptions.frequencies import Frequency
from subscriptions.limits import TooOften
from subscriptions.models import SignUp
from subscriptions.signing_up import UnknownSignUp, Wanted
from subscriptions.web import fields
from subscriptions.web.limiting import PAUSE, asks_refused, count_asks, pausing, refusal
from subscriptions.web.posting import read_form, text, texts
from subscriptions.wording import Wording

router = Router(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Typed:
    """The form as it was sent."""

    email: str = ""
    topics: frozenset[str] = frozenset()
    municipalities: frozenset[str] = frozenset()
    frequency: str = Frequency.IMMEDIATE
    locale: str = Locale.SV


@router.api_route("/prenumerera", methods=["GET", "HEAD"])
async def ask(request: Request) -> Response:
    return _form(request, Typed(locale=reader_language(request).locale))


@router.post("/prenumerera")
async def send(request: Request) -> Response:
    refuse_cross_site(request)
    typed = _typed(await read_form(request))
    language = reader_language(request)
    address, errors = _address(typed.email, language)
    errors += _faults(request, typed, language)
    if address is None or errors:
        return _form(request, typed, errors, status=422)
    state = request.app.state
    now = state.clock.now()
    try:
        async with state.database.transaction() as session:
            await count_asks(session, request, address, now)
            is_mailed = await signing_up.ask(session, state.links, _wanted(typed, address), now)
    except TooOften as error:
        return pausing(request, error, _form(request, typed, [refusal(request, error)], status=429))
    if not is_mailed:
        asks_refused.labels(PAUSE).inc()
    return _page(request, "signed_up.html", typed=typed)


@router.api_route("/prenumerera/bekrafta/{token}", methods=["GET", "HEAD"])
async def look(request: Request, token: str) -> Response:
    state = request.app.state
    try:
        sign_up_id = state.links.read_confirm(token)
        async with state.database.reading() as session:
            waiting = await signing_up.waiting(session, sign_up_id, state.clock.now())
    except (InvalidToken, UnknownSignUp):
        return _expired(request)
    if waiting is None:
        return _page(request, "confirmed.html", preferences="", is_stopped=False)
    return _page(request, "confirm.html", chosen=_words(request, waiting), consent=_consent(request))


@router.post("/prenumerera/bekrafta/{token}")
async def confirm(request: Request, token: str) -> Response:
    refuse_cross_site(request)
    await read_form(request)
    state = request.app.state
    text_shown = consent.shown(reader_language(request).locale)
    try:
        sign_up_id = state.links.read_confirm(token)
        async with state.database.transaction() as session:
            subscriber = await signing_up.confirm(session, state.links, sign_up_id, state.clock.now(), text_shown)
    except (InvalidToken, UnknownSignUp):
        return _expired(request)
    # Once the address has been changed, the mailbox that got this link may be somebody else's.
    link = state.links.preferences(subscriber.id, subscriber.generation) if subscriber.generation == 1 else ""
    return _page(
        request,
        "confirmed.html",
        preferences=link.removeprefix(state.settings.public_url),
        is_stopped=subscriber.suppressed_at is not None,
    )


def _typed(form: FormData) -> Typed:
    return Typed(
        email=text(form, "email")[:400],
        topics=frozenset(texts(form, "topics")),
        municipalities=frozenset(texts(form, "municipalities")),
        frequency=text(form, "frequency") or Frequency.IMMEDIATE,
        locale=text(form, "locale") or Locale.SV,
    )


def _address(typed: str, language: ReaderLanguage) -> tuple[Address | None, list[FormError]]:
    try:
        return addresses.parse(typed), []
    except InvalidAddress as error:
        message = error.message_sv if language.locale is Locale.SV else error.message
        return None, [FormError("email", message)]


def _faults(request: Request, typed: Typed, language: ReaderLanguage) -> list[FormError]:
    chosen = (
        ("topics", typed.topics, TOPICS),
        ("municipalities", typed.municipalities, MUNICIPALITIES),
        ("frequency", [typed.frequency], tuple(Frequency)),
        ("locale", [typed.locale], tuple(Locale)),
    )
    pages = request.app.state.pages
    return [FormError(fault.field, pages.gettext(language.locale, fault.message)) for fault in fields.unknown(chosen)]


def _wanted(typed: Typed, address: Address) -> Wanted:
    return Wanted(address, Locale(typed.locale), typed.topics, typed.municipalities, Frequency(typed.frequency))


def _form(request: Request, typed: Typed, errors: list[FormError] | None = None, *, status: int = 200) -> Response:
    locale = reader_language(request).locale
    return _page(
        request,
        "sign_up.html",
        status=status,
        typed=typed,
        errors=errors or [],
        consent=_consent(request),
        topics=fields.topic_choices(typed.topics, Wording(locale)),
        municipalities=fields.municipality_choices(typed.municipalities),
        frequencies=fields.frequency_choices(typed.frequency, Wording(locale)),
        languages_offered=fields.language_choices(typed.locale),
    )


def _words(request: Request, waiting: SignUp) -> dict[str, str]:
    """What was chosen, as the person who confirms reads it."""
    wording = Wording(reader_language(request).locale)
    return {
        "topics": wording.topics(waiting.topics),
        "municipalities": wording.municipalities(waiting.municipalities),
        "frequency": wording.frequency(waiting.frequency),
    }


def _consent(request: Request) -> str:
    return consent.newest_text(reader_language(request).locale)


def _expired(request: Request) -> Response:
    return _page(request, "sign_up_expired.html", status=404)


def _page(request: Request, template: str, *, status: int = 200, **names: Any) -> Response:
    answer: Response = request.app.state.pages.render(request, template, status=status, headers=PRIVATE, **names)
    return answer
