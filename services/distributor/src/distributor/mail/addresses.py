"""Addresses as they go on the wire: the domain in ASCII (IDNA 2008), the local part as it is.

A local part beyond ASCII needs a server that speaks SMTPUTF8 (RFC 6531). Anything that could end a command or a header
early is no address at all.
"""

import re
from functools import lru_cache
from typing import NamedTuple

import idna

ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
WIDE_ATOM = r"[^\s()<>\[\]:;@\\,.\"]+"  # RFC 6531 lets everything else beyond ASCII in
PLAIN = re.compile(rf"{ATOM}(?:\.{ATOM})*@(?:[A-Za-z0-9-]+\.)*[A-Za-z0-9-]+")
LOCAL_ATOMS = re.compile(rf"{WIDE_ATOM}(?:\.{WIDE_ATOM})*")
LOCAL_QUOTED = re.compile(r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*"')
LONGEST = 254
"""Octets of a path without its angle brackets: RFC 5321, section 4.5.3.1.3, as corrected by erratum 1690."""


class InvalidAddress(ValueError):
    """Nobody can have such an address."""


class WireAddress(NamedTuple):
    """An address ready for an envelope; `smtputf8` when the server must speak RFC 6531."""

    text: str
    smtputf8: bool = False


def wire_address(address: str) -> WireAddress:
    """`address` as it goes on the wire; raises InvalidAddress."""
    if PLAIN.fullmatch(address) and len(address) <= LONGEST:
        return WireAddress(address)
    local, at, domain = address.rpartition("@")
    if not at or not local.isprintable() or not (LOCAL_ATOMS.fullmatch(local) or LOCAL_QUOTED.fullmatch(local)):
        raise InvalidAddress("not a mail address")
    text = f"{local}@{ascii_domain(domain)}"
    if len(text.encode()) > LONGEST:
        raise InvalidAddress("longer than 254 octets")
    return WireAddress(text, smtputf8=not local.isascii())


@lru_cache(maxsize=1024)
def ascii_domain(domain: str) -> str:
    """A domain in ASCII; raises InvalidAddress."""
    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise InvalidAddress("not a domain") from error
