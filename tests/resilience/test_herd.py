"""F20: the broker and the mail relay come back to all that has piled up, and nobody is run over: connections come back spread
out, the relay sees no more of them than ever and no more mails than it may, and the drain is as quick as on any day."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import pytest
from tests.deployments import SMTP_CONNECTIONS, Distributed
from tests.eventually import eventually
from tests.resilience.scene import EVERYBODY, NEWSROOMS, UNPUBLISHED, Scene, check_reconnections, most_within

pytestmark = pytest.mark.soak
PER_MINUTE = 12_000
ON_ANY_DAY, WAITING = 4, 42
"""Items to everybody: before the fault, to see how quick a drain is, and under it."""
BEHIND = 50
"""Items to newsrooms, published with the broker away."""
AWAY_S = 600.0
RATE_KEPT, RATE_BORNE = 0.8, 1.5
WINDOW_S = 10.0


@pytest.fixture
def kind() -> str:
    return Distributed.kind


@pytest.fixture
async def measured_pace(scene: Scene) -> AsyncIterator[None]:
    """The relay takes so many a minute, and the distributor knows it."""
    (replica,) = scene.deployment.replicas["distributor"]
    await asyncio.to_thread(replica.again, BUDKAVLE_SMTP_RATE_PER_MINUTE=str(PER_MINUTE))
    yield
    await asyncio.to_thread(replica.again, BUDKAVLE_SMTP_RATE_PER_MINUTE=None)


@pytest.mark.usefixtures("measured_pace")
async def test_f20_fifty_thousand_wait_for_ten_minutes(scene: Scene) -> None:
    for _ in range(ON_ANY_DAY):
        await scene.publish()
    before = ON_ANY_DAY * len(EVERYBODY)
    normally = await _drained(scene, before)
    back_at = await _away(scene)
    dots = await _drained(scene, before + WAITING * len(EVERYBODY) + BEHIND * len(NEWSROOMS))
    normal, kept = _rate(normally), _rate(dots[before:])
    busiest = most_within(dots, WINDOW_S) / (PER_MINUTE / 60 * WINDOW_S)
    asked, at_once = check_reconnections(scene), scene.deployment.mail_link.most_at_once
    print(
        f"measured: {len(dots) - before} mails waited, the first left {dots[before] - back_at:.1f} s after the return;"
        f" {kept:.0f} a second, on any day {normal:.0f}; {busiest:.2f} of the limit in the busiest {WINDOW_S:.0f} s;"
        f" {asked} connections of a service to the broker within a second at most, {at_once} to the relay at once"
    )
    assert kept >= RATE_KEPT * normal
    assert busiest <= RATE_BORNE
    assert at_once <= SMTP_CONNECTIONS
    totals = await scene.check_sound(within=120)
    assert totals["repeats"] == 0


async def _away(scene: Scene) -> float:
    """First the relay, so that the ledger fills, then the broker, so that the outboxes do. Gives when both were back."""
    assert scene.broker is not None
    began = time.monotonic()
    scene.deployment.mail_link.close()
    for _ in range(WAITING):
        await scene.until_planned(await scene.publish(), within=120)
    await asyncio.to_thread(scene.broker.kill)
    for link in scene.broker_links():
        link.asked_at.clear()
    for _ in range(BEHIND):
        await scene.publish_to_few()
    assert scene.deployment.ask("content", UNPUBLISHED)[0][0] >= BEHIND
    await asyncio.sleep(max(AWAY_S - (time.monotonic() - began), 0))
    await asyncio.to_thread(scene.broker.start)
    scene.deployment.mail_link.most_at_once = 0
    scene.deployment.mail_link.lead_to(scene.inboxes.port)
    return time.time()


async def _drained(scene: Scene, count: int) -> list[float]:
    """When each of so many mails was taken, once all are."""
    await eventually(lambda: scene.inboxes.count >= count, within=60 + 3 * count * 60 / PER_MINUTE, every=0.2)
    return sorted(mail.dot_at for mail in scene.inboxes.sink.mails)


def _rate(dots: Sequence[float]) -> float:
    return (len(dots) - 1) / (dots[-1] - dots[0])
