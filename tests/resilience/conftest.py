"""One deployment of each kind for all tests of a file: they kill it again and again, and it must go on."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from tests.deployments import Deployment, Distributed, Standalone
from tests.desk import Desk
from tests.failing import pytest_runtest_makereport
from tests.inboxes import Inboxes
from tests.resilience.scene import SETTINGS, Scene, populate
from tests.servers.rabbitmq import shared_amqp_url
from tests.servers.receiver import HttpReceiver

__all__ = ["pytest_runtest_makereport"]


@pytest.fixture(scope="module")
def intranet() -> Iterator[HttpReceiver]:
    with HttpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module", params=[Distributed.kind, Standalone.kind])
def deployment(request: pytest.FixtureRequest, intranet: HttpReceiver) -> Iterator[Deployment]:
    made: Deployment = (
        Distributed(shared_amqp_url(), settings=SETTINGS, linked=("content", "subscriptions"))
        if request.param == Distributed.kind
        else Standalone(settings=SETTINGS)
    )
    try:
        made.open()
        populate(made, intranet)
        yield made
    finally:
        made.close()


@pytest.fixture
def new_inboxes(tmp_path: Path) -> Iterator[Callable[..., Inboxes]]:
    """Call it with a deployment and the sink's options: from then on the deployment's mail goes there."""
    made: list[Inboxes] = []

    def make(deployment: Deployment, *options: str) -> Inboxes:
        made.append(Inboxes(tmp_path / f"inboxes-{len(made)}", *options))
        made[-1].start()
        deployment.mail_link.lead_to(made[-1].port)
        return made[-1]

    yield make
    for inboxes in made:
        inboxes.stop()


@pytest.fixture
async def scene(
    deployment: Deployment, intranet: HttpReceiver, new_inboxes: Callable[..., Inboxes]
) -> AsyncIterator[Scene]:
    """Everything runs; the mail goes to a fresh sink."""
    for service in deployment.replicas:
        deployment.start(service)
    async with deployment.client() as api:
        yield Scene(deployment, Desk(api), new_inboxes(deployment), intranet)
