"""What text an editor may send: normalised (NFC), visible, and free of what breaks a header, a feed or a line
(`shared.plain_text`). What is refused is told with its position, never silently dropped.
"""

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field, HttpUrl, TypeAdapter, ValidationError

from shared.complaints import BLANK, refusal
from shared.plain_text import (
    BIDI_OVERRIDES,
    CONTROLS,
    EMPTY,
    LINE,
    SEEN_LINE,
    SEEN_TEXT,
    SPACE,
    TEXT,
    TRIMMED,
    UNWANTED,
    UNWANTED_IN_LINE,
    is_seen,
    said,
    whole,
)

MAX_TITLE, MAX_LINE, MAX_LEAD, MAX_URL = 200, 200, 1_000, 2_000
MAX_BODY = 50_000
"""Some 8,000 words. The text rides in every batch of mails, and the worst Markdown this long takes seconds."""

NOT_IN_ADDRESS = re.compile(rf"[{SPACE}{CONTROLS}{BIDI_OVERRIDES}\\]|:///")
"""What a parser of addresses would quietly drop or read as something else."""

MOST_MARKS = 30
"""Accents on one letter: no language writes more (Unicode's Stream-Safe Text Format, UAX 15), and to put thousands into
order takes seconds."""

_web_address = TypeAdapter(HttpUrl)


def one_line(text: str) -> str:
    """`text` in NFC, refused where it holds a line break or anything that does not show."""
    return _checked(text, UNWANTED_IN_LINE)


def several_lines(text: str) -> str:
    """`text` in NFC with plain line breaks."""
    return _checked(text.replace("\r\n", "\n").replace("\r", "\n"), UNWANTED)


def visible(text: str) -> str:
    """Refuse a text that shows nothing."""
    if not is_seen(text):
        raise refusal("blank_text", *BLANK)
    return text


def web_address(text: str) -> str:
    """An absolute http or https address, without user information; international names in punycode."""
    whole = refusal(
        "invalid_url", "Write the whole address, beginning with https://.", "Skriv hela adressen, med https://."
    )
    if NOT_IN_ADDRESS.search(text):
        raise whole
    try:
        url = _web_address.validate_python(text)
    except ValidationError as error:
        raise whole from error
    if url.username or url.password:
        raise refusal("invalid_url", "The address must hold no user name.", "Adressen får inte innehålla användarnamn.")
    return str(url)


def without_controls(text: str) -> str:
    """`text` without what is refused on input; for text made from entities, which come after that check."""
    return UNWANTED.sub("", text)


def _checked(text: str, unwanted: re.Pattern[str]) -> str:
    if found := unwanted.search(text):
        place = f"{found.start() + 1} (U+{ord(found[0]):04X})"
        raise refusal(
            "invalid_text",
            f"Character {place} is a control character or a direction override.",
            f"Tecken {place} syns inte och får inte användas. Ta bort det.",
        )
    if overloaded := _overloaded(text):
        raise refusal(
            "invalid_text",
            f"The letter before character {overloaded} has more than {MOST_MARKS} accents.",
            f"Bokstaven före tecken {overloaded} har fler än {MOST_MARKS} accenter. Ta bort några.",
        )
    return unicodedata.normalize("NFC", text)


def _overloaded(text: str) -> int:
    """Where a mark too many stands, counted from one; 0 where none does."""
    marks = 0
    for place, character in enumerate(() if text.isascii() else text, 1):
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks > MOST_MARKS:
            return place
    return 0


_LETTER = r"A-Za-z0-9\u00e0-\u00f6\u00f8-\u00ff"
_LABEL = rf"(?![Xx][Nn]--)[{_LETTER}](?:[{_LETTER}-]{{0,61}}[{_LETTER}])?"
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_HOST = rf"(?:(?:{_LABEL}\.)*(?![Xx][Nn]--)[A-Za-z](?:[A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?|(?:{_BYTE}\.){{3}}{_BYTE})"
_PORT = r"(?::(?:[1-5]?[0-9]{1,4}|6[0-4][0-9]{3}))?"
_REST = rf"(?:[/?#](?:(?!:///)[^{SPACE}{CONTROLS}{BIDI_OVERRIDES}\\])*)?"
WEB_ADDRESS = whole(rf"[Hh][Tt][Tt][Pp][Ss]?://{_HOST}{_PORT}{_REST}")
"""What an address looks like, for schemas. A few odd ones are taken too: IPv6, and names in other alphabets."""

Title = Annotated[
    str,
    Field(min_length=1, max_length=MAX_TITLE),
    said(SEEN_LINE),
    TRIMMED,
    AfterValidator(one_line),
    AfterValidator(visible),
]
Line = Annotated[str, Field(max_length=MAX_LINE), said(LINE), TRIMMED, AfterValidator(one_line)]
FilledLine = Annotated[
    str,
    Field(min_length=1, max_length=MAX_LINE),
    said(SEEN_LINE),
    TRIMMED,
    AfterValidator(one_line),
    AfterValidator(visible),
]
Lead = Annotated[str, Field(max_length=MAX_LEAD), said(TEXT), TRIMMED, AfterValidator(several_lines)]
Prose = Annotated[str, Field(max_length=MAX_BODY), said(TEXT), TRIMMED, AfterValidator(several_lines)]
Note = Annotated[
    str,
    Field(min_length=1, max_length=MAX_LEAD),
    said(SEEN_TEXT),
    TRIMMED,
    AfterValidator(several_lines),
    AfterValidator(visible),
]
WebAddress = Annotated[
    str, Field(min_length=1, max_length=MAX_URL), said(WEB_ADDRESS), TRIMMED, AfterValidator(web_address)
]
MaybeWebAddress = Annotated[
    str,
    Field(max_length=MAX_URL),
    said(f"{EMPTY}|{WEB_ADDRESS}"),
    TRIMMED,
    AfterValidator(lambda text: text and web_address(text)),
]
