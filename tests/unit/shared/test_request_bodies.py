"""What the schema of a request body refuses, the code refuses too: field by field, whatever is put there."""

import contextlib
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator
from pydantic import ValidationError, create_model

import content.app
import distributor.app
import subscriptions.app
from distributor.webhooks.schemas import EndpointIn
from shared.http import RequestModel

LOOKED_AT_LATER = ("url", "secret")
"""Their patterns are kept behind the model, by what knows the settings: `test_webhook_endpoints.py` asks the API."""
APPS = (content.app, distributor.app, subscriptions.app)
ODD = (
    None, True, False, 0, 1, -1, 24, 1.5, 86_400, 1_700_000_000, 2**53, "", " ", "0", "1", "24", "1.5", "86400", "1700000000",
    "true", "null", "x", "2026-11-22", "2026-11-22T00:00:00Z", [], [None], [0], [""], ["x"], [[]], {}, {"": None}, {"x": "x"},
    {"a": 0},
)  # fmt: skip


def bodies(model: type[RequestModel] = RequestModel) -> list[type[RequestModel]]:
    found = [each for made in model.__subclasses__() for each in (made, *bodies(made))]
    return [each for each in found if each.__module__.split(".")[0] in ("content", "distributor", "subscriptions")]


def test_every_body_is_looked_at() -> None:
    assert len({body.__module__ for body in bodies()}) >= 6


@pytest.mark.parametrize("model", bodies(), ids=lambda model: model.__name__)
def test_what_the_schema_refuses_the_code_refuses(model: type[RequestModel]) -> None:
    taken = []
    for name, field in model.model_fields.items():
        body: Any = create_model("Alone", __base__=RequestModel, value=(field.annotation, field))
        valid = Draft202012Validator(body.model_json_schema())
        for value in ODD:
            if valid.is_valid({"value": value}) or (name in LOOKED_AT_LATER and isinstance(value, str)):
                continue
            with contextlib.suppress(ValidationError):
                taken.append((name, value, body.model_validate({"value": value}).value))
    assert not taken


def test_what_stands_twice_in_a_list_is_taken_once() -> None:
    field = EndpointIn.model_fields["topics"]
    body: Any = create_model("Alone", __base__=RequestModel, value=(field.annotation, field))
    twice = {"value": ["results", "results"]}
    assert Draft202012Validator(body.model_json_schema()).is_valid(twice)
    assert body.model_validate(twice).value == ("results",)
