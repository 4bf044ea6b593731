"""Content dies when a scheduled item is due: everybody gets it once, a little late."""

from datetime import UTC, datetime, timedelta

import pytest
from tests.deployments import Distributed, Standalone
from tests.desk import CONTENT
from tests.eventually import eventually
from tests.resilience.moments import AFTER_COMMIT, BEFORE_COMMIT, Moment
from tests.resilience.scene import FEW, HOOK, NEWSROOMS, Scene

SOON = timedelta(seconds=1.5)
soak = pytest.mark.soak


async def scheduled(scene: Scene, after: timedelta = SOON) -> tuple[str, datetime]:
    """For a moment that is to come."""
    item, publish_at = await scene.desk.draft(FEW), datetime.now(UTC) + after
    body = {"publish_at": publish_at.isoformat()}
    await scene.desk.call("POST", f"{CONTENT}/items/{item}/publish", json=body)
    scene.oracle.accepted(item, frozenset(NEWSROOMS), frozenset({HOOK}))
    return item, publish_at


@pytest.mark.parametrize("kind", [Standalone.kind, pytest.param(Distributed.kind, marks=soak)])
async def test_f1_content_is_dead_when_a_scheduled_item_is_due(scene: Scene, kind: str) -> None:
    _, publish_at = await scheduled(scene)
    await scene.kill("content")
    await eventually(lambda: datetime.now(UTC) > publish_at)
    assert scene.inboxes.count == 0
    await scene.start("content")
    totals = await scene.check_sound(kills=1)
    assert totals["repeats"] == 0


@pytest.mark.parametrize("kind", [Distributed.kind])
@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(BEFORE_COMMIT, id="before_the_commit"),
        pytest.param(AFTER_COMMIT, id="after_the_commit", marks=soak),
    ],
)
async def test_f1_f2_content_dies_publishing_a_scheduled_item(scene: Scene, kind: str, moment: Moment) -> None:
    item, _ = await scheduled(scene)
    died = scene.kill_when("content", moment)
    await scene.revive("content", died)
    totals = await scene.check_sound()
    assert totals["repeats"] == 0
    told = f"SELECT count(*) FROM outbox WHERE convert_from(body, 'UTF8') LIKE '%{item}%'"
    assert scene.deployment.ask("content", told)[0][0] == 1
