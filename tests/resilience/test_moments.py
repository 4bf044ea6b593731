"""Every deed of the bench at every moment that it knows: whatever happens to a service or its line, wherever it is in an
item's way, everybody has the item once. Each service that has such a line is struck, one after the other."""

import asyncio
import threading

import pytest
from tests.deployments import SERVICES, Distributed
from tests.eventually import eventually
from tests.resilience.deeds import DEEDS, Victim, struck
from tests.resilience.moments import MOMENTS, Moment
from tests.resilience.scene import Scene

LASTS_S = 2.0
IN_DOUBT_S = 66.0
"""A mail whose server fell silent after the dot goes out again no sooner: ten minutes, as fast as the tests' clock goes."""


@pytest.fixture
def kind() -> str:
    return Distributed.kind


async def test_every_moment_is_on_an_item_s_way(scene: Scene) -> None:
    """On each line that it is said to be on: none of the patterns is of bytes that never pass."""
    passed = {
        f"{service}: {name}": scene.when(service, moment, lambda: None)
        for name, moment in MOMENTS.items()
        for service in _struck_at(moment)
    }
    await scene.publish_to_few()
    await eventually(lambda: not _unset(passed) or _raise(_unset(passed)), within=30)
    totals = await scene.check_sound()
    assert totals["repeats"] == 0


def _unset(passed: dict[str, threading.Event]) -> list[str]:
    return [name for name, event in passed.items() if not event.is_set()]


def _raise(left: list[str]) -> bool:
    raise AssertionError(left)


def _struck_at(moment: Moment) -> tuple[str, ...]:
    """The services that have such a line."""
    return ("distributor",) if moment.link in ("mail", "intranet") else SERVICES


@pytest.mark.soak
@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("name", MOMENTS)
async def test_each_deed_at_each_moment(scene: Scene, name: str, deed: str) -> None:
    moment = MOMENTS[name]
    victims = [Victim.of(scene, service, moment) for service in _struck_at(moment)]
    striking = [asyncio.create_task(struck(victim, moment, deed, LASTS_S)) for victim in victims]
    await asyncio.sleep(0)
    _, asked_again = await scene.publish_at_last()
    await asyncio.gather(*striking)  # each moment has come, to each of them
    # A repeat is excused only where a sender could not know: it died, or its line to the receiver did.
    totals = await scene.check_sound(
        kills=deed == "kill" or moment.link in ("mail", "intranet"), within=IN_DOUBT_S + 60
    )
    print(f"measured: {deed} {name}: {totals['repeats']} repeats, {asked_again} calls asked again")
