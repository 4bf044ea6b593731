"""Whatever comes over the bus is an event or is parked: nothing in between, and nothing raises (B36)."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.contracts import delivery, mail, news
from shared.contracts.envelope import Envelope, Event

AT = datetime(2026, 11, 22, 8, 30, tzinfo=UTC)
EVENTS = [kind for room in (news, mail, delivery) for kind in vars(room).values() if isinstance(kind, type)]
EVENTS = [kind for kind in EVENTS if issubclass(kind, Event) and "event_name" in vars(kind)]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def opened(raw: bytes) -> Envelope | None:
    try:
        return Envelope.model_validate_json(raw)
    except ValidationError:
        return None


@trials(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_b36_no_bytes_get_past_the_envelope(raw: bytes) -> None:
    assert opened(raw) is None


@trials(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(Envelope.model_fields)), JSON)
def test_b36_an_envelope_with_one_field_bent_is_whole_or_none(field: str, bent: Any) -> None:
    whole = Envelope.wrap(
        mail.RecipientErased(recipient_id=UUID(int=1), version=1),
        event_id=UUID(int=2), source="/x", subject="x", time=AT, correlation_id="c",
    )  # fmt: skip
    given_back = opened(json.dumps({**whole.model_dump(mode="json"), field: bent}).encode())
    assert given_back is None or isinstance(given_back.id, UUID)


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.event_name)
@trials(max_examples=40, deadline=None)
@given(data=st.dictionaries(st.text(max_size=12), JSON, max_size=4))
def test_b36_data_that_is_none_is_refused_and_never_raises_otherwise(kind: type[Event], data: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kind.model_validate(data)
