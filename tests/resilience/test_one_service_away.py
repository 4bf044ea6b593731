"""Any one service or the mail server is away while the others work: nothing fails, and it catches up."""

import pytest
from tests.deployments import SERVICES, Distributed
from tests.resilience.scene import EVERYBODY, Scene, asked


@pytest.fixture
def kind() -> str:
    """Its services live and die apart."""
    return Distributed.kind


@pytest.mark.parametrize("away", [pytest.param("subscriptions", marks=pytest.mark.soak), "distributor"])
async def test_published_while_a_service_is_away(scene: Scene, away: str) -> None:
    await scene.end(away)
    await scene.publish()
    await asked(scene.desk, *(service for service in SERVICES if service != away))
    assert scene.inboxes.count == 0
    await scene.start(away)
    totals = await scene.check_sound()
    assert totals["repeats"] == 0


async def test_content_goes_away_when_it_has_published(scene: Scene) -> None:
    """The mail goes out without it, and the reach is told when it is back."""
    await scene.publish()
    await scene.until_received(1)
    await scene.end("content")
    await asked(scene.desk, "subscriptions", "distributor")
    await scene.until_received(len(EVERYBODY))
    await scene.start("content")
    totals = await scene.check_sound()
    assert totals["repeats"] == 0


async def test_the_mail_server_is_away(scene: Scene) -> None:
    scene.deployment.mail_link.close()
    item = await scene.publish()
    await scene.until_planned(item)
    await asked(scene.desk, *SERVICES)
    scene.deployment.mail_link.lead_to(scene.inboxes.port)
    totals = await scene.check_sound()
    assert totals["repeats"] == 0
