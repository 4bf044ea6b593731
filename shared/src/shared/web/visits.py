"""A link's token is exchanged for a cookie and a clean address.

A link in a mail works for ever and opens a page by itself; so its token should lie in as few places as can be: not in
the address line, the history, a bookmark or a picture of the screen. Its GET gives the browser a cookie and leads on to
the same path with `min-sida` in the token's place. The cookie holds a token of a purpose of its own, made of what the
link says; it opens that page alone, ends after twelve hours, and with the link's own generation or key. Nothing is
stored, and a link that is opened again begins anew.

Whoever keeps no cookies comes back without it (`?kaka=prov`), and gets the page under the link's own address. So does
everybody where the site is neither on https nor on one's own machine: there a cookie would be safe from nobody.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import RedirectResponse, Response

from shared.tokens import Claim, InvalidToken, TokenSigner

CLEAN = "min-sida"
LASTS = timedelta(hours=12)
PROBE = "kaka"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
PRIVATE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex, nofollow"}


@dataclass(frozen=True, slots=True)
class Visits:
    """Exchanges links, and knows whose the page at a clean address is."""

    public_url: str
    signer: TokenSigner

    def token(self, request: Request, purpose: str, token: str) -> str:
        """The link's token: as it stands in the path, or by the cookie; `InvalidToken` where the visit is over."""
        if token != CLEAN:
            return token
        claim = self.signer.verify(_visiting(purpose), request.cookies.get(self.cookie_name(purpose), ""))
        begun, _, extra = claim.extra.partition(":")
        if _now(request) >= datetime.fromtimestamp(int(begun, 16), _now(request).tzinfo) + LASTS:
            raise InvalidToken
        return self.signer.sign(purpose, Claim(claim.subject, claim.generation, extra))

    def onward(self, request: Request, purpose: str, token: str) -> Response | None:
        """Where the GET of a link that holds leads on to; `None` where its page is shown here."""
        if token == CLEAN or not self._is_safe():
            return None
        claim = self.signer.verify(purpose, token)
        if self._is_visited_by(request, purpose, claim):
            clean = request.url.path.replace(token, CLEAN)
            return _lead(request.url.remove_query_params(PROBE).replace(path=clean))
        if PROBE in request.query_params:
            return None
        answer = _lead(request.url.include_query_params(**{PROBE: "prov"}))
        self._give_cookie(answer, purpose, claim, _now(request))
        return answer

    def cookie_name(self, purpose: str) -> str:
        """Browsers take `__Host-` on https alone, from the very host, for every path."""
        return f"{'__Host-' if self._is_https() else ''}budkavle-{purpose}"

    def _give_cookie(self, answer: Response, purpose: str, claim: Claim, at: datetime) -> None:
        kept = Claim(claim.subject, claim.generation, f"{int(at.timestamp()):x}:{claim.extra}")
        answer.set_cookie(
            self.cookie_name(purpose),
            self.signer.sign(_visiting(purpose), kept),
            path="/",
            secure=self._is_https(),
            httponly=True,
            samesite="lax",  # strict would not come along from a mail read in a browser
        )

    def _is_visited_by(self, request: Request, purpose: str, claim: Claim) -> bool:
        try:
            visited = self.signer.verify(purpose, self.token(request, purpose, CLEAN))
        except InvalidToken:
            return False
        return visited == claim

    def _is_https(self) -> bool:
        return self.public_url.startswith("https://")

    def _is_safe(self) -> bool:
        return self._is_https() or urlsplit(self.public_url).hostname in LOOPBACK


def _visiting(purpose: str) -> str:
    return f"visit:{purpose}"


def _lead(url: object) -> RedirectResponse:
    parts = urlsplit(str(url))
    place = f"{parts.path}?{parts.query}" if parts.query else parts.path
    return RedirectResponse(place, 303, headers=PRIVATE)


def _now(request: Request) -> datetime:
    present: datetime = request.app.state.clock.now()
    return present
