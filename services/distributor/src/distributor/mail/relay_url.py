"""Where the mail relay is and how to speak to it, read from `BUDKAVLE_SMTP_URL`.

`smtp://user:password@host:port?starttls=required|never` or `smtps://…` (TLS from the first byte). Left out, `starttls`
is required, save on this machine's own loopback, where nobody listens in: a relay that does not offer it then gets no
mail. Raises ValueError with one line that never repeats the URL, since a password may stand in it.
"""

from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

SMTP_PORT, SMTPS_PORT = 25, 465


@dataclass(frozen=True, slots=True)
class RelayUrl:
    """One relay. `starttls` is never opportunistic: what may be stripped protects nobody."""

    host: str
    port: int
    implicit_tls: bool
    starttls: bool
    user: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str) -> "RelayUrl":
        parts = _split(url)
        host = parts.hostname or ""
        implicit = parts.scheme == "smtps"
        starttls = not implicit and _starttls(parts, host)
        relay = cls(
            host=host,
            port=parts.port or (SMTPS_PORT if implicit else SMTP_PORT),
            implicit_tls=implicit,
            starttls=starttls,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
        )
        relay._refuse_clear_password()
        return relay

    def _refuse_clear_password(self) -> None:
        if self.user and not (self.implicit_tls or self.starttls or is_loopback(self.host)):
            raise ValueError("must not send a password in clear; use starttls=required or smtps://")


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine by name or number."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        known = parts.scheme in {"smtp", "smtps"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or not url.isprintable() or " " in url:
        raise ValueError("must look like smtp://user:password@host:port?starttls=required, or smtps://…")
    if parts.path.strip("/") or parts.fragment:
        raise ValueError("must end after the port or the query (is a / or # in the password percent-encoded?)")
    return parts


def _starttls(parts: SplitResult, host: str) -> bool:
    query = parse_qs(parts.query, keep_blank_values=True)
    choice = query.pop("starttls", ["never" if is_loopback(host) else "required"])
    if query or choice not in (["required"], ["never"]):
        raise ValueError("takes one option: starttls=required or starttls=never")
    return choice == ["required"]
