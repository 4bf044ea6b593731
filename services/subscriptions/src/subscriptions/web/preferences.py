"""`/prenumeration/{token}`: what a person gets and why, and everything they can choose. GET changes nothing.

The link stands in every mail and works without signing in (`shared.web.visits` keeps its token out of sight), so the
page never shows the address or the name, and every change made here is confirmed by a mail with an undo link. Changes
are limited per person and hour, so that a scanner that submits every form it finds ends by itself; leaving is never
refused.
"""

from datetime import UTC, date, datetime, time

from fastapi import Depends, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import FormData

from shared.contracts.news import Audience, Locale
from shared.contracts.vocabulary import MUNICIPALITIES, TOPICS
from shared.http import no_store
from shared.routes import Router
from shared.web.dates import STOCKHOLM
from shared.web.origins import refuse_cross_site
from shared.web.pages import FormError, href
from shared.web.visits import PRIVATE
from subscriptions import choosing, consent, history, linking, suppressions, undoing
from subscriptions.choosing import Chosen
from subscriptions.frequencies import EVERYTHING, Frequency
from subscriptions.limits import TooOften
from subscriptions.links import PREFERENCES
from subscriptions.stops import UnknownSubscriber
from subscriptions.web import presenters
from subscriptions.web.fields import unknown
from subscriptions.web.limiting import count_change, count_undoing, pausing, refusal, refusal_to_undo
from subscriptions.web.posting import read_form, text, texts
from subscriptions.web.presenters import OPEN, Typed
from subscriptions.web.visiting import DeadLink, Visitor, dead_link, now, onward, visitor

router = Router(include_in_schema=False, dependencies=[Depends(no_store)])

LONGEST_PAUSE_YEARS = 5
CHANGES_SHOWN = 5


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


NOT_A_DATE = _("Skriv datumet så här: 2026-12-24.")
NOT_AHEAD = _("Välj ett datum som inte har varit än.")
TOO_FAR = _("Välj ett datum inom fem år.")
NOT_WHOLE = _("Formuläret kom inte fram som det ska, så ingenting är ändrat. Välj igen och spara.")
SAVE = "save"
WAYS_BACK = {"begin_again": choosing.begin_again, "mailbox_works": choosing.mailbox_works}


@router.api_route("/prenumeration/{token}", methods=["GET", "HEAD"])
async def show(request: Request, token: str) -> Response:
    try:
        async with request.app.state.database.reading() as session:
            found = await visitor(request, session, token)
            place = onward(request, PREFERENCES, token)
            return place or await _page(request, session, found, _stored(found, request))
    except DeadLink:
        return dead_link(request)


@router.post("/prenumeration/{token}")
async def save(request: Request, token: str) -> Response:
    refuse_cross_site(request)
    form = await read_form(request)
    database = request.app.state.database
    reached: TooOften | None = None
    try:
        async with database.transaction() as session:
            found = await visitor(request, session, token)
            done, errors = await _apply(request, session, found, form)
    except TooOften as error:
        reached, errors = error, [_refusal(request, found, form, error)]
    except (DeadLink, UnknownSubscriber):
        return dead_link(request)
    if not errors:
        return RedirectResponse(href(found.language, f"/prenumeration/{token}", sparat=done), 303, headers=PRIVATE)
    async with database.reading() as session:
        found, status = await visitor(request, session, token), 429 if reached else 422
        typed = _typed(form, found) if text(form, "action") == SAVE else _stored(found, request)
        answer = await _page(request, session, found, typed, errors=errors, status=status)
    return pausing(request, reached, answer) if reached else answer


async def _apply(
    request: Request, session: AsyncSession, found: Visitor, form: FormData
) -> tuple[str, list[FormError]]:
    links, at, action = request.app.state.links, now(request), text(form, "action")
    if action == "leave_all":
        await choosing.leave_all(session, links, found.id, at)
        return "avslutat", []
    if action in WAYS_BACK:
        await count_undoing(session, request, found.id, text(form, "ord"), at)
        await WAYS_BACK[action](session, links, found.id, at)
        return "igen", []
    await count_change(session, request, found.id, at)
    if action == "fresh_link":
        await linking.mail_fresh_link(session, links, found.person.subscriber, at)
        return "mejlat", []
    if action != SAVE:  # what a form lacks that cannot be read is no choice
        return "val", [FormError("innehall", NOT_WHOLE)]
    typed = _typed(form, found)
    errors = _faults(typed, found, at)
    if not errors:
        await choosing.choose(session, links, found.id, _chosen(typed, found), at)
    return "val", errors


