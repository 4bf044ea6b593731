"""What the API's bodies take for what."""

import pytest
from pydantic import ValidationError

from subscriptions.schemas import DigestRunIn, SubscriberPatch


@pytest.mark.parametrize("value", [0, 1, 1.0, "true", "off", "yes"])
def test_nothing_but_true_and_false_is_a_yes_or_a_no(value: object) -> None:
    """Else `{"unsubscribed": "no"}` would be a guess at what somebody meant."""
    with pytest.raises(ValidationError):
        SubscriberPatch.model_validate({"unsubscribed": value})
    with pytest.raises(ValidationError):
        DigestRunIn.model_validate({"weekly": value})
    assert SubscriberPatch.model_validate({"unsubscribed": False}).unsubscribed is False
