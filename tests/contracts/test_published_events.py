"""The words between the services: written down, up to date, and safe from changes that last month's version would notice."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from jsonschema import Draft202012Validator, ValidationError
from pydantic import Field, create_model
from referencing import Registry, Resource

from shared.clock import SystemClock
from shared.contracts.envelope import Envelope, Event
from shared.contracts.mail import Lane, RecipientErased
from shared.messaging import documents
from shared.messaging.compatibility import breaking_changes
from shared.messaging.topology import QUEUES

DOCS = Path(__file__).parents[2] / "docs"
EVENTS = list(documents.SAID_BY)


def published(event: type[Event]) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((DOCS / "events" / f"{event.event_type()}.json").read_text())
    return schema


def test_every_event_is_written_down() -> None:
    known = {kind for kind in Event.__subclasses__() if kind.__module__.startswith("shared.contracts.")}
    assert set(EVENTS) == known


@pytest.mark.parametrize("place", documents.documents())
def test_the_written_is_what_the_code_says(place: str) -> None:
    """Otherwise: `python -m shared.messaging.documents docs`."""
    assert (DOCS / place).read_text(encoding="utf-8") == documents.documents()[place]


def test_nothing_else_is_written_there() -> None:
    assert {f"events/{path.name}" for path in (DOCS / "events").iterdir()} | {"events.md"} == set(documents.documents())


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.event_name)
def test_no_published_event_is_broken(event: type[Event]) -> None:
    assert breaking_changes(published(event), documents.schema(event)) == []


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.event_name)
def test_each_schema_is_a_schema_and_each_event_is_heard(event: type[Event]) -> None:
    Draft202012Validator.check_schema(published(event))
    assert documents.hears(event), "an event that nobody hears is refused by the broker"


def test_every_queue_hears_something() -> None:
    assert {queue for event in EVENTS for queue in documents.hears(event)} == set(QUEUES)


def test_a_real_event_satisfies_its_schema_and_a_wrong_one_does_not() -> None:
    event = RecipientErased(recipient_id=UUID(int=7), version=2)
    envelope = Envelope.wrap(
        event,
        event_id=UUID(int=1),
        source="/budkavle/subscriptions",
        subject="7",
        time=SystemClock().now(),
        correlation_id="c",
    ).model_dump(mode="json")
    validator = Draft202012Validator(published(RecipientErased))
    validator.validate(envelope)
    validator.validate(envelope | {"unknown": 1})
    for wrong in ({"type": "se.budkavle.recipient.erased.v2"}, {"data": {"version": 2}}, {"specversion": "0.3"}):
        with pytest.raises(ValidationError):
            validator.validate(envelope | wrong)


BASE: dict[str, Any] = {
    "type": "object",
    "required": ["kind", "who"],
    "properties": {
        "kind": {"$ref": "#/$defs/Kind"},
        "who": {"type": "string", "maxLength": 10},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "many": {"type": "array", "items": {"$ref": "#/$defs/Part"}, "maxItems": 5},
    },
    "$defs": {
        "Kind": {"type": "string", "enum": ["a", "b"]},
        "Part": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
    },
}


def changed(change: Callable[[dict[str, Any]], object]) -> list[str]:
    present = copy.deepcopy(BASE)
    change(present)
    return breaking_changes(BASE, present)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda now: now["properties"].pop("note"), "The field /note was removed or renamed."),
        (lambda now: now["required"].append("note"), "The field /note is newly required."),
        (lambda now: now["required"].remove("who"), "The field /who is no longer certain to be there."),
        (
            lambda now: now["properties"]["who"].update(maxLength=5),
            "The field /who changed its maxLength from 10 to 5.",
        ),
        (
            lambda now: now["properties"]["who"].update(maxLength=50),
            "The field /who changed its maxLength from 10 to 50.",
        ),
        (lambda now: now["properties"]["who"].update(type="integer"), "The field /who changed its type"),
        (lambda now: now["properties"]["who"].update(pattern="x"), "The field /who changed its pattern"),
        (lambda now: now["$defs"]["Kind"]["enum"].remove("b"), "The field /kind may no longer be 'b'."),
        (lambda now: now["$defs"]["Kind"]["enum"].append("c"), "The field /kind may be 'c', which its consumers"),
        (lambda now: now["properties"]["note"]["anyOf"].pop(), "The field /note accepts other types than before."),
        (lambda now: now["$defs"]["Part"]["properties"].pop("x"), "The field /many/*/x was removed or renamed."),
        (lambda now: now["properties"]["many"].update(maxItems=4), "The field /many changed its maxItems from 5 to 4."),
        (
            lambda now: (now["properties"].update(new={"type": "string"}), now["required"].append("new")),
            "The field /new is newly required.",
        ),
    ],
)
def test_a_breaking_change_is_named(change: Callable[[dict[str, Any]], object], sentence: str) -> None:
    found = changed(change)
    assert found and found[0].startswith(sentence)


@pytest.mark.parametrize(
    "change",
    [
        lambda now: now["properties"].update(new={"type": "string", "default": ""}),
        lambda now: now["properties"]["who"].update(description="in other words", title="Who", examples=["Eva"]),
        lambda now: now["$defs"].update(Unused={"type": "null"}),
        lambda now: now["required"].reverse(),
    ],
)
def test_a_safe_change_passes(change: Callable[[dict[str, Any]], object]) -> None:
    assert changed(change) == []


def test_the_writer_refuses_to_overwrite_what_it_would_break(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents.write(tmp_path)
    before = {path: path.read_text() for path in tmp_path.rglob("*.*")}
    narrower = create_model("RecipientErased", __base__=RecipientErased, version=(int, Field(ge=5)), why=(str, ...))
    monkeypatch.setattr(documents, "SAID_BY", {narrower: ("subscriptions",)})
    with pytest.raises(documents.Breaks) as refusal:
        documents.write(tmp_path)
    assert "se.budkavle.recipient.erased.v1: The field /data/why is newly required." in str(refusal.value)
    assert "/data/version changed its minimum from 1 to 5" in str(refusal.value)
    assert {path: path.read_text() for path in tmp_path.rglob("*.*")} == before


def test_the_asyncapi_document_holds_together() -> None:
    """Every reference leads somewhere, every operation and channel is used; the official schema is checked by hand when
    the form of the document changes (npm: @asyncapi/specs)."""
    document = json.loads((DOCS / "events" / "asyncapi.json").read_text())
    assert document["asyncapi"] == "3.0.0"
    registry: Registry[Any] = Registry().with_resource("", Resource.opaque(document))
    for reference in _references(document):
        if reference.startswith("#"):
            assert registry.resolver().lookup(reference).contents
        else:
            assert (DOCS / "events" / reference).exists()
    used = {operation["channel"]["$ref"].removeprefix("#/channels/") for operation in document["operations"].values()}
    assert used == set(document["channels"])
    said = {key.split("_says_")[1] for key in document["operations"] if "_says_" in key}
    assert said == set(document["channels"])
    assert document["channels"]["mail_requested"]["parameters"]["lane"]["enum"] == [str(lane) for lane in Lane]


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in _references(value)]
    return [found for value in node for found in _references(value)] if isinstance(node, list) else []
