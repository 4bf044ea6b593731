"""One deployment of each kind for all tests of a file: they kill it again and again, and it must go on."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from tests.deployments import ADMIN_KEY, Deployment, Distributed, Standalone
from tests.desk import DISTRIBUTOR, SUBSCRIPTIONS, Desk
from tests.failing import pytest_runtest_makereport
from tests.inboxes import Inboxes
from tests.resilience.scene import Scene, people_file
from tests.servers.rabbitmq import shared_amqp_url
from tests.servers.receiver import HttpReceiver

__all__ = ["pytest_runtest_makereport"]

SETTINGS = {"RETRY_SCALE": "0.1"}


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


def populate(deployment: Deployment, intranet: HttpReceiver) -> None:
    """Bring the people and one endpoint in."""
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with httpx2.Client(base_url=deployment.url, headers=headers, timeout=60) as api:
        for audience in ("newsroom", "politician", "public"):
            upload = {"file": (f"{audience}.csv", people_file(audience), "text/csv")}
            answer = api.post(f"{SUBSCRIPTIONS}/imports", files=upload, data={"audience": audience})
            assert answer.status_code == 200, answer.text
        endpoint = {
            "name": "Intranätet",
            "organisation": "Kommunen",
            "contact_email": "webb@kommun.example",
            "url": intranet.url("/hook"),
            "audiences": ["public"],
        }
        assert api.post(f"{DISTRIBUTOR}/endpoints", json=endpoint).status_code == 201


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
