"""
What text an editor may send: normalised (NFC), visible, and free of what breaks a header, a feed or a line.

Control characters split mail headers and make XML unreadable; bidirectional overrides show another text than the one
that is stored (Unicode Technical Report 36, section 2.4). Both are refused with the position, never silently dropped.
"""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field, HttpUrl, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

MAX_TITLE, MAX_LINE, MAX_LEAD, MAX_BODY, MAX_URL = 200, 200, 1_000, 100_000, 2_000
BIDI_OVERRIDES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
BREAKS = frozenset("\u2028\u2029")
INVISIBLE = ("Cc", "Cf", "Zs", "Zl", "Zp", "Mn")

_web_address = TypeAdapter(HttpUrl)


def refusal(code: str, message: str, message_sv: str) -> PydanticCustomError:
    """A validation error with a word for both readers."""
    return PydanticCustomError(code, "{message}", {"message": message, "message_sv": message_sv})


def one_line(text: str) -> str:
    """`text` in NFC, refused where it holds a line break or anything that does not show."""
    return _checked(text, allowed=frozenset())


def several_lines(text: str) -> str:
    """`text` in NFC with plain line breaks."""
    return _checked(text.replace("\r\n", "\n").replace("\r", "\n"), allowed=frozenset("\n\t"))


def visible(text: str) -> str:
    """Refuse a text that shows nothing."""
    if all(unicodedata.category(character) in INVISIBLE for character in text):
        raise refusal("blank_text", "The text shows nothing.", "Fältet måste fyllas i.")
    return text


def web_address(text: str) -> str:
    """An absolute http or https address, without user information; international names in punycode."""
    try:
        url = _web_address.validate_python(text)
    except ValidationError as error:
        raise refusal(
            "invalid_url", "Write the whole address, beginning with https://.", "Skriv hela adressen, med https://."
        ) from error
    if url.username or url.password:
        raise refusal("invalid_url", "The address must hold no user name.", "Adressen får inte innehålla användarnamn.")
    return str(url)


def without_controls(text: str) -> str:
    """`text` without what XML 1.0 cannot hold; for text that was made from entities, after the input was checked."""
    return "".join(character for character in text if character in "\n\t" or not _is_forbidden(character))


def _checked(text: str, *, allowed: frozenset[str]) -> str:
    for position, character in enumerate(text):
        if character not in allowed and _is_forbidden(character):
            raise refusal(
                "invalid_text",
                f"Character {position + 1} (U+{ord(character):04X}) is a control character or a direction override.",
                f"Tecken {position + 1} (U+{ord(character):04X}) syns inte och får inte användas. Ta bort det.",
            )
    return unicodedata.normalize("NFC", text)


def _is_forbidden(character: str) -> bool:
    code = ord(character)
    return (
        unicodedata.category(character) in ("Cc", "Cs")
        or character in BIDI_OVERRIDES
        or character in BREAKS
        or code & 0xFFFE == 0xFFFE  # noncharacters, which XML 1.0 refuses in part
    )


Title = Annotated[str, Field(min_length=1, max_length=MAX_TITLE), AfterValidator(one_line), AfterValidator(visible)]
Line = Annotated[str, Field(max_length=MAX_LINE), AfterValidator(one_line)]
FilledLine = Annotated[str, Field(min_length=1, max_length=MAX_LINE), AfterValidator(one_line), AfterValidator(visible)]
Lead = Annotated[str, Field(max_length=MAX_LEAD), AfterValidator(several_lines)]
Prose = Annotated[str, Field(max_length=MAX_BODY), AfterValidator(several_lines)]
Note = Annotated[str, Field(min_length=1, max_length=MAX_LEAD), AfterValidator(several_lines), AfterValidator(visible)]
WebAddress = Annotated[str, Field(min_length=1, max_length=MAX_URL), AfterValidator(web_address)]
