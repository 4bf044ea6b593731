"""Which characters a text may hold: one rule, kept by the code and said in our schemas as a pattern.

Control characters split mail headers and make XML unreadable; bidirectional overrides show another text than the one
that is stored (Unicode Technical Report 36, section 2.4). Both are refused. Space at either end has no meaning: the
patterns forgive it, and it is cut off (`TRIMMED`) before anything else is decided. Lengths are those of what was sent,
as JSON Schema counts them: space at the ends is within the limit like everything else.

What shows nothing: white space, Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt), and a few that are
symbols or marks by name and empty by shape.
"""

import re
from typing import Any

from pydantic import AfterValidator, Field

SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Unicode's White_Space: what is taken off both ends."""
CONTROLS = r"\x00-\x1f\x7f-\x9f"
CONTROLS_BUT_BREAKS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
BREAKS = r"\u2028\u2029"
BIDI_OVERRIDES = r"\u202a-\u202e\u2066-\u2069"
NONCHARACTERS = r"\ufffe\uffff"  # XML 1.0 has no way to write them
NOT_IN_TEXT = CONTROLS_BUT_BREAKS + BREAKS + BIDI_OVERRIDES + NONCHARACTERS
NOT_IN_LINE = CONTROLS + BREAKS + BIDI_OVERRIDES + NONCHARACTERS
IGNORABLE = (
    r"\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    r"\ufff0-\ufff8" + "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
EMPTY_SHAPES = r"\u2800\ufff9-\ufffb" + "\U00013430-\U0001343f\U00013441\U00013442\U00016fe4\U0001d159"
"""Braille without dots, annotation marks, hieroglyphs' joiners and blanks, Khitan's filler, a note without a head."""
NOTHING_TO_SEE = SPACE + CONTROLS + BIDI_OVERRIDES + IGNORABLE + EMPTY_SHAPES

UNWANTED = re.compile(rf"[{NOT_IN_TEXT}\r]")
"""In text whose line breaks are plain."""
UNWANTED_IN_LINE = re.compile(f"[{NOT_IN_LINE}]")
SEEN = re.compile(f"[^{NOTHING_TO_SEE}]")
_SPACES = "".join(re.findall(f"[{SPACE}]", "".join(map(chr, range(0x3001)))))


def whole(pattern: str) -> str:
    """In a schema: `pattern`, with space around it forgiven."""
    return f"^[{SPACE}]*{pattern}[{SPACE}]*$"


def trimmed(text: str) -> str:
    """`text` without space at its ends; Python's own notion of it has control characters in it."""
    return text.strip(_SPACES)


TRIMMED = AfterValidator(trimmed)
"""Stands behind a field's limits, which count what was sent, and before whatever else decides."""
EMPTY = f"^[{SPACE}]*$"
LINE = whole(f"[^{NOT_IN_LINE}]*")
SEEN_LINE = whole(f"[^{NOT_IN_LINE}]*[^{NOTHING_TO_SEE}{NONCHARACTERS}][^{NOT_IN_LINE}]*")
TEXT = whole(f"[^{NOT_IN_TEXT}]*")
SEEN_TEXT = whole(f"[^{NOT_IN_TEXT}]*[^{NOTHING_TO_SEE}{NONCHARACTERS}][^{NOT_IN_TEXT}]*")
MAIL_ADDRESS: dict[str, Any] = {
    "format": "idn-email",
    "not": {"pattern": r"[@.](arpa|invalid|local|localhost|onion|test)$"},
}
"""In a schema: an address that mail can be sent to; names of special use (RFC 6761) lead nowhere."""


def said(pattern: str, **more: Any) -> Any:
    """A field's pattern for its schema alone: the validator beside it decides, and has better words."""
    return Field(json_schema_extra={"pattern": pattern, **more})


def is_line(text: str) -> bool:
    """Whether `text` may stand on a line."""
    return UNWANTED_IN_LINE.search(text) is None


def is_seen(text: str) -> bool:
    """Whether there is anything to see in it."""
    return SEEN.search(text) is not None
