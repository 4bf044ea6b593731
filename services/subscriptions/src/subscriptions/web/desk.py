"""`/prenumeration/redaktion/{token}`: is this still the right address and beat? Answered with one click.

GET changes nothing. A yes, or a wish for something else, is a POST; either can be sent again, and the newest wish is
the one that the editor sees. A scanner that submits forms as they stand wishes for nothing, and its yes, which comes
with the mail, is not believed without a word that a person writes. The page shows no address: the link stands in a
mail, and mails are forwarded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import FormData

from shared.contracts.news import Locale
from shared.contracts.vocabulary import MUNICIPALITIES, TOPICS
from shared.routes import Router
from shared.tokens import InvalidToken
from shared.web.origins import refuse_cross_site
from shared.web.pages import FormError, href
from shared.web.visits import PRIVATE
from subscriptions import addresses
from subscriptions.addresses import InvalidAddress
from subscriptions.desks import desks
from subscriptions.desks.desks import Held, UnknownDesk, Wish
from subscriptions.links import DESK
from subscriptions.web.fields import municipality_choices, topic_choices, unknown
from subscriptions.web.posting import read_form, text, texts
from subscriptions.web.visiting import dead_link, language_of, linked, now, onward
from subscriptions.wording import Wording

router = Router(include_in_schema=False)

LONGEST_MESSAGE = 1000


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


UNCLEAR = _("Välj ett av svaren.")
TOO_LONG = _("Skriv högst 1 000 tecken.")
WORDS = ("ja", "yes")
WRITE_IT = _(
    "Svaret kom så snart efter mejlet att det kan vara ett program som öppnar länkar. "
    "Skriv ordet ja i rutan, så vet vi att det är du."
)
NOTHING = _("Ändra något av det här, eller skriv vad som ska ändras.")


@dataclass(frozen=True, slots=True)
class Asked:
    """The page."""

    newsroom: str
    area: str
    topics: str
    municipality_choices: Sequence[object]
    topic_choices: Sequence[object]
    email: str
    message: str


@router.api_route("/prenumeration/redaktion/{token}", methods=["GET", "HEAD"])
async def ask(request: Request, token: str) -> Response:
    try:
        async with request.app.state.database.reading() as session:
            held = await _held(request, session, token)
    except UnknownDesk:
        return dead_link(request)
    return onward(request, DESK, token) or _page(request, held, _stored(held), [])


@router.post("/prenumeration/redaktion/{token}")
async def answer(request: Request, token: str) -> Response:
    refuse_cross_site(request)
    form = await read_form(request)
    state, answered = request.app.state, text(form, "answer")
    wish, errors = _typed(form), []
    try:
        async with state.database.transaction() as session:
            held = await _held(request, session, token)
            if answered == "yes":
                wish = _stored(held)
            errors = _faults(request, held, answered, wish, text(form, "ord"))
            if not errors:
                said = wish if answered == "change" else None
                await desks.answer(session, held, said, now(request), state.settings.desk_rhythm)
    except UnknownDesk:
        return dead_link(request)
    if errors:
        return _page(request, held, wish, errors, status=422)
    language = language_of(request, held.subscriber)
    place = href(language, request.url.path, svar="andring" if answered == "change" else "ja")
    return RedirectResponse(place, 303, headers=PRIVATE)


async def _held(request: Request, session: AsyncSession, token: str) -> Held:
    try:
        claim = request.app.state.links.read_desk(linked(request, DESK, token))
    except InvalidToken as error:
        raise UnknownDesk from error
    return await desks.held(session, claim.subject, claim.generation)


def _stored(held: Held) -> Wish:
    return Wish("", held.newsroom.municipalities, held.subscriber.topics, "")


def _typed(form: FormData) -> Wish:
    chosen, topics = frozenset(texts(form, "municipalities")), frozenset(texts(form, "topics"))
    return Wish(text(form, "email")[:400], chosen, topics, text(form, "message"))


def _faults(request: Request, held: Held, answered: str, wish: Wish, written: str) -> list[FormError]:
    locale, rhythm = language_of(request, held.subscriber).locale, request.app.state.settings.desk_rhythm

    def fault(field: str, message: str) -> FormError:
        return FormError(field, request.app.state.pages.gettext(locale, message))

    if answered == "yes":
        is_meant = written.casefold().strip(' .!”"') in WORDS
        doubted = not is_meant and desks.may_be_a_program(held.desk, now(request), rhythm)
        return [fault("ord", WRITE_IT)] if doubted else []
    if answered != "change":
        return [fault("svar", UNCLEAR)]
    choices = (("municipalities", wish.municipalities, MUNICIPALITIES), ("topics", wish.topics, TOPICS))
    faults = [fault(error.field, error.message) for error in unknown(choices)]
    if wish.address:
        try:
            addresses.parse(wish.address)
        except InvalidAddress as error:
            faults.append(FormError("email", error.message_sv if locale is Locale.SV else error.message))
    if len(wish.message) > LONGEST_MESSAGE:
        faults.append(fault("message", TOO_LONG))
    return faults or ([fault("message", NOTHING)] if wish == _stored(held) else [])


def _page(request: Request, held: Held, wish: Wish, errors: list[FormError], *, status: int = 200) -> Response:
    language = language_of(request, held.subscriber)
    wording = Wording(language.locale)
    shown = Asked(
        newsroom=held.newsroom.name,
        area=wording.municipalities(held.newsroom.municipalities),
        topics=wording.topics(held.subscriber.topics),
        municipality_choices=municipality_choices(wish.municipalities),
        topic_choices=topic_choices(wish.topics, wording),
        email=wish.address,
        message=wish.message,
    )
    page: Response = request.app.state.pages.render(
        request,
        "desk.html",
        language,
        status=status,
        headers=PRIVATE,
        shown=shown,
        answered="" if errors else request.query_params.get("svar", ""),
        errors=errors,
    )
    return page
