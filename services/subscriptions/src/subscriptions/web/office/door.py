"""`/kansli/logga-in`: a key is exchanged for a session in a cookie, and every other page of the office asks for it.

The cookie is `__Host-`, Secure, HttpOnly and SameSite=Lax: no other site and no script reads it, no subdomain sets it,
and a link in a mail still opens signed in. On http the pages open on the own machine alone, by a cookie without the
prefix, which browsers grant to https. A POST has to say that it comes from our own pages (`Origin` and
`Sec-Fetch-Site`, which browsers set and pages cannot). Tries to sign in are counted per network and hour.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

import structlog
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from shared import keys
from shared.keys import Principal
from shared.problems import Problem
from shared.routes import Router
from shared.web.origins import origin_of
from shared.web.pages import FormError, NavigationLink, href, reader_language
from shared.web.visits import LOOPBACK
from subscriptions.limits import TooOften, count, network_of
from subscriptions.office import sessions
from subscriptions.office.models import OfficeSession
from subscriptions.office.sessions import SettingsKey
from subscriptions.web.limiting import pausing, refusal
from subscriptions.web.posting import read_form, text

log = structlog.get_logger()

HOME = "/kansli"
SIGN_IN = f"{HOME}/logga-in"
PRIVATE = {"Cache-Control": "no-store", "Referrer-Policy": "same-origin", "X-Robots-Tag": "noindex, nofollow"}
KEY_LENGTH = 300

router = Router(include_in_schema=False)


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


ROOMS = (
    NavigationLink(HOME, _("Översikt")),
    NavigationLink(f"{HOME}/personer", _("Personer")),
    NavigationLink(f"{HOME}/organisationer", _("Organisationer")),
    NavigationLink(f"{HOME}/grupper", _("Grupper")),
    NavigationLink(f"{HOME}/importer", _("Importer")),
    NavigationLink(f"{HOME}/uppgifter", _("Uppgifter")),
    NavigationLink(f"{HOME}/stopp", _("Stopp")),
    NavigationLink(f"{HOME}/tackning", _("Täckning")),
    NavigationLink(f"{HOME}/dataskydd", _("Dataskydd")),
)
NOT_A_KEY = _(
    "Nyckeln går inte att använda. Kontrollera att den är hel, att den inte har spärrats "
    "och att den har rättigheten admin."
)
NO_KEY = _("Skriv eller klistra in nyckeln.")


DONE = {
    "sparat": _("Ändringarna är sparade."),
    "tillagd": _("Personen är tillagd."),
    "roll": _("Rollen är tillagd."),
    "roll-borta": _("Rollen är borttagen."),
    "stoppad": _("Personen får inga fler mejl."),
    "upphavt": _("Stoppet är upphävt."),
    "raderad": _("Personen är raderad."),
    "avbruten": _("Importen är avbruten."),
    "stangd": _("Uppgiften är stängd."),
    "plats-tillagd": _("Tillagd."),
    "redaktionsadress": _("Redaktionsadressen är vald."),
    "kontaktperson": _("Kontaktpersonen är vald och har fått sin länk med mejl."),
    "medlem-borta": _("Medlemmen är borttagen och har fått veta det med mejl."),
    "inbjuden": _("Inbjudan är skickad."),
    "inbjudan-borta": _("Inbjudan är tillbakatagen."),
    "avslutad": _("Inloggningen är avslutad."),
    "avslutade": _("Alla andra inloggningar är avslutade."),
}
"""What a page says after a POST; its address carries the word."""


class NotSignedIn(Exception):
    """The page is the office's, and nobody has come in."""


@dataclass(frozen=True, slots=True)
class Office:
    """Somebody who is signed in."""

    session: OfficeSession

    @property
    def key_id(self) -> str:
        return self.session.key_id


def own_key(request: Request) -> SettingsKey:
    state = request.app.state
    admin = state.settings.admin_key
    return SettingsKey(admin.get_secret_value() if admin else "", state.counting_key)


def now(request: Request) -> datetime:
    """The present."""
    present: datetime = request.app.state.clock.now()
    return present


async def signed_in(request: Request) -> Office:
    """A dependency: whoever is signed in. `NotSignedIn` else, and a 403 for a form that another site posted."""
    if request.method not in ("GET", "HEAD"):
        refuse_foreign(request)
    state, token, at = request.app.state, request.cookies.get(cookie_name(request), ""), now(request)
    async with state.database.reading() as session:
        found = await sessions.visit(session, token, own_key(request), state.settings.office_lasting, at)
    if found is None:
        raise NotSignedIn
    if sessions.is_to_be_noted(found, at):
        async with state.database.transaction(quiet=True) as session:
            await sessions.note(session, token, at)
    return Office(found)


SignedIn = Annotated[Office, Depends(signed_in)]


def install_door(app: FastAPI) -> None:
    """Lead whoever is not signed in to the sign-in page; call it after `create_app`."""
    app.add_exception_handler(NotSignedIn, _lead_to_sign_in)


@router.api_route(SIGN_IN, methods=["GET", "HEAD"])
async def ask(request: Request) -> Response:
    return _form(request, request.query_params.get("vidare", ""))


