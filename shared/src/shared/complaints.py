"""What is wrong with a field, in plain words: pydantic's kinds of errors in English and Swedish.

A kind that is not listed gets general words: what a library says of its own insides helps nobody who fills in a field.
"""

from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticCustomError

from shared.contracts.vocabulary import MUNICIPALITIES, TOPICS

_NEEDED = ("The field is needed.", "Fältet måste fyllas i.")
_UNKNOWN = ("There is no such field, or it cannot be set.", "Fältet finns inte eller går inte att ändra.")
_CHOICE = ("Use {expected}.", "Värdet är inte ett av dem som går att välja.")
_ID = ("This is no id; ids look like 01890c5e-8a2b-7c3d-9e4f-5a6b7c8d9e0f.", "Id:t har fel form.")
_TIME = ("Write the time as 2026-11-22T08:30:00+01:00.", "Skriv tiden så här: 2026-11-22T08:30:00+01:00.")
_DATE = ("Write the date as 2026-11-22.", "Skriv datumet så här: 2026-11-22.")
_NUMBER = ("Write a whole number.", "Skriv ett heltal.")
_YES_OR_NO = ("Use true or false.", "Svara ja (true) eller nej (false).")
_TEXT = ("A text belongs here.", "Här ska det stå en text.")
_LIST = ("A list belongs here.", "Här ska det stå en lista.")
_OBJECT = ("An object with fields belongs here.", "Här ska det stå ett objekt med fält.")
_FORM = ("The value has the wrong form.", "Värdet har fel form.")

CONTROL_CHARACTER = (
    "The text holds a control character or a line break.",
    "Texten innehåller en radbrytning eller ett styrtecken.",
)
BLANK = ("The text shows nothing.", "Fältet måste fyllas i.")
UNKNOWN_MUNICIPALITY = (
    f"Use the four-digit code of a municipality in the county: {', '.join(MUNICIPALITIES)}.",
    "Kommunkoden finns inte i Kalmar län.",
)
UNKNOWN_TOPIC = (f"Use the id of a topic: {', '.join(TOPICS)}.", "Ämnet är inte ett av dem som går att välja.")

WORDS = {
    "missing": _NEEDED,
    "extra_forbidden": _UNKNOWN,
    "string_too_short": ("Use at least {min_length} characters.", "Texten är för kort."),
    "string_too_long": ("Use at most {max_length} characters; space at the ends counts.", "Texten är för lång."),
    "too_short": ("Give at least {min_length}.", "Det behövs fler värden."),
    "too_long": ("Give at most {max_length}.", "Det är för många värden."),
    "enum": _CHOICE,
    "literal_error": _CHOICE,
    "uuid_parsing": _ID,
    "uuid_type": _ID,
    "datetime_parsing": _TIME,
    "datetime_from_date_parsing": _TIME,
    "datetime_type": _TIME,
    "timezone_aware": (
        "The time needs a time zone: 2026-11-22T08:30:00+01:00.",
        "Tiden behöver en tidszon: 2026-11-22T08:30:00+01:00.",
    ),
    "date_parsing": _DATE,
    "date_from_datetime_parsing": _DATE,
    "date_from_datetime_inexact": _DATE,
    "date_type": _DATE,
    "int_parsing": _NUMBER,
    "int_parsing_size": _NUMBER,
    "int_from_float": _NUMBER,
    "int_type": _NUMBER,
    "bool_parsing": _YES_OR_NO,
    "bool_type": _YES_OR_NO,
    "greater_than_equal": ("Use {ge} or more.", "Talet är för litet."),
    "less_than_equal": ("Use {le} or less.", "Talet är för stort."),
    "string_type": _TEXT,
    "list_type": _LIST,
    "tuple_type": _LIST,
    "frozen_set_type": _LIST,
    "model_attributes_type": _OBJECT,
    "model_type": _OBJECT,
    "dict_type": _OBJECT,
}
"""By pydantic's kind: English and Swedish, with the names that pydantic gives in the error's context."""


def refusal(code: str, message: str, message_sv: str) -> PydanticCustomError:
    """A validation error with a word for both readers."""
    return PydanticCustomError(code, "{message}", {"message": message, "message_sv": message_sv})


def words(kind: str, context: Mapping[str, Any]) -> tuple[str, str]:
    """What to say of an error of this kind, in English and Swedish; a refusal of our own says it itself."""
    if "message_sv" in context:
        return str(context["message"]), str(context["message_sv"])
    english, swedish = WORDS.get(kind, _FORM)
    if kind == "string_too_short" and context["min_length"] == 1:
        return _NEEDED
    return english.format_map(context), swedish
