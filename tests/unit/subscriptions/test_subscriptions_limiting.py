"""What the alarm of a list bomb hears."""

import pytest
from prometheus_client import REGISTRY

from subscriptions.limits import Counted
from subscriptions.web import limiting


@pytest.mark.parametrize("limit", [*Counted, limiting.PAUSE])
def test_each_limit_is_counted_before_it_refuses_anybody(limit: str) -> None:
    """A number that comes up as a thousand has not grown."""
    assert REGISTRY.get_sample_value("budkavle_asks_refused_total", {"limit": limit}) is not None
