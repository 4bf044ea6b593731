"""What the schemas say of texts, and what the code decides: the same, whatever the text."""

import re
from typing import Any

import pytest
from email_validator import SPECIAL_USE_DOMAIN_NAMES
from hypothesis import example, given
from hypothesis import settings as trials
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator
from pydantic import ValidationError, create_model

from content.attachments.api import Words
from content.fields import ContactInput, ImageInput, ItemChanges, ItemDraft, LinkInput
from content.schemas import Correction, Withdrawal
from distributor.webhooks.schemas import EndpointChange, EndpointIn, SecretIn
from shared.http import RequestModel
from shared.plain_text import MAIL_ADDRESS, is_line, is_seen
from subscriptions.schemas import GroupIn, OrganisationIn, PreviewIn, SubscriberIn, SubscriberPatch, SuppressionIn
from subscriptions.tasks.api import TaskClosing

ODD = "\u2800\U00013441\t\n\r\x0b\x0c\x1c\x1f\x85\xa0\xad\u200b\u200d\u2028\u202e\u2066\u3000\ufeff\ufffe\x00\x7f ab,\U000e0020\u0301😀"
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


MODELS = (
    ContactInput, LinkInput, ImageInput, ItemDraft, ItemChanges, Correction, Withdrawal,
    SubscriberIn, SubscriberPatch, OrganisationIn, GroupIn, SuppressionIn, TaskClosing,
    EndpointIn, EndpointChange, SecretIn,
)  # fmt: skip
WORDS = ("", "a", "0480-123 45", "https://a.example/", "a@b.example", "whsec_" + "a" * 44)


class Described(RequestModel):
    """The words beside a file are fields of a form."""

    title: Words = ""


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

    @trials(deadline=None)
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


def texts_of(model: type[RequestModel]) -> list[str]:
    """The fields that hold a text."""
    described = model.model_json_schema()["properties"]
    return [name for name, field in described.items() if field.get("type") == "string" and "enum" not in field]


@pytest.mark.parametrize("model", [*MODELS, Described], ids=lambda model: model.__name__)
def test_white_space_at_the_ends_counts_and_is_cut(model: type[RequestModel]) -> None:
    for name in texts_of(model):
        body: Any = alone(model, name)
        schema: dict[str, Any] = body.model_json_schema()
        valid = Draft202012Validator(schema)
        limit = schema["properties"]["text"]["maxLength"]
        words = [word for word in (*WORDS, "a" * limit) if valid.is_valid({"text": word})]
        assert words, name
        for word in words:
            kept = body(text=word).text
            for within in (word.ljust(limit, "\n"), word.rjust(limit, "\u3000"), word.center(limit)):
                assert valid.is_valid({"text": within}), (name, within)
                assert body(text=within).text == kept
            for beyond in (word.ljust(limit + 1), word.rjust(limit + 1)):
                assert not valid.is_valid({"text": beyond}), (name, beyond)
                with pytest.raises(ValidationError, match="string_too_long"):
                    body(text=beyond)


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (OrganisationIn, {"kind": "newsroom", "name": "Barometern", "municipalities": ["0880 "]}),
        (PreviewIn, {"audiences": ["public"], "topics": [" results"]}),
        (SubscriberPatch, {"frequencies": {"everything": "daily", "everything ": "weekly"}}),
        (ItemDraft, {"kind": "news", "title": "Nytt", "municipalities": [" 0880"]}),
    ],
)
def test_a_word_of_a_list_is_taken_as_it_is_written(model: type[RequestModel], fields: dict[str, Any]) -> None:
    assert not Draft202012Validator(model.model_json_schema()).is_valid(fields)
    with pytest.raises(ValidationError):
        model.model_validate(fields)


def test_names_of_special_use_are_all_said() -> None:
    (names,) = re.findall(r"\((.*)\)", MAIL_ADDRESS["not"]["pattern"])
    assert sorted(names.split("|")) == sorted(SPECIAL_USE_DOMAIN_NAMES)


@pytest.mark.parametrize(
    "blank", "\u2800\u3164\u115f\uffa0\u200b\u00ad\ufe0f\ufffa\U000e0041\U00013441\U00016fe4\U0001d159"
)
def test_b6_what_has_an_empty_shape_is_nothing_to_see(blank: str) -> None:
    assert not is_seen(f"{blank} {blank}")
    assert is_seen(f"{blank}a")


@pytest.mark.parametrize("text", ["👨‍👩‍👧", "a\u200db", "نام\u200cه", "Åsa"])
def test_what_joins_letters_and_emoji_is_no_control(text: str) -> None:
    assert is_line(text)
    assert is_seen(text)
