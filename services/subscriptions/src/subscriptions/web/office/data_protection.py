"""`/kansli/dataskydd`: what the data-protection officer asks for: the register, its grounds, and what was weeded.

Beside it, a person's own extract, for somebody who asks for theirs by telephone or letter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from babel.dates import format_date
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from shared import extracts
from shared.contracts.news import Audience, Locale
from shared.http import Reading
from shared.routes import Router
from shared.web.dates import BABEL_LOCALES
from shared.web.pages import reader_language
from subscriptions import exporting, people, register, weeding_log
from subscriptions.consent import BASIS_OF, NEWEST, TEXTS, Basis
from subscriptions.register_api import CsvAnswer
from subscriptions.retention import Kept
from subscriptions.web.office.door import HOME, PRIVATE, SignedIn, now, page
from subscriptions.web.office.people import PATH as PEOPLE
from subscriptions.web.office.people import gone
from subscriptions.web.office.wording import AUDIENCES, BASES, OfficeWording
from subscriptions.weeding_log import Weeded

router = Router(include_in_schema=False)

PATH = f"{HOME}/dataskydd"
EXTRACT = f"{PATH}/registerutdrag.csv"
SHOWN = 100


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


WEEDED = {
    Weeded.SIGN_UPS: _("Anmälningar som ingen bekräftade"),
    Weeded.CONSENT: _("Prenumerationer med samtycke"),
    Weeded.PRESS_REGISTER: _("Redaktioner i pressregistret"),
    Weeded.PUBLIC_TASK: _("Tjänstepersoner, förtroendevalda och gruppmedlemmar"),
    Weeded.MANDATES: _("Mandat som är slut"),
    Weeded.INVITATIONS: _("Inbjudningar till grupper"),
    Weeded.IMPORTS: _("Importer"),
    Weeded.HISTORY: _("Historik för raderade personer"),
}
ENDS = {
    Basis.CONSENT: _("{days} dagar efter att personen har slutat eller adressen har slutat fungera"),
    Basis.PRESS_REGISTER: _("{days} dagar efter att adressen har slutat fungera"),
    Basis.PUBLIC_TASK: _("{days} dagar efter att adressen har slutat fungera"),
}
MANDATE_ENDS = _("Förtroendevalda dessutom {days} dagar efter mandatets sista dag")


@dataclass(frozen=True, slots=True)
class Ground:
    """A legal basis, whom it is for, and when it ends."""

    name: str
    audiences: str
    ends: Sequence[str]


@dataclass(frozen=True, slots=True)
class Text:
    """A version of what people consent to, in each language."""

    version: str
    is_newest: bool
    words: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Weeding:
    """A row of the weeding log."""

    day: str
    what: str
    ended: int
    erased: int


@router.api_route(PATH, methods=["GET", "HEAD"])
async def show(request: Request, office: SignedIn, session: Reading) -> Response:
    locale, settings = reader_language(request).locale, request.app.state.settings
    wording = OfficeWording(locale)
    return page(
        request,
        office,
        "data_protection.html",
        extract=EXTRACT,
        grounds=[_ground(basis, settings.kept, settings.mandate_kept_days, wording) for basis in Basis],
        texts=[
            Text(version, version == NEWEST, [(str(language), words) for language, words in of_version.items()])
            for version, of_version in TEXTS.items()
        ],
        weedings=[
            Weeding(_day(row.day, locale), wording.gettext(WEEDED[Weeded(row.what)]), row.ended, row.erased)
            for row in await weeding_log.newest(session, limit=SHOWN)
        ],
    )


@router.api_route(EXTRACT, methods=["GET", "HEAD"])
async def download(request: Request, office: SignedIn) -> Response:
    """The register extract, as the API gives it."""
    attached = {"Content-Disposition": 'attachment; filename="registerutdrag.csv"'}
    return CsvAnswer(register.lines(request.app.state.database), headers={**PRIVATE, **attached})


@router.api_route(PEOPLE + "/{subscriber_id}/utdrag.json", methods=["GET", "HEAD"])
async def download_person(request: Request, office: SignedIn, session: Reading, subscriber_id: UUID) -> Response:
    """What the person would get from their own page."""
    row = await people.subscriber(session, subscriber_id)
    if row is None:
        return gone(request, office)
    mails = mails_of(request, subscriber_id)
    document = exporting.export(row, await exporting.held_about(session, subscriber_id), f"{mails}/export.json")
    attached = {"Content-Disposition": f'attachment; filename="utdrag-{subscriber_id}.json"'}
    return JSONResponse(document, headers={**PRIVATE, **attached})


@router.api_route(PEOPLE + "/{subscriber_id}/mejl", methods=["GET", "HEAD"])
async def lead_to_mails(request: Request, office: SignedIn, subscriber_id: UUID) -> Response:
    """On to the mails that the person has got, which the distributor shows."""
    return Response(status_code=303, headers={**PRIVATE, "Location": mails_of(request, subscriber_id)})


def mails_of(request: Request, subscriber_id: UUID) -> str:
    """Where the person's mails are shown for the next half hour."""
    url: str = request.app.state.links.mails_of(subscriber_id, extracts.begun(now(request)))
    return url


def _ground(basis: Basis, kept: Kept, mandate_days: int, wording: OfficeWording) -> Ground:
    whose = [audience for audience, rests_on in BASIS_OF.items() if rests_on is basis]
    ends = [wording.gettext(ENDS[basis]).format(days=kept.of(basis).days)]
    if Audience.POLITICIAN in whose:
        ends.append(wording.gettext(MANDATE_ENDS).format(days=mandate_days))
    names = ", ".join(wording.gettext(AUDIENCES[audience]) for audience in whose)
    return Ground(wording.gettext(BASES[basis]), names, ends)


def _day(day: date, locale: Locale) -> str:
    return format_date(day, "d MMMM y", locale=BABEL_LOCALES[locale])
