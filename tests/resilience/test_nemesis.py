"""Ten minutes of faults drawn by a seed, one every three to ten seconds, while items are published without pause: what was
accepted must have arrived, once but for what no sender could know. `BUDKAVLE_SEED=… make soak ARGS="-k nemesis"` repeats a
run's faults in their order."""

import asyncio
import os
import random
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from tests.deployments import SERVICES, Deployment, Distributed, Standalone
from tests.resilience.acts import Act, broker, database
from tests.resilience.scene import CONTACT, FIVE_HUNDRED, HOOKS, Scene
from tests.servers.proxy import TcpProxy

LASTS_S = float(os.environ.get("BUDKAVLE_NEMESIS_S", "600"))
PAUSES_S = (3.0, 10.0)
LONGEST_FAULT_S = 6.0

Fault = Callable[["Nemesis"], Awaitable[None]]


@pytest.fixture(params=[Distributed.kind, Standalone.kind])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@dataclass
class Nemesis:
    """What strikes, and the doubts that it may have caused: deaths of senders, and lines cut under what was on its way."""

    scene: Scene
    dice: random.Random
    doubts: int = 0
    struck: Counter[str] = field(default_factory=Counter)

    @property
    def lasts_s(self) -> float:
        return self.dice.uniform(0.5, LONGEST_FAULT_S)

    async def strike_until(self, ends_at: float) -> None:
        faults = ANYWHERE | (DISTRIBUTED if isinstance(self.scene.deployment, Distributed) else {})
        while time.monotonic() < ends_at:
            await asyncio.sleep(self.dice.uniform(*PAUSES_S))
            name = self.dice.choice(list(faults))
            self.struck[name] += 1
            print(f"{time.strftime('%H:%M:%S')} {name}")
            await faults[name](self)

    def service(self) -> str:
        service = self.dice.choice(SERVICES)
        if service == "distributor" or isinstance(self.scene.deployment, Standalone):
            self.doubts += 1
        return service

    def link(self) -> TcpProxy:
        """Any line; on those to receivers, what is on its way falls in doubt."""
        deployment: Deployment = self.scene.deployment
        link = self.dice.choice(deployment.links())
        self.doubts += link in (deployment.mail_link, deployment.intranet_link)
        return link


async def a_service_dies(nemesis: Nemesis) -> None:
    service = nemesis.service()
    await nemesis.scene.kill(service)
    await nemesis.scene.start(service)


def dies(service: str) -> Fault:
    """That one, and comes back."""

    async def strike(nemesis: Nemesis) -> None:
        nemesis.doubts += service == "distributor"
        await nemesis.scene.kill(service)
        await nemesis.scene.start(service)

    return strike


async def a_service_restarts(nemesis: Nemesis) -> None:
    service = nemesis.dice.choice(SERVICES)
    await nemesis.scene.end(service)
    await nemesis.scene.start(service)


async def a_service_freezes(nemesis: Nemesis) -> None:
    service = nemesis.service()
    replicas = nemesis.scene.deployment.replicas[service]
    for replica in replicas:
        replica.pause()
    await asyncio.sleep(nemesis.lasts_s * 3)  # beyond a lease now and then
    for replica in replicas:
        replica.resume()


async def a_line_is_cut(nemesis: Nemesis) -> None:
    nemesis.link().cut()


def a_bad_line(trouble: Callable[[TcpProxy], None]) -> Fault:
    """Any line is in trouble for a while."""

    async def strike(nemesis: Nemesis) -> None:
        link = nemesis.link()
        trouble(link)
        await asyncio.sleep(nemesis.lasts_s)
        link.mend()

    return strike


async def a_receiver_is_away(nemesis: Nemesis) -> None:
    deployment = nemesis.scene.deployment
    link = nemesis.dice.choice([deployment.mail_link, deployment.intranet_link])
    nemesis.doubts += 1
    target = link.target
    link.close()
    await asyncio.sleep(nemesis.lasts_s)
    assert target is not None
    link.lead_to(target)


