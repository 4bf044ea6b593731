"""The alarm rules of `deploy/observability`, judged by a real Prometheus over what running services say: each fault of more
than a minute raises its own alarm and no other, and half an hour of work without a fault raises none."""

import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from tests.deployments import SERVICES, Distributed
from tests.eventually import eventually
from tests.resilience.alarm_faults import FAULTS, Fault
from tests.resilience.scene import Scene, check_settled
from tests.servers.prometheus import RULES, Prometheus

soak = pytest.mark.soak
CLEAN_S = float(os.environ.get("BUDKAVLE_CLEAN_S", "1800"))
GOES_ON_FOR_S = 60.0
"""As long again: what would sound a little later is a second alarm for one fault."""
FALLS_SILENT_WITHIN_S = 90.0
WANTS_SOMEBODY = ("error", "critical")
"""The levels that docs/runbook.md says somebody is to look at today."""


@pytest.fixture
def kind() -> str:
    return Distributed.kind


@pytest.fixture
def prometheus(scene: Scene) -> Iterator[Prometheus]:
    server = Prometheus([replica.port for replica in scene.deployment.every_replica()])
    server.start()
    yield server
    server.remove()


def test_every_rule_has_a_fault_that_makes_it_sound() -> None:
    rules = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    assert rules == {fault.alarm for fault in FAULTS.values()}


@soak
@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_of_over_a_minute_raises_its_alarm_and_no_other(
    scene: Scene, prometheus: Prometheus, name: str
) -> None:
    fault = FAULTS[name]
    await scene.publish_to_few()
    await scene.check_sound()
    await eventually(lambda: prometheus.watched() == len(SERVICES), within=30)
    began = time.monotonic()
    try:
        await fault.begin(scene)
        if fault.is_published_under:
            await scene.publish_to_few()
        await eventually(lambda: _sounds(scene, prometheus, fault), within=fault.sounds_within_s, every=1)
        sounded_after = time.monotonic() - began
        await asyncio.sleep(GOES_ON_FOR_S)
        assert prometheus.fired() == {fault.alarm}
        assert prometheus.firing() == {fault.alarm}
    finally:
        await fault.mend(scene)
    mended_at = time.monotonic()
    if fault.falls_silent:
        await eventually(lambda: not prometheus.firing(), within=FALLS_SILENT_WITHIN_S, every=1)
    silent_after = time.monotonic() - mended_at
    await scene.check_sound(kills=1, within=120)
    assert prometheus.fired() == {fault.alarm}
    silent = f"silent {silent_after:.0f} s after its end" if fault.falls_silent else "which looks back over minutes"
    print(f"measured: {fault.alarm} {sounded_after:.0f} s after the fault began, {silent}")


async def _sounds(scene: Scene, prometheus: Prometheus, fault: Fault) -> bool:
    await fault.goes_on(scene)
    return bool(prometheus.firing())


@soak
async def test_half_an_hour_of_work_raises_no_alarm(scene: Scene, prometheus: Prometheus) -> None:
    """Everybody is mailed every ten minutes, and newsrooms every ten seconds. No alarm, no error in a log, and every ledger
    is what its receivers have."""
    began_at = datetime.now(UTC)
    ends_at = time.monotonic() + CLEAN_S
    while time.monotonic() < ends_at:
        await scene.publish()
        for _ in range(60):
            await scene.publish_to_few()
            await asyncio.sleep(min(10, max(ends_at - time.monotonic(), 0)))
            if time.monotonic() >= ends_at:
                break
    totals = await scene.check_sound(within=120)
    await check_settled(scene)
    assert totals["repeats"] == 0
    assert prometheus.watched() == len(SERVICES)
    assert prometheus.fired() == set()
    said = list(scene.deployment.log_lines(since=began_at))
    assert not [line for line in said if line["level"] in WANTS_SOMEBODY]
    levels = dict(Counter(line["level"] for line in said))
    print(f"measured: no alarm in {CLEAN_S:.0f} s of work: {dict(totals)}, log lines {levels}")
