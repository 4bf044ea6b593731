"""Which worker runs which tests, and when: what shares a deployment goes to one worker, and the slowest rooms go first.

A worker that took part of such a room from another would open a deployment of its own, which takes longer than most
tests; and a slow room that is entered last leaves the other workers idle at the end.
"""

from collections.abc import Sequence

import pytest
from xdist.scheduler import LoadScopeScheduling

RESILIENCE = "tests/resilience/"
SLOWEST_FIRST = (RESILIENCE, "tests/journeys/", "tests/pages/", "tests/servers/", "tests/integration/", "tests/")
HOME_OF_ITS_OWN = "tests/resilience/test_rolling_restart.py"
NOTHING_SHARED = "tests/journeys/test_standalone_"


class Rooms(LoadScopeScheduling):
    """Hands out one share after another, in the order in which the tests were collected."""

    def __init__(self, config: pytest.Config, log: object = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return share(nodeid)


def share(nodeid: str) -> str:
    """What one worker runs in one go: the tests of a file, of a room, or a single test; by deployment, where it has one."""
    path, parameters = nodeid.partition("::")[0], nodeid.partition("[")[2]
    if path.startswith(NOTHING_SHARED):
        return nodeid
    if path.startswith(RESILIENCE) and path != HOME_OF_ITS_OWN:
        path = RESILIENCE
    return f"{path} standalone" if "standalone" in parameters else path


def slowest_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    def rank(item: pytest.Item) -> int:
        return next(number for number, room in enumerate((*SLOWEST_FIRST, "")) if item.nodeid.startswith(room))

    return sorted(items, key=rank)
