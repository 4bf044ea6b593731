"""`/kansli/inloggningar`: who is signed in with one's own key, and an end to it from elsewhere.

Ending takes the key once more (OWASP ASVS 5.0, 7.5.2): whoever sits down at a browser that was left open cannot shut
its owner out. What ends is a row, so that the cookie opens nothing from the next request on. One's own ends by signing
out. Sessions of other keys are not shown: they end with their key.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from fastapi import Request, Response

from shared.http import Reading
from shared.routes import Router
from shared.web.pages import FormError
from subscriptions.limits import TooOften
from subscriptions.office import sessions
from subscriptions.office.models import OfficeSession
from subscriptions.web.limiting import pausing, refusal
from subscriptions.web.office.door import HOME, NO_KEY, Office, SignedIn, done, now, page, whose
from subscriptions.web.office.faults import fault
from subscriptions.web.office.people import gone
from subscriptions.web.posting import read_form, text

log = structlog.get_logger()
router = Router(include_in_schema=False)

PATH = f"{HOME}/inloggningar"
ALL_OTHERS = "alla-andra"


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


ANOTHER_KEY = _("Skriv samma nyckel som du loggade in med.")


@dataclass(frozen=True, slots=True)
class Line:
    """One session of the key."""

    path: str
    opened_at: datetime
    seen_at: datetime
    is_this: bool


@router.api_route(PATH, methods=["GET", "HEAD"])
async def listing(request: Request, office: SignedIn, session: Reading) -> Response:
    rows = await sessions.standing(session, office.session, request.app.state.settings.office_lasting, now(request))
    lines = [_line(row, office) for row in rows]
    return page(request, office, "sessions.html", lines=lines, all_others=f"{PATH}/{ALL_OTHERS}/avsluta")


@router.api_route(PATH + "/{which}/avsluta", methods=["GET", "HEAD"])
async def ask_to_end(request: Request, office: SignedIn, which: str) -> Response:
    return await _asking(request, office, which)


@router.post(PATH + "/{which}/avsluta")
async def end(request: Request, office: SignedIn, which: str) -> Response:
    key = text(await read_form(request), "nyckel")
    if not key:
        return await _asking(request, office, which, [fault(request, "nyckel", NO_KEY)], status=422)
    try:
        principal = await whose(request, key)
    except TooOften as error:
        refused = await _asking(request, office, which, [refusal(request, error, "nyckel")], status=429)
        return pausing(request, error, refused)
    if principal is None or principal.key_id != office.key_id:
        return await _asking(request, office, which, [fault(request, "nyckel", ANOTHER_KEY)], status=403)
    only = None if which == ALL_OTHERS else which
    async with request.app.state.database.transaction(quiet=True) as session:
        ended = await sessions.end_others(session, office.session, only)
    log.info("office_sessions_ended", key_id=office.key_id, count=ended)
    return done(request, PATH, "avslutad" if only else "avslutade")


async def _asking(
    request: Request, office: Office, which: str, errors: Sequence[FormError] = (), *, status: int = 200
) -> Response:
    """The form that takes the key. One that has ended in the meantime is gone; so is one's own, which signs out."""
    lasting = request.app.state.settings.office_lasting
    async with request.app.state.database.reading() as session:
        rows = await sessions.standing(session, office.session, lasting, now(request))
    found = [_line(row, office) for row in rows if row.handle == which]
    if which != ALL_OTHERS and (not found or found[0].is_this):
        return gone(request, office)
    only = found[0] if found else None
    return page(request, office, "end_session.html", status=status, errors=errors, only=only, back=PATH)


def _line(row: OfficeSession, office: Office) -> Line:
    is_this = row.token_sha256 == office.session.token_sha256
    return Line(f"{PATH}/{row.handle}/avsluta", row.opened_at, row.seen_at, is_this)
