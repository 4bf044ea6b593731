"""What the schemas say of texts, and what the code decides: the same, whatever the text."""

import re
from typing import Any

import pytest
from email_validator import SPECIAL_USE_DOMAIN_NAMES
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator
from pydantic import ValidationError, create_model

from content.fields import ContactInput, ItemDraft
from content.schemas import Correction
from distributor.webhooks.schemas import EndpointIn
from shared.http import RequestModel
from shared.plain_text import MAIL_ADDRESS, is_line, is_seen
from subscriptions.schemas import OrganisationIn, SubscriberIn
from subscriptions.tasks.api import TaskClosing

ODD = "\t\n\r\x0b\x0c\x1c\x1f\x85\xa0\xad\u200b\u200d\u2028\u202e\u2066\u3000\ufeff\ufffe\x00\x7f ab,\U000e0020\u0301😀"
TEXTS = st.text(st.sampled_from(ODD), max_size=8) | st.text(max_size=8)

FIELDS: list[tuple[type[RequestModel], str]] = [
    (ItemDraft, "title"),
    (ItemDraft, "lead"),
    (ItemDraft, "body"),
    (ItemDraft, "urgent_reason"),
    (ContactInput, "name"),
    (ContactInput, "phone"),
    (Correction, "note"),
    (OrganisationIn, "name"),
    (SubscriberIn, "name"),
    (TaskClosing, "reason"),
    (EndpointIn, "name"),
]


def alone(model: type[RequestModel], name: str) -> type[RequestModel]:
    """A body with this field and no other."""
    field = model.model_fields[name]
    return create_model("Alone", __base__=RequestModel, text=(field.annotation, field))


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=lambda of: getattr(of, "__name__", of))
def test_pattern_and_code_decide_alike(model: type[RequestModel], name: str) -> None:
    body = alone(model, name)
    schema: dict[str, Any] = body.model_json_schema()
    assert "pattern" in schema["properties"]["text"]
    valid = Draft202012Validator(schema)

    @given(TEXTS)
    @example("")
    @example(" \n ")
    @example("\na\n")
    @example("a\nb")
    @example("a\rb")
    @example("\u200b")
    @example("\u0301")
    def alike(text: str) -> None:
        try:
            body(text=text)
        except ValidationError:
            taken = False
        else:
            taken = "\0" not in text  # refused before the fields are looked at (`strict_json`)
        assert valid.is_valid({"text": text}) == taken

    alike()


def test_names_of_special_use_are_all_said() -> None:
    (names,) = re.findall(r"\((.*)\)", MAIL_ADDRESS["not"]["pattern"])
    assert sorted(names.split("|")) == sorted(SPECIAL_USE_DOMAIN_NAMES)


@pytest.mark.parametrize("text", ["👨‍👩‍👧", "a\u200db", "نام\u200cه", "Åsa"])
def test_what_joins_letters_and_emoji_is_no_control(text: str) -> None:
    assert is_line(text)
    assert is_seen(text)
