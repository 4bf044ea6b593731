"""One deployment of each kind for all tests of a worker: they kill it again and again, and it must go on."""

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import failing
from tests.deployments import Deployment, Distributed, Standalone
from tests.desk import Desk
from tests.inboxes import Inboxes
from tests.resilience.house import Home, House
from tests.resilience.rotation import Keys
from tests.resilience.scene import Scene
from tests.servers.receiver import HttpReceiver

HERE = Path(__file__).parent
house = House()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield from failing.pytest_runtest_makereport(item, call)
    if report.failed:
        item.stash[FAILED] = True
    return report


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    """Nobody of this room comes next, or a failure has left who knows what."""
    ended_well = False
    try:
        yield
        ended_well = not item.stash.get(FAILED, False)
    finally:
        if nextitem is None or HERE not in nextitem.path.parents or not ended_well:
            house.close(ended_well=ended_well)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    made = Keys(tmp_path_factory.mktemp("keys"))
    made.make()
    return made


@pytest.fixture(params=[Distributed.kind, Standalone.kind])
def kind(request: pytest.FixtureRequest) -> str:
    """Both deployments, unless a module asks for one of them."""
    return str(request.param)


@pytest.fixture
def home(kind: str) -> Home:
    return house.home(kind)


@pytest.fixture
def deployment(home: Home) -> Deployment:
    return home.deployment


@pytest.fixture
def intranet(home: Home) -> HttpReceiver:
    return home.intranet


@pytest.fixture
def new_inboxes(tmp_path: Path) -> Iterator[Callable[..., Inboxes]]:
    """Call it with a deployment and the sink's options: from then on the deployment's mail goes there."""
    made: list[Inboxes] = []

    def make(deployment: Deployment, *options: str) -> Inboxes:
        made.append(Inboxes(tmp_path / f"inboxes-{len(made)}", *options))
        made[-1].start()
        deployment.mail_link.lead_to(made[-1].port)
        return made[-1]

    yield make
    for inboxes in made:
        inboxes.stop()


@pytest.fixture
async def scene(
    home: Home, new_inboxes: Callable[..., Inboxes], request: pytest.FixtureRequest
) -> AsyncIterator[Scene]:
    """Everything runs; the mail goes to a fresh sink."""
    async with home.deployment.client() as api:
        inboxes = new_inboxes(home.deployment)
        made = Scene(home.deployment, Desk(api), inboxes, home.intranet, home.broker, home.database, home.hook_secret)
        made.told_before = len(home.intranet.requests)
        made.is_soak = request.node.get_closest_marker("soak") is not None
        yield made
    for link in home.deployment.links():
        link.mend()
