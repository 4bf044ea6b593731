"""What text an editor may send: normalised (NFC), visible, and free of what breaks a header, a feed or a line.

Control characters split mail headers and make XML unreadable; bidirectional overrides show another text than the one
that is stored (Unicode Technical Report 36, section 2.4). Both are refused with the position, never silently dropped.
"""

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field, HttpUrl, TypeAdapter, ValidationError

from shared.complaints import refusal

MAX_TITLE, MAX_LINE, MAX_LEAD, MAX_URL = 200, 200, 1_000, 2_000
MAX_BODY = 50_000
"""Some 8,000 words. The text rides in every batch of mails, and the worst Markdown this long takes seconds."""

CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f"
BREAKS = r"\u2028\u2029"
BIDI_OVERRIDES = r"\u202a-\u202e\u2066-\u2069"
NONCHARACTERS = r"\ufffe\uffff"  # XML 1.0 has no way to write them
UNWANTED = re.compile(f"[{CONTROLS}{BREAKS}{BIDI_OVERRIDES}{NONCHARACTERS}]")
UNWANTED_IN_LINE = re.compile(UNWANTED.pattern[:-1] + r"\t\n]")
NOT_IN_ADDRESS = re.compile(rf"[\s{CONTROLS}{BIDI_OVERRIDES}\\]|:///")
"""What a parser of addresses would quietly drop or read as something else."""
INVISIBLE = ("Cc", "Cf", "Zs", "Zl", "Zp", "Mn")

_web_address = TypeAdapter(HttpUrl)


def one_line(text: str) -> str:
    """`text` in NFC, refused where it holds a line break or anything that does not show."""
    return _checked(text, UNWANTED_IN_LINE)


def several_lines(text: str) -> str:
    """`text` in NFC with plain line breaks."""
    return _checked(text.replace("\r\n", "\n").replace("\r", "\n"), UNWANTED)


def visible(text: str) -> str:
    """Refuse a text that shows nothing."""
    if all(unicodedata.category(character) in INVISIBLE for character in text):
        raise refusal("blank_text", "The text shows nothing.", "Fältet måste fyllas i.")
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
    return unicodedata.normalize("NFC", text)


Title = Annotated[str, Field(min_length=1, max_length=MAX_TITLE), AfterValidator(one_line), AfterValidator(visible)]
Line = Annotated[str, Field(max_length=MAX_LINE), AfterValidator(one_line)]
FilledLine = Annotated[str, Field(min_length=1, max_length=MAX_LINE), AfterValidator(one_line), AfterValidator(visible)]
Lead = Annotated[str, Field(max_length=MAX_LEAD), AfterValidator(several_lines)]
Prose = Annotated[str, Field(max_length=MAX_BODY), AfterValidator(several_lines)]
Note = Annotated[str, Field(min_length=1, max_length=MAX_LEAD), AfterValidator(several_lines), AfterValidator(visible)]
WebAddress = Annotated[str, Field(min_length=1, max_length=MAX_URL), AfterValidator(web_address)]
