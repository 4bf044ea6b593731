"""The alarm rules of `deploy/observability`, judged by a real Prometheus over what running services say: each fault of more
than a minute raises its own alarm and no other, and half an hour of work without a fault raises none."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from uuid import uuid4

import aio_pika
import pytest
from tests.deployments import SERVICES, Distributed
from tests.eventually import eventually
from tests.resilience.faketime import WRONG_CLOCK, faketime_library
from tests.resilience.scene import Scene, check_settled
from tests.servers.prometheus import Prometheus

from shared.messaging.topology import DISTRIBUTOR_NEWS

pytestmark = pytest.mark.soak
CLEAN_S = float(os.environ.get("BUDKAVLE_CLEAN_S", "1800"))
SOUNDS_WITHIN_S = 150.0
"""The rules wait a minute; what they are told of is noticed before that, within half a minute at most."""
GOES_ON_FOR_S = 60.0
"""As long again: what would sound a little later is a second alarm for one fault."""
FALLS_SILENT_WITHIN_S = 90.0

Act = Callable[[Scene], Awaitable[None]]


@pytest.fixture
def kind() -> str:
    return Distributed.kind


@pytest.fixture
def prometheus(scene: Scene) -> Iterator[Prometheus]:
    server = Prometheus([replica.port for replica in scene.deployment.every_replica()])
    server.start()
    yield server
    server.remove()


@dataclass(frozen=True)
class Fault:
    """What begins and ends it, and what alone sounds."""

    alarm: str
    begin: Act
    mend: Act
    falls_silent: bool = True


def _off_the_loop(act: Callable[[Scene], object]) -> Act:
    async def acted(scene: Scene) -> None:
        await asyncio.to_thread(act, scene)

    return acted


def _each_distributor(act: str) -> Act:
    return _off_the_loop(lambda scene: [getattr(one, act)() for one in scene.deployment.replicas["distributor"]])


def _broker(act: str) -> Act:
    return _off_the_loop(lambda scene: getattr(scene.broker, act)())


def _database(act: str) -> Act:
    return _off_the_loop(lambda scene: getattr(scene.database, act)())


async def _relay_away(scene: Scene) -> None:
    scene.deployment.mail_link.close()


async def _relay_back(scene: Scene) -> None:
    scene.deployment.mail_link.lead_to(scene.inboxes.port)


async def _distributor_again(scene: Scene, **environment: str) -> None:
    for replica in scene.deployment.replicas["distributor"]:
        replica.tell(**environment)
        await asyncio.to_thread(replica.end)
        await asyncio.to_thread(replica.start)


async def _clock_wrong(scene: Scene) -> None:
    await _distributor_again(scene, **WRONG_CLOCK, LD_PRELOAD=faketime_library(), FAKETIME="-90")


async def _clock_right(scene: Scene) -> None:
    await _distributor_again(scene, LD_PRELOAD="")


async def _poison(scene: Scene) -> None:
    assert isinstance(scene.deployment, Distributed)
    async with await aio_pika.connect(scene.deployment.amqp_url) as connection:
        channel = await connection.channel()
        message = aio_pika.Message(b"\x00\xff{", message_id=str(uuid4()))
        await channel.default_exchange.publish(message, f"{scene.deployment.namespace}.{DISTRIBUTOR_NEWS.name}")


async def _poison_put_aside(scene: Scene) -> None:
    gone = "WITH gone AS (DELETE FROM dead_letters RETURNING 1) SELECT count(*) FROM gone"
    for service in SERVICES:
        await asyncio.to_thread(scene.deployment.ask, service, gone)


FAULTS = {
    "a_service_is_gone": Fault(
        "BudkavleServiceAway", lambda scene: scene.kill("distributor"), lambda scene: scene.start("distributor")
    ),
    "a_service_hangs": Fault("BudkavleServiceAway", _each_distributor("pause"), _each_distributor("resume")),
    "the_broker_is_gone": Fault("BudkavleBrokerRefuses", _broker("kill"), _broker("start")),
    "the_broker_hangs": Fault("BudkavleBrokerRefuses", _broker("pause"), _broker("resume")),
    "the_broker_is_full": Fault("BudkavleBrokerRefuses", _broker("raise_memory_alarm"), _broker("clear_memory_alarm")),
    "the_database_is_gone": Fault("BudkavleDatabaseAway", _database("stop_immediately"), _database("start")),
    "the_database_hangs": Fault("BudkavleDatabaseAway", _database("pause"), _database("resume")),
    "the_relay_is_gone": Fault("BudkavleChannelPaused", _relay_away, _relay_back),
    "a_clock_is_wrong": Fault("BudkavleClockWrong", _clock_wrong, _clock_right),
    # It counts the last quarter of an hour.
    "a_message_is_given_up": Fault("BudkavleMessagesGivenUp", _poison, _poison_put_aside, falls_silent=False),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_of_over_a_minute_raises_its_alarm_and_no_other(
    scene: Scene, prometheus: Prometheus, name: str
) -> None:
    fault = FAULTS[name]
    await scene.publish_to_few()
    await scene.check_sound()
    await eventually(lambda: prometheus.watched() == len(SERVICES), within=30)
    await fault.begin(scene)
    began = time.monotonic()
    try:
        if not name.startswith("the_database"):
            await scene.publish_to_few()
        await eventually(prometheus.firing, within=SOUNDS_WITHIN_S, every=1)
        sounded_after = time.monotonic() - began
        await asyncio.sleep(GOES_ON_FOR_S)
        assert prometheus.fired() == {fault.alarm}
        assert prometheus.firing() == {fault.alarm}
    finally:
        await fault.mend(scene)
    mended_at = time.monotonic()
    if fault.falls_silent:
        await eventually(lambda: not prometheus.firing(), within=FALLS_SILENT_WITHIN_S, every=1)
    await scene.check_sound(kills=1, within=120)
    assert prometheus.fired() == {fault.alarm}
    silent_after = time.monotonic() - mended_at
    print(
        f"measured: {fault.alarm} {sounded_after:.0f} s after the fault began, silent within {silent_after:.0f} s of its end"
    )


async def test_half_an_hour_of_work_raises_no_alarm(scene: Scene, prometheus: Prometheus) -> None:
    """Everybody is mailed every ten minutes, and newsrooms every ten seconds."""
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
    print(f"measured: no alarm in {CLEAN_S:.0f} s with {totals['items']} items published")
