"""The three APIs against their OpenAPI documents as running services answer, each alone with its database and broker: call by
call and in chains, with every check that Schemathesis has. The same runs in process, quickly, in each service's own tests."""

from collections.abc import Iterator

import pytest
import schemathesis
from tests.api_properties import CONFIG, calls_hold, chains_hold, edges_hold
from tests.deployments import ADMIN_KEY, SERVICES, Deployment, Distributed, Standalone
from tests.servers.rabbitmq import shared_amqp_url

pytestmark = pytest.mark.soak
KEY = {"Authorization": f"Bearer {ADMIN_KEY}"}
UNLIMITED = {"REQUESTS_PER_KEY": "0"}


@pytest.fixture(scope="module", params=[Distributed.kind, Standalone.kind])
def running(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    made: Deployment = (
        Distributed(shared_amqp_url(), settings=UNLIMITED)
        if request.param == Distributed.kind
        else Standalone(settings=UNLIMITED)
    )
    with made.opened():
        yield made


@pytest.mark.parametrize("service", SERVICES)
def test_running_services_answer_as_promised(running: Deployment, service: str) -> None:
    port = running.replicas[service][0].port
    url = f"http://127.0.0.1:{port}/api/{service}/openapi.json"
    document = schemathesis.openapi.from_url(url, config=CONFIG)
    for found in document.get_all_operations():
        edges_hold(found.ok(), KEY)
        for mode in schemathesis.GenerationMode:
            calls_hold(found.ok(), mode, KEY, 20)
    chains_hold(document, KEY, 20)
    assert not [line for line in running.log_lines() if line["event"] == "request_failed"]
    assert all(replica.running for replica in running.every_replica())
