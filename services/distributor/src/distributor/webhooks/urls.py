"""Which URLs an endpoint may have.

A URL is taken apart once, by the library that will dial it, and stored in that library's spelling, so that no two
readers can see two hosts in it. Names are not looked up here: what a name leads to is decided when it is dialled.

Rules: https only; http where the operator allows loopback or private networks, and then to nothing public. No user
name, fragment, control character, backslash or space. A host is a name in plain letters (Swedish ones become
punycode) with a dot in it, or an IP address in its one usual spelling: no `127.1`, `0x7f000001`, `2130706433`, no dot
at the end, no ideographic dots. Ports are 443, 80 and those from 1024 up that no other well-known protocol has.
"""

import re
import unicodedata
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from yarl import URL

from distributor.webhooks.addresses import ALLOWING, AddressPolicy, Reach
from shared.plain_text import whole

MAX_LENGTH = 2000

CANARY_PATH = "/api/distributor/v1/canary"
"""The one place of this installation that may be an endpoint: it takes what we signed ourselves, and tells nothing."""

OTHER_PROTOCOLS = frozenset(
    {1433, 1521, 1719, 1720, 1723, 2049, 2181, 2375, 2376, 2379, 2380, 3306, 3389, 3659, 4045, 4190, 4369, 5060, 5061}
    | {5432, 5671, 5672, 5900, 6000, 6379, 6443, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 9042, 9092, 9200}
    | {9300, 10080, 10250, 11211, 25672, 27017}
)
"""Ports from 1024 up that belong to databases, brokers, cluster controls and the Fetch standard's bad ports."""

_NAME = r"([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z]{2,63}"
_LITERAL = r"([0-9]{1,3}\.){3}[0-9]{1,3}|\[[0-9A-Fa-f:.]{2,45}\]"
URL_PATTERN = whole(rf"https?://({_NAME}|{_LITERAL})(:(443|80|[1-9][0-9]{{3,4}}))?([/?][!-~]*)?")
"""The usual form, for schemas; which address it leads to, and whether that may be dialled, no pattern can say."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DOTS = "\u3002\uff0e\uff61"


class UrlNotAllowed(Exception):
    """The URL may not be an endpoint's; the message says why, in English, `swedish` in Swedish."""

    def __init__(self, english: str, swedish: str) -> None:
        super().__init__(english)
        self.swedish = swedish


def _unencrypted() -> UrlNotAllowed:
    return UrlNotAllowed(
        f"http is not encrypted; use https://. It is only for private networks that {ALLOWING} names.",
        f"http är okrypterat; använd https://. Det går bara till privata nät som {ALLOWING} anger.",
    )


def _not_dialled(denied: Reach) -> UrlNotAllowed:
    if denied is Reach.PRIVATE:
        return UrlNotAllowed(
            f"The address is in a private network. Whoever runs this installation can allow it with {ALLOWING}.",
            f"Adressen ligger i ett privat nät. Den som driver tjänsten kan tillåta det med {ALLOWING}.",
        )
    return UrlNotAllowed(
        f"Addresses of this kind ({denied}) are not dialled.", f"Adresser av det slaget ({denied}) rings aldrig upp."
    )


def checked_url(text: str, policy: AddressPolicy, *, own_url: str) -> str:
    """`text` as it will be dialled, or `UrlNotAllowed`. `own_url` is where this installation itself is reached."""
    text = unicodedata.normalize("NFC", text)
    _check_characters(text)
    try:
        url = URL(text)
        _check_parts(text, url, policy)
    except ValueError as error:
        raise UrlNotAllowed("The address cannot be read as a URL.", "Adressen går inte att läsa.") from error
    host = url.raw_host or ""
    _check_spelling(text, host)
    _check_host(host, policy, encrypted=url.scheme == "https")
    _check_not_own(url, URL(own_url), policy)
    return str(url)