@router.post(SIGN_IN)
async def sign_in(request: Request) -> Response:
    refuse_foreign(request)
    form = await read_form(request)
    key, onward, state = text(form, "nyckel"), text(form, "vidare"), request.app.state
    if not is_safe(request):
        return _form(request, onward, status=403)
    if not key:
        return _form(request, onward, NO_KEY, status=422)
    try:
        principal = await whose(request, key)
    except TooOften as error:
        return _too_often(request, onward, error)
    if principal is None:
        return _form(request, onward, NOT_A_KEY, status=403)
    async with state.database.transaction(quiet=True) as session:
        former = request.cookies.get(cookie_name(request), "")
        token = await sessions.begin(session, principal, own_key(request), now(request), former=former)
    log.info("office_signed_in", key_id=principal.key_id)
    return _with_cookie(request, RedirectResponse(within(onward), 303, headers=PRIVATE), token)


async def whose(request: Request, key: str) -> Principal | None:
    """Who shows this key, where it may come in. Each try counts; `TooOften` when the network has made too many."""
    state, network = request.app.state, network_of(request.client.host if request.client else None)
    async with state.database.transaction(quiet=True) as session:
        await count(session, state.counting_key, state.settings.sign_in_limit, network, now(request))
    principal = await keys.authenticate(request, key[:KEY_LENGTH])
    if principal is None or not principal.may(sessions.SCOPE):
        log.warning("office_sign_in_refused")
        return None
    return principal


@router.post(f"{HOME}/logga-ut")
async def sign_out(request: Request) -> Response:
    refuse_foreign(request)
    async with request.app.state.database.transaction(quiet=True) as session:
        await sessions.end(session, request.cookies.get(cookie_name(request), ""))
    place = href(reader_language(request), SIGN_IN, utloggad="ja")
    answer = RedirectResponse(place, 303, headers=PRIVATE)
    answer.delete_cookie(cookie_name(request), path="/", secure=_is_https(request), httponly=True, samesite="lax")
    return answer


def page(request: Request, office: Office, template: str, *, status: int = 200, **names: Any) -> Response:
    """One of the office's pages."""
    said = DONE.get(request.query_params.get("klart", ""), "") if status == 200 else ""
    answer: Response = request.app.state.pages.render(
        request,
        f"office/{template}",
        status=status,
        headers=PRIVATE,
        navigation=ROOMS,
        key_id=office.key_id,
        errors=names.pop("errors", []),
        done=request.app.state.pages.gettext(reader_language(request).locale, said) if said else "",
        **names,
    )
    return answer


def done(request: Request, path: str, what: str) -> Response:
    """To a page after a POST; it says what was done (`DONE`)."""
    return RedirectResponse(href(reader_language(request), path, klart=what), 303, headers=PRIVATE)


def refuse_foreign(request: Request) -> None:
    """403 unless the browser says that one of our own pages posted the form. A session rides on this, so silence and
    an opaque origin (`null`) do not pass.
    """
    fetched_from, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    ours = {origin_of(request.app.state.settings.public_url), origin_of(str(request.base_url))}
    foreign = fetched_from not in (None, "same-origin") or (origin is not None and origin not in ours)
    if foreign or (fetched_from is None and origin is None):
        raise Problem(403, "cross_site", "The form was posted from another site.")


def is_safe(request: Request) -> bool:
    """Whether a key may be typed here: https, or one's own machine."""
    return _is_https(request) or urlsplit(request.app.state.settings.public_url).hostname in LOOPBACK


def cookie_name(request: Request) -> str:
    return "__Host-budkavle-kansli" if _is_https(request) else "budkavle-kansli"


def within(path: str) -> str:
    """A page of the office; whatever else was asked for becomes the first one."""
    try:
        parts = urlsplit(path)
    except ValueError:  # half an IPv6 address, or letters that become other ones
        return HOME
    own = not parts.scheme and not parts.netloc and path.isprintable() and "\\" not in path
    return path if own and (parts.path + "/").startswith(f"{HOME}/") else HOME


def _is_https(request: Request) -> bool:
    return bool(request.app.state.settings.public_url.startswith("https://"))


def _with_cookie(request: Request, answer: Response, token: str) -> Response:
    longest = int(request.app.state.settings.office_lasting.longest.total_seconds())
    answer.set_cookie(
        cookie_name(request),
        token,
        max_age=longest,
        path="/",
        secure=_is_https(request),
        httponly=True,
        samesite="lax",
    )
    return answer


def _too_often(request: Request, onward: str, error: TooOften) -> Response:
    return pausing(request, error, _rendered(request, onward, [refusal(request, error, "nyckel")], 429))


def _form(request: Request, onward: str, fault: str = "", *, status: int = 200) -> Response:
    words = request.app.state.pages.gettext(reader_language(request).locale, fault) if fault else ""
    return _rendered(request, onward, [FormError("nyckel", words)] if fault else [], status)


def _rendered(request: Request, onward: str, errors: list[FormError], status: int) -> Response:
    answer: Response = request.app.state.pages.render(
        request,
        "office/sign_in.html",
        status=status,
        headers=PRIVATE,
        navigation=(),
        errors=errors,
        onward=within(onward),
        is_safe=is_safe(request),
        has_left=bool(request.query_params.get("utloggad")),
    )
    return answer


async def _lead_to_sign_in(request: Request, _error: Exception) -> Response:
    """To the sign-in page, and back afterwards. A form that was sent too late keeps what was typed: the browser sends
    it again when the page is loaded anew.
    """
    if request.method in ("GET", "HEAD"):
        here = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
        return RedirectResponse(href(reader_language(request), SIGN_IN, vidare=here), 303, headers=PRIVATE)
    answer: Response = request.app.state.pages.render(
        request, "office/signed_out.html", status=401, headers=PRIVATE, navigation=(), sign_in=SIGN_IN
    )
    return answer
