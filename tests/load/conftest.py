"""What the benches share: a durable database server, the broker, one sink, and the table that is printed at the end."""

import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.deployments import Deployment, Distributed, Standalone
from tests.failing import pytest_runtest_makereport  # noqa: F401 - the hook
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import shared_amqp_url
from tests.servers.run import run_directory
from tests.servers.sink import SinkProcess

from distributor.settings import DistributorSettings

RESULTS = Path(__file__).parents[2] / "bench-results"


class Table:
    """Lines of what was measured, shown together and kept as a file."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def add(self, what: str, measured: str) -> None:
        self.lines.append((what, measured))
        print(f"\n  {what}: {measured}", flush=True)

    def goal(self, what: str, measured: float, goal: float, told: str = "", *, at_most: bool = False) -> bool:
        """A ratio, or seconds, beside the goal that issue 3 set; whether it was met."""
        met = measured <= goal if at_most else measured >= goal
        sign = "at most" if at_most else "at least"
        self.add(
            f"GOAL {what}", f"{measured:.3g} ({sign} {goal:g}: {'met' if met else 'missed'}){told and '; ' + told}"
        )
        return met

    def show(self) -> None:
        width = max(len(what) for what, _ in self.lines)
        machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
        text = "\n".join(f"{what:<{width}}  {measured}" for what, measured in [("machine", machine), *self.lines])
        print(f"\n\n{text}\n", flush=True)
        RESULTS.mkdir(exist_ok=True)
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
        (RESULTS / name).write_text(json.dumps([("machine", machine), *self.lines], indent=1, ensure_ascii=False))


@pytest.fixture(scope="session")
def table() -> Iterator[Table]:
    kept = Table()
    yield kept
    if kept.lines:
        kept.show()


@pytest.fixture(scope="session")
def sink() -> Iterator[SinkProcess]:
    """The same for everybody who is measured. It keeps the bytes of nothing and the time of everything."""
    process = SinkProcess(run_directory())
    process.start()
    yield process
    process.stop()


@pytest.fixture(scope="session")
def durable_postgres() -> Iterator[None]:
    """The suite's own server skips fsync; what is measured must not."""
    server = PrivatePostgres(durable=True)
    server.start()
    before = os.environ.get("BUDKAVLE_TEST_PG_URL")
    os.environ["BUDKAVLE_TEST_PG_URL"] = before or server.url
    yield
    server.remove()


@pytest.fixture
def opened(sink: SinkProcess, durable_postgres: None) -> Iterator[Callable[..., Deployment]]:
    """The deployment of that kind, sending straight to the sink. It is open as long as the bench lasts: those that
    others have measured would still look round for work, and share the machine with whoever is measured.
    """
    standing: dict[str, Deployment] = {}
    # As in production: the default number of connections, not the tests' few.
    defaults = {
        "SMTP_CONNECTIONS": "16",
        "SMTP_PIPELINE": str(DistributorSettings.model_fields["smtp_pipeline"].default),
    }
    settings = {"SMTP_URL": f"smtp://127.0.0.1:{sink.port}?starttls=never", **defaults}

    def open_(kind: str, modes: Sequence[str] = ("run",), **more: str) -> Deployment:
        name = f"{kind}{modes}{more}"
        if name not in standing:
            told = {**settings, **more}
            standing[name] = (
                Standalone(settings=told)
                if kind == Standalone.kind
                else Distributed(shared_amqp_url(), modes=modes, settings=told)
            )
            standing[name].open()
        return standing[name]

    yield open_
    for deployment in standing.values():
        deployment.close()