def for_a_while(begin: Act, mend: Act) -> Fault:
    async def strike(nemesis: Nemesis) -> None:
        await begin(nemesis.scene)
        await asyncio.sleep(nemesis.lasts_s)
        await mend(nemesis.scene)

    return strike


async def everything_dies(nemesis: Nemesis) -> None:
    scene = nemesis.scene
    nemesis.doubts += 1
    for service in SERVICES:
        await scene.kill(service)
    await asyncio.gather(broker("kill")(scene), database("kill")(scene))
    await database("start")(scene)
    await broker("start")(scene)
    for service in SERVICES:
        await scene.start(service)


ALONE: dict[str, Fault] = {f"{service}_dies": dies(service) for service in SERVICES}
ANYWHERE: dict[str, Fault] = {
    "a_service_dies": a_service_dies,
    "a_service_restarts": a_service_restarts,
    "a_service_freezes": a_service_freezes,
    "a_line_is_cut": a_line_is_cut,
    "a_line_is_silent": a_bad_line(TcpProxy.hold),
    "a_line_is_slow": a_bad_line(lambda link: setattr(link, "delay_s", 0.2)),
    "a_receiver_is_away": a_receiver_is_away,
}
DISTRIBUTED: dict[str, Fault] = {
    "the_broker_dies": for_a_while(broker("kill"), broker("start")),
    "the_broker_hangs": for_a_while(broker("pause"), broker("resume")),
    "the_broker_is_full": for_a_while(broker("raise_memory_alarm"), broker("clear_memory_alarm")),
    "the_database_stops": for_a_while(database("stop_immediately"), database("start")),
    "the_database_hangs": for_a_while(database("pause"), database("resume")),
    "everything_dies": everything_dies,
}


@pytest.mark.soak
async def test_nemesis_faults_drawn_by_a_seed_lose_nothing(scene: Scene) -> None:
    seed = os.environ.get("BUDKAVLE_SEED") or secrets.token_hex(4)
    print(f"BUDKAVLE_SEED={seed}")
    nemesis = Nemesis(scene, random.Random(seed))
    ends_at = time.monotonic() + LASTS_S
    publishing = asyncio.create_task(_publish_until(scene, ends_at))
    await nemesis.strike_until(ends_at)
    asked_again = await publishing
    scene.oracle.askers.add(CONTACT)  # a receiver may have been away for four tries
    totals = await scene.check_sound(kills=nemesis.doubts, within=180)
    print(f"measured: {dict(totals)}, {nemesis.doubts} times in doubt, {asked_again} calls asked again;")
    print(f"measured: {sum(nemesis.struck.values())} faults {dict(nemesis.struck)}")
    assert totals["items"] > LASTS_S / 30


async def _publish_until(scene: Scene, ends_at: float) -> int:
    """Gives how often the editor's program had to ask again."""
    asked_again = 0
    while time.monotonic() < ends_at:
        _, again = await scene.publish_at_last()
        asked_again += again
        await asyncio.sleep(1)
    return asked_again


@pytest.mark.soak
@pytest.mark.parametrize(
    ("kind", "name"),
    [(Distributed.kind, name) for name in (*ALONE, *ANYWHERE, *DISTRIBUTED)]
    + [(Standalone.kind, name) for name in ANYWHERE],
)
async def test_f1_to_f28_twenty_news_to_five_hundred_people_and_five_intranets(scene: Scene, name: str) -> None:
    """Each of these faults once, at the catalogue's size: news are still published, and the first are under way."""
    nemesis = Nemesis(scene, random.Random(name))
    publishing = asyncio.create_task(_publish_twenty(scene))
    await scene.until_received(500, within=60)
    await (ALONE | ANYWHERE | DISTRIBUTED)[name](nemesis)
    asked_again = await publishing
    totals = await scene.check_sound(kills=nemesis.doubts, within=240)
    print(f"measured: {dict(totals)}, {nemesis.doubts} times in doubt, {asked_again} calls asked again")
    assert (totals["items"], totals["expected"]) == (20, 20 * (500 + len(HOOKS)))


async def _publish_twenty(scene: Scene) -> int:
    return sum([(await scene.publish_at_last(FIVE_HUNDRED))[1] for _ in range(20)])
