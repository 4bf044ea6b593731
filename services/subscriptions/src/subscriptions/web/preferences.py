"""`/prenumeration/{token}`: what a person gets and why, and everything they can choose. GET changes nothing.

The link stands in every mail and works without signing in, so the page never shows the address. Whatever is wrong
with a link, the answer is the same page, which offers to mail a new one (`/prenumeration`).
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import FormData

from shared.contracts.news import Audience, Locale
from shared.contracts.vocabulary import MUNICIPALITIES, TOPICS
from shared.http import no_store
from shared.tokens import InvalidToken
from shared.web.dates import STOCKHOLM
from shared.web.pages import FormError, ReaderLanguage, href, reader_language
from subscriptions import choosing, people
from subscriptions.choosing import Chosen
from subscriptions.models import Subscriber
from subscriptions.people import RoleRow
from subscriptions.stops import Person, UnknownSubscriber
from subscriptions.web.fields import unknown
from subscriptions.web.posting import read_form, refuse_cross_site, text, texts
from subscriptions.web.presenters import OPEN, Typed, preferences, stored

router = APIRouter(include_in_schema=False, dependencies=[Depends(no_store)])

PRIVATE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex, nofollow"}
LONGEST_PAUSE_YEARS = 5


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


NOT_A_DATE = _("Skriv datumet så här: 2026-12-24.")
NOT_AHEAD = _("Välj ett datum som inte har varit än.")
TOO_FAR = _("Välj ett datum inom fem år.")


class DeadLink(Exception):
    """The link opens nothing: never ours, retired, or its person is gone."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whoever holds the link, as the database has them."""

    person: Person
    roles: list[RoleRow]
    language: ReaderLanguage


@router.api_route("/prenumeration/{token}", methods=["GET", "HEAD"])
async def show(request: Request, token: str) -> Response:
    try:
        async with request.app.state.database.reading() as session:
            visitor = await _visitor(request, session, token)
    except DeadLink:
        return dead_link(request)
    typed = stored(visitor.person, visitor.roles, _pause_day(visitor.person.subscriber, _now(request)))
    return _page(request, visitor, typed)


@router.post("/prenumeration/{token}")
async def save(request: Request, token: str) -> Response:
    refuse_cross_site(request)
    form = await read_form(request)
    try:
        async with request.app.state.database.transaction() as session:
            visitor = await _visitor(request, session, token)
            done, errors = await _apply(session, visitor, form, _now(request))
    except (DeadLink, UnknownSubscriber):
        return dead_link(request)
    if errors:
        return _page(request, visitor, _typed(form), errors=errors, status=422)
    return RedirectResponse(href(visitor.language, f"/prenumeration/{token}", sparat=done), 303, headers=PRIVATE)


def dead_link(request: Request) -> Response:
    """The same answer whatever is wrong with the link: it tells nobody anything, and helps whoever it belonged to."""
    return request.app.state.pages.render(  # type: ignore[no-any-return]
        request, "dead_link.html", status=404, headers=PRIVATE
    )


async def _visitor(request: Request, session: AsyncSession, token: str) -> Visitor:
    try:
        claim = request.app.state.links.read_preferences(token)
    except InvalidToken as error:
        raise DeadLink from error
    row = await people.subscriber(session, claim.subject)
    if row is None or row.generation != claim.generation:
        raise DeadLink
    left = await people.left_by(session, [row.id])
    roles = await people.roles_of(session, [row.id])
    return Visitor(Person(row, left[row.id]), roles[row.id], language_of(request, row))


def language_of(request: Request, row: Subscriber) -> ReaderLanguage:
    """The language chosen on the page, else the subscriber's own."""
    language = reader_language(request)
    return language if language.chosen else ReaderLanguage(Locale(row.locale))


async def _apply(session: AsyncSession, visitor: Visitor, form: FormData, now: datetime) -> tuple[str, list[FormError]]:
    subscriber_id = visitor.person.subscriber.id
    action = text(form, "action")
    if action == "leave_all":
        await choosing.leave_all(session, subscriber_id, now)
        return "avslutat", []
    if action == "begin_again":
        await choosing.begin_again(session, subscriber_id, now)
        return "igen", []
    errors = _faults(_typed(form), visitor, now)
    if not errors:
        await choosing.choose(session, subscriber_id, _chosen(_typed(form)), now)
    return "val", errors


def _typed(form: FormData) -> Typed:
    return Typed(
        audiences=frozenset(texts(form, "audiences")),
        topics=frozenset(texts(form, "topics")),
        municipalities=frozenset(texts(form, "municipalities")),
        paused_until=text(form, "paused_until")[:40],
    )


def _faults(typed: Typed, visitor: Visitor, now: datetime) -> list[FormError]:
    """What cannot be saved, each with the mend; untranslated."""
    offered = {role.audience for role in visitor.roles} | OPEN
    faults = unknown(
        (
            ("audiences", typed.audiences, offered),
            ("topics", typed.topics, TOPICS),
            ("municipalities", typed.municipalities, MUNICIPALITIES),
        )
    )
    fault = _pause_fault(typed.paused_until, now)
    return [*faults, FormError("paused_until", fault)] if fault else faults


def _pause_fault(typed: str, now: datetime) -> str:
    if not typed:
        return ""
    try:
        day = date.fromisoformat(typed)
    except ValueError:
        return NOT_A_DATE
    today = now.astimezone(STOCKHOLM).date()
    if day <= today:
        return NOT_AHEAD
    return TOO_FAR if day.year > today.year + LONGEST_PAUSE_YEARS else ""


def _chosen(typed: Typed) -> Chosen:
    return Chosen(
        {Audience(value) for value in typed.audiences},
        typed.topics,
        typed.municipalities,
        _pause_end(typed.paused_until),
    )


def _pause_end(typed: str) -> datetime | None:
    """A pause until a day ends as that day begins, in Sweden."""
    if not typed:
        return None
    return datetime.combine(date.fromisoformat(typed), time(), STOCKHOLM).astimezone(UTC)


def _pause_day(row: Subscriber, now: datetime) -> str:
    if row.paused_until is None or row.paused_until <= now:
        return ""
    return row.paused_until.astimezone(STOCKHOLM).date().isoformat()


def _page(
    request: Request, visitor: Visitor, typed: Typed, *, errors: list[FormError] | None = None, status: int = 200
) -> Response:
    pages, locale = request.app.state.pages, visitor.language.locale

    def gettext(message: str) -> str:
        translated: str = pages.gettext(locale, message)
        return translated

    shown = preferences(visitor.person, visitor.roles, typed, locale, gettext, _now(request))
    answer: Response = pages.render(
        request,
        "preferences.html",
        visitor.language,
        status=status,
        headers=PRIVATE,
        shown=shown,
        saved=request.query_params.get("sparat", ""),
        errors=[FormError(error.field, gettext(error.message)) for error in errors or ()],
    )
    return answer


def _now(request: Request) -> datetime:
    now: datetime = request.app.state.clock.now()
    return now
