"""What callers are told of a faulty field: plain words in both languages, whatever the fault."""

from datetime import date
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import AwareDatetime, Field, ValidationError

from shared.complaints import refusal
from shared.http import RequestModel
from shared.problems import field_error

OF_THE_LIBRARY = ("Input should", "Field required", "Extra inputs", "String should", "List should", "valid")


class Kind(StrEnum):
    NEWS = "news"
    REPORT = "report"


class Part(RequestModel):
    name: str


class Everything(RequestModel):
    needed: str
    text: str = Field(default="abc", min_length=2, max_length=5)
    filled: str = Field(default="a", min_length=1)
    kind: Kind = Kind.NEWS
    one_of: Literal["a", "b"] = "a"
    id: UUID | None = None
    at: AwareDatetime | None = None
    day: date | None = None
    number: int = Field(default=1, ge=1, le=9)
    yes: bool = True
    names: list[str] = Field(default=[], max_length=1)
    some: Annotated[tuple[str, ...], Field(min_length=1)] = ("a",)
    part: Part | None = None
    pattern: str = Field(default="", pattern="^[a-z]*$")


def complaint(**fields: Any) -> tuple[str, str]:
    with pytest.raises(ValidationError) as caught:
        Everything.model_validate({"needed": "x", **fields} if "needed" not in fields else {})
    error = field_error(caught.value.errors()[0])
    return error.message, error.message_sv


@pytest.mark.parametrize(
    "fields",
    [
        {"needed": ...},
        {"unknown": 1},
        {"text": 1}, {"text": "a"}, {"text": "abcdef"}, {"filled": ""},
        {"kind": "x"}, {"one_of": "c"},
        {"id": "x"}, {"id": 1},
        {"at": "x"}, {"at": "2026-11-22T08:30:00"}, {"at": []},
        {"day": "x"}, {"day": "2026-13-01"}, {"day": []},
        {"number": "x"}, {"number": 1.5}, {"number": 0}, {"number": 10}, {"number": []},
        {"yes": "perhaps"}, {"yes": []},
        {"names": "x"}, {"names": ["a", "b"]}, {"some": []}, {"some": 1},
        {"part": "x"}, {"part": {}},
        {"pattern": "1"},
    ],
    ids=str,
)  # fmt: skip
def test_every_fault_is_told_in_plain_words_in_both_languages(fields: dict[str, Any]) -> None:
    message, message_sv = complaint(**fields)
    assert message.endswith(".") and message_sv.endswith(".")
    assert not any(words in message for words in OF_THE_LIBRARY), message
    assert "{" not in message + message_sv


def test_the_bound_and_the_choices_are_named() -> None:
    assert complaint(text="abcdef")[0] == "Use at most 5 characters; space at the ends counts."
    assert complaint(number=10)[0] == "Use 9 or less."
    assert complaint(kind="x")[0] == "Use 'news' or 'report'."
    assert complaint(filled="") == ("The field is needed.", "Fältet måste fyllas i.")


def test_a_refusal_of_our_own_says_it_itself() -> None:
    error = refusal("odd", "Too odd.", "För udda.")
    detail = {"type": error.type, "loc": ("body", "x"), "ctx": error.context}
    assert field_error(detail).model_dump() == {
        "pointer": "/x", "code": "odd", "message": "Too odd.", "message_sv": "För udda.",
    }  # fmt: skip