def same_origin(one: str, other: str) -> bool:
    """Whether two addresses that `checked_url` passed are the same server's, reached in the same way (RFC 6454)."""
    return URL(one, encoded=True).origin() == URL(other, encoded=True).origin()


def _check_characters(text: str) -> None:
    if len(text) > MAX_LENGTH:
        raise UrlNotAllowed(f"The address is longer than {MAX_LENGTH} characters.", "Adressen är för lång.")
    if not text.isprintable() or any(character in text for character in " \\"):
        raise UrlNotAllowed(
            "The address holds a space, a backslash or a control character.",
            "Adressen innehåller ett mellanslag, ett omvänt snedstreck eller ett styrtecken.",
        )


def _check_parts(text: str, url: URL, policy: AddressPolicy) -> None:
    if url.scheme not in ("https", "http") or not url.raw_host:
        raise UrlNotAllowed("The address must begin with https://.", "Adressen måste börja med https://.")
    if url.scheme == "http" and not policy.widened:
        raise _unencrypted()
    if url.raw_user is not None or url.raw_password is not None:
        raise UrlNotAllowed("A user name or password has no place in it.", "Ta bort användarnamn och lösenord.")
    if "#" in text:
        raise UrlNotAllowed("A fragment (#…) is never sent; take it away.", "Ta bort det som följer efter #.")
    port = url.port or 0
    if port not in (80, 443) and (port < 1024 or port in OTHER_PROTOCOLS):
        raise UrlNotAllowed(f"Port {port} is not for webhooks.", f"Port {port} går inte att använda.")


def _check_spelling(text: str, host: str) -> None:
    """Look at the authority as it was written: what a library maps to a host silently, we refuse."""
    authority = text.partition("://")[2].partition("/")[0].partition("?")[0].partition("#")[0]
    mapped = any(dot in authority for dot in _DOTS) or unicodedata.normalize("NFKC", authority) != authority
    bracketed_name = "[" in authority and ":" not in host
    if mapped or bracketed_name or "%" in authority or "@" in authority or authority.endswith(":"):
        raise UrlNotAllowed("The host is spelled in an odd way.", "Värdnamnet är skrivet på ett ovanligt sätt.")


def _check_host(host: str, policy: AddressPolicy, *, encrypted: bool) -> None:
    denied = _literal_denial(host, policy, encrypted=encrypted)
    if denied is Reach.PUBLIC:
        raise _unencrypted()
    if denied is not None:
        raise _not_dialled(denied)
    if ":" in host or _ends_in_number(host):
        return
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise UrlNotAllowed("The host is no valid name.", "Värdnamnet är inte giltigt.")
    if labels[-1] == "localhost" and not policy.allow_loopback:
        raise UrlNotAllowed("The host is this machine.", "Värdnamnet pekar på den här datorn.")
    if len(labels) == 1 and not policy.widened:
        raise UrlNotAllowed("Write the host with its domain.", "Skriv värdnamnet med domän.")


def _literal_denial(host: str, policy: AddressPolicy, *, encrypted: bool) -> Reach | None:
    """Why a literal address is denied; `None` for names, which are judged when they are dialled."""
    try:
        if ":" in host:
            return policy.denial(str(IPv6Address(host)), encrypted=encrypted)
        if _ends_in_number(host):
            return policy.denial(str(IPv4Address(host)), encrypted=encrypted)
    except AddressValueError as error:
        raise UrlNotAllowed(
            "Write an IP address in its usual form.", "Skriv IP-adressen på det vanliga sättet."
        ) from error
    return None


def _ends_in_number(host: str) -> bool:
    """The WHATWG URL standard's test for "this is meant as an IPv4 address", however it is written."""
    return _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]) is not None


def _check_not_own(url: URL, own: URL, policy: AddressPolicy) -> None:
    same = url.raw_host == own.raw_host and url != own.with_path(CANARY_PATH)
    if same and (url.port == own.port or not policy.allow_loopback):
        raise UrlNotAllowed("The host is this installation itself.", "Adressen är den här tjänstens egen.")
