"""What is done to a service, or to its line, at a moment; the moments themselves are in `moments.py`."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from tests.eventually import eventually
from tests.resilience.moments import Moment
from tests.resilience.scene import Scene
from tests.servers.proxy import TcpProxy


@dataclass(frozen=True)
class Victim:
    """A service, and the one of its lines on which the moment is."""

    scene: Scene
    service: str
    link: TcpProxy

    @classmethod
    def of(cls, scene: Scene, service: str, moment: Moment) -> Self:
        return cls(scene, service, scene.link(service, moment.link))

    def signalled(self, number: signal.Signals) -> None:
        for pid in self.scene.deployment.pids(self.service):
            os.kill(pid, number)

    async def mend(self, deed: str) -> None:
        """An ordinary line again, and a service that runs."""
        self.link.mend()
        if deed == "stop":
            self.signalled(signal.SIGCONT)
        if deed == "kill":
            await self.scene.kill(self.service)
            await self.scene.start(self.service)


def _kill(victim: Victim) -> None:
    victim.signalled(signal.SIGKILL)
    victim.link.drop()


def _delay(victim: Victim) -> None:
    victim.link.delay_s = 0.5


def _cut(victim: Victim) -> None:
    victim.link.cut_after = 3_000


DEEDS: dict[str, Callable[[Victim], None]] = {
    "kill": _kill,
    "stop": lambda victim: victim.signalled(signal.SIGSTOP),
    "reset": lambda victim: victim.link.cut(),
    "black_hole": lambda victim: victim.link.hold(),
    "delay": _delay,
    "cut": _cut,
}


async def struck(victim: Victim, moment: Moment, deed: str, lasts_s: float, within: float = 40) -> None:
    """Wait for the moment, let the deed last, and mend it."""
    done: threading.Event = victim.scene.when(victim.service, moment, lambda: DEEDS[deed](victim))
    await eventually(done.is_set, within=within)
    await asyncio.sleep(lasts_s)
    await victim.mend(deed)
