"""Headers of an endpoint's own: an API key, say, that a gateway asks for before it lets anything in to an intranet.

Whoever registers the endpoint writes them, and they go out beside ours, so none may say where the request ends, how
the connection is used, or what we say ourselves; nor in another spelling that some server takes for one of those: case
means nothing in a name (RFC 9110, section 5.1), and behind CGI and its heirs `_` is `-`. A value is one line of ASCII.

Values are secrets. They are stored sealed, one by one, under names that anybody may see who may see the endpoint, and
said to its server alone; where that server's answer repeats one, it is blotted out before the answer is kept.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

MAX_HEADERS = 5
MAX_VALUE = 2000
"""Five of them, with what we say ourselves, fit into the 16 kB that the strictest of the common servers takes."""

OURS = ("accept", "accept-encoding", "user-agent")
"""What each request says already; and whatever begins with one of `OUR_PREFIXES`."""
OUR_PREFIXES = ("content-", "webhook-")

OF_THE_CONNECTION = (
    *("connection", "expect", "host", "http2-settings", "keep-alive", "max-forwards", "te", "trailer"),
    *("transfer-encoding", "upgrade"),
)
CONNECTION_PREFIXES = ("proxy-",)

NAME_PATTERN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}"
"""A token (RFC 9110, section 5.6.2)."""
VALUE_PATTERN = r"[!-~]([\t -~]*[!-~])?"

BLOT = b"[own header]"
TELLING = 4
TELLING_WORD = 8
"""Octets: a shorter value, or a shorter word of one, is no secret, and stands in many an answer by chance."""


class Fault(NamedTuple):
    """Why a header may not be an endpoint's own: a code, and words in English and Swedish."""

    code: str
    english: str
    swedish: str


BAD_NAME = Fault(
    "invalid_header_name",
    "A header's name has 1 to 64 letters, digits and signs such as - and _; no space, colon or line break.",
    "Ett huvuds namn har 1 till 64 bokstäver (a till z), siffror och tecken som - och _, utan mellanslag och kolon.",
)
BAD_VALUE = Fault(
    "invalid_header_value",
    f"A header's value has 1 to {MAX_VALUE} visible ASCII characters, space and tab between them; no line break.",
    f"Ett huvuds värde har 1 till {MAX_VALUE} synliga ASCII-tecken, med mellanslag och tabb bara mellan dem "
    "och utan radbrytning.",
)
SAID_BY_US = Fault(
    "header_not_allowed", "We set this header ourselves; leave it out.", "Det huvudet sätter vi själva. Ta bort det."
)
STEERS = Fault(
    "header_not_allowed",
    "This header steers the connection, or says where the request ends; leave it out.",
    "Det huvudet styr anslutningen eller säger var anropet slutar. Ta bort det.",
)
TWICE = Fault(
    "duplicate_header",
    "The same header stands here twice (upper and lower case are the same); leave one out.",
    "Samma huvud står två gånger (stora och små bokstäver är samma sak). Ta bort det ena.",
)


def name_fault(name: str) -> Fault | None:
    """What is wrong with a header's name, if anything."""
    folded = _folded(name)
    if not re.fullmatch(NAME_PATTERN, name):
        return BAD_NAME
    if folded in OURS or folded.startswith(OUR_PREFIXES):
        return SAID_BY_US
    if folded in OF_THE_CONNECTION or folded.startswith(CONNECTION_PREFIXES):
        return STEERS
    return None


def value_fault(value: str) -> Fault | None:
    """What is wrong with a header's value: it could not stand on one line, or not arrive as it was written."""
    return None if len(value) <= MAX_VALUE and re.fullmatch(VALUE_PATTERN, value) else BAD_VALUE


def repeated(names: Iterable[str]) -> str | None:
    """The first name that means the same header as one before it."""
    seen: set[str] = set()
    for name in names:
        if _folded(name) in seen:
            return name
        seen.add(_folded(name))
    return None


def _folded(name: str) -> str:
    return name.lower().replace("_", "-")


SPELT = {"-": "[-_]", "2": "2"}


def _any_case(word: str) -> str:
    """A pattern for `word` in each spelling that is folded to it: JSON Schema's patterns know no flags."""
    return "".join(SPELT.get(letter) or f"[{letter.upper()}{letter}]" for letter in word)


def _refused_pattern() -> str:
    whole = "|".join(map(_any_case, (*OURS, *OF_THE_CONNECTION)))
    beginnings = "|".join(map(_any_case, (*OUR_PREFIXES, *CONNECTION_PREFIXES)))
    return f"^(({whole})$|({beginnings}))"


SCHEMA: dict[str, Any] = {
    "type": "object",
    "maxProperties": MAX_HEADERS,
    "propertyNames": {"pattern": f"^{NAME_PATTERN}$", "not": {"pattern": _refused_pattern()}},
    "additionalProperties": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_VALUE,
        "pattern": f"^{VALUE_PATTERN}$",
    },
}
"""All of the rules but one, that a name stands there once: JSON Schema has no word for it."""


@dataclass(frozen=True, slots=True)
class OwnHeaders:
    """The headers of one endpoint, opened. `lines` is what each request says."""

    lines: str = field(default="", repr=False)
    _telling: re.Pattern[bytes] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        """Made once an endpoint, not once a request."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return cls(lines, _telling(headers.values()))

    def blotted(self, answer: bytes) -> bytes:
        """`answer` without what it repeats of these headers' values, as some gateways' error pages do."""
        return self._telling.sub(BLOT, answer) if self._telling else answer


NONE = OwnHeaders()


def _telling(values: Collection[str]) -> re.Pattern[bytes] | None:
    """What finds a value, or a word of one, the longest first: the key behind `Bearer` is often repeated alone."""
    wholes = {value for value in values if len(value) >= TELLING}
    words = {word for value in values for word in value.split() if len(word) >= TELLING_WORD}
    secrets = sorted(wholes | words, key=len, reverse=True)
    return re.compile(b"|".join(re.escape(secret.encode()) for secret in secrets)) if secrets else None
