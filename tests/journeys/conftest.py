"""Deployments for journeys: real processes, a sink for the mail, a receiver for the webhooks."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.deployments import Deployment, Distributed, Standalone
from tests.failing import pytest_runtest_makereport
from tests.inboxes import Inboxes
from tests.servers.rabbitmq import shared_amqp_url
from tests.servers.receiver import HttpReceiver

__all__ = ["pytest_runtest_makereport"]


@pytest.fixture
def inboxes(tmp_path: Path) -> Iterator[Inboxes]:
    inboxes = Inboxes(tmp_path)
    inboxes.start()
    yield inboxes
    inboxes.stop()


@pytest.fixture
def intranets() -> Iterator[HttpReceiver]:
    with HttpReceiver() as receiver:
        yield receiver


@pytest.fixture
def from_empty() -> bool:
    """Whether each service migrates its own database, which takes three processes and is seen once."""
    return False


@pytest.fixture(params=[Distributed.kind, Standalone.kind])
def deployment(request: pytest.FixtureRequest, inboxes: Inboxes, from_empty: bool) -> Iterator[Deployment]:
    """Both deployments from their very beginning; the distributed one with two replicas of each service."""
    if request.param == Distributed.kind:
        made: Deployment = Distributed(shared_amqp_url(), modes=("run", "run"), from_empty=from_empty)
    else:
        made = Standalone()
    with made.opened(inboxes.port):
        yield made
