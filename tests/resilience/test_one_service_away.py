"""Any one service or the mail server is away while the others work: nothing fails, and it catches up."""

from collections.abc import AsyncIterator

import pytest
from tests.deployments import SERVICES, Distributed
from tests.resilience.scene import EVERYBODY, Scene, asked, check_ledger, check_once_each, check_settled


@pytest.fixture
def kind() -> str:
    """Its services live and die apart."""
    return Distributed.kind


@pytest.fixture
async def everything_settled(scene: Scene) -> AsyncIterator[None]:
    yield
    await check_settled(scene)


@pytest.mark.usefixtures("everything_settled")
@pytest.mark.parametrize("away", ["subscriptions", "distributor"])
async def test_published_while_a_service_is_away(scene: Scene, away: str) -> None:
    await scene.end(away)
    item = await scene.publish()
    await asked(scene.desk, *(service for service in SERVICES if service != away))
    assert scene.inboxes.count == 0
    await scene.start(away)
    await scene.desk.reached(item)
    assert check_once_each(scene.inboxes.of(item), EVERYBODY) == 0
    await check_ledger(scene, item)


@pytest.mark.usefixtures("everything_settled")
async def test_content_goes_away_when_it_has_published(scene: Scene) -> None:
    """The mail goes out without it, and the reach is told when it is back."""
    item = await scene.publish()
    await scene.until_received(1)
    await scene.end("content")
    await asked(scene.desk, "subscriptions", "distributor")
    await scene.until_received(len(EVERYBODY))
    await scene.start("content")
    await scene.desk.reached(item)
    assert check_once_each(scene.inboxes.of(item), EVERYBODY) == 0
    await check_ledger(scene, item)


@pytest.mark.usefixtures("everything_settled")
async def test_the_mail_server_is_away(scene: Scene) -> None:
    scene.deployment.mail_link.close()
    item = await scene.publish()
    await scene.until_planned(item)
    await asked(scene.desk, *SERVICES)
    scene.deployment.mail_link.lead_to(scene.inboxes.port)
    await scene.desk.reached(item)
    assert check_once_each(scene.inboxes.of(item), EVERYBODY) == 0
    await check_ledger(scene, item)