def _refusal(request: Request, found: Visitor, form: FormData, error: TooOften) -> FormError:
    if text(form, "action") in WAYS_BACK:
        return refusal_to_undo(error, found.language, request.app.state.pages)
    return refusal(request, error, "innehall")


def _typed(form: FormData, found: Visitor) -> Typed:
    """What was sent. A form that was made before the page had a field leaves it as it is."""
    before = presenters.stored(found.person, found.roles, found.frequencies, "")
    own = {topic: text(form, f"frequency-{topic}") for topic in TOPICS if f"frequency-{topic}" in form}
    return Typed(
        audiences=frozenset(texts(form, "audiences")),
        topics=frozenset(texts(form, "topics")),
        municipalities=frozenset(texts(form, "municipalities")),
        frequency=text(form, "frequency") or before.frequency,
        topic_frequencies={**before.topic_frequencies, **own},
        locale=text(form, "locale") or before.locale,
        paused_until=text(form, "paused_until")[:40],
    )


def _faults(typed: Typed, found: Visitor, at: datetime) -> list[FormError]:
    """What cannot be saved, each with the mend; untranslated."""
    offered = {role.audience for role in found.roles} | OPEN
    faults = unknown(
        (
            ("audiences", typed.audiences, offered),
            ("topics", typed.topics, TOPICS),
            ("municipalities", typed.municipalities, MUNICIPALITIES),
            ("frequency", [typed.frequency], tuple(Frequency)),
            *((f"frequency-{topic}", [often], ("", *Frequency)) for topic, often in typed.topic_frequencies.items()),
            ("locale", [typed.locale], tuple(Locale)),
        )
    )
    fault = _pause_fault(typed.paused_until, at)
    return [*faults, FormError("paused_until", fault)] if fault else faults


def _pause_fault(typed: str, at: datetime) -> str:
    if not typed:
        return ""
    try:
        day = date.fromisoformat(typed)
    except ValueError:
        return NOT_A_DATE
    today = at.astimezone(STOCKHOLM).date()
    if day <= today:
        return NOT_AHEAD
    return TOO_FAR if day.year > today.year + LONGEST_PAUSE_YEARS else ""


def _chosen(typed: Typed, found: Visitor) -> Chosen:
    own = {topic: Frequency(often) for topic, often in typed.topic_frequencies.items() if often}
    return Chosen(
        {Audience(value) for value in typed.audiences},
        typed.topics,
        typed.municipalities,
        {EVERYTHING: Frequency(typed.frequency), **own},
        Locale(typed.locale),
        _pause_end(typed.paused_until),
        consent.shown(found.language.locale),
    )


def _pause_end(typed: str) -> datetime | None:
    """A pause until a day ends as that day begins, in Sweden."""
    if not typed:
        return None
    return datetime.combine(date.fromisoformat(typed), time(), STOCKHOLM).astimezone(UTC)


def _stored(found: Visitor, request: Request) -> Typed:
    until = found.person.subscriber.paused_until
    ahead = until is not None and until > now(request)
    day = until.astimezone(STOCKHOLM).date().isoformat() if until is not None and ahead else ""
    return presenters.stored(found.person, found.roles, found.frequencies, day)


async def _page(
    request: Request,
    session: AsyncSession,
    found: Visitor,
    typed: Typed,
    *,
    errors: list[FormError] | None = None,
    status: int = 200,
) -> Response:
    pages, locale = request.app.state.pages, found.language.locale
    stopped_by = await suppressions.standing(session, found.id)
    shown = presenters.preferences(
        found.person, found.roles, found.frequencies, typed, locale, now(request), stopped_by
    )
    answer: Response = pages.render(
        request,
        "preferences.html",
        found.language,
        status=status,
        headers=PRIVATE,
        shown=shown,
        consent=consent.newest_text(locale),
        changes=await _changes(request, session, found),
        saved=request.query_params.get("sparat", ""),
        errors=[FormError(error.field, pages.gettext(locale, error.message)) for error in errors or ()],
    )
    return answer


async def _changes(request: Request, session: AsyncSession, found: Visitor) -> list[presenters.Event]:
    shown, generation = [], found.person.subscriber.generation
    for change in await history.newest_changes(session, found.id, limit=CHANGES_SHOWN):
        open_to_undo = undoing.can_undo(change) and not await history.is_undone(session, change.id)
        undo = request.app.state.links.undo(change.id, generation) if open_to_undo else ""
        path = undo.removeprefix(request.app.state.settings.public_url)
        shown.append(presenters.event(change, found.roles, found.language.locale, path))
    return [entry for entry in shown if entry.sentences]
