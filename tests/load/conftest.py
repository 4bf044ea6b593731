"""What the benches share: a durable database server, the broker, one sink, and the table that is printed at the end."""

import json
import os
import platform
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.deployments import Deployment, Distributed, Standalone
from tests.failing import pytest_runtest_makereport  # noqa: F401 - the hook
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import shared_amqp_url
from tests.servers.run import run_directory
from tests.servers.sink import SinkProcess

RESULTS = Path(__file__).parents[2] / "bench-results"


class Table:
    """Lines of what was measured, shown together and kept as a file."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def add(self, what: str, measured: str) -> None:
        self.lines.append((what, measured))
        print(f"\n  {what}: {measured}", flush=True)

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


@pytest.fixture(scope="module")
def opened(sink: SinkProcess, durable_postgres: None) -> Iterator[Callable[[str], Deployment]]:
    """The deployment of that kind, open until the module ends, sending straight to the sink."""
    standing: dict[str, Deployment] = {}
    # As in production: the default number of connections, not the tests' few.
    settings = {"SMTP_URL": f"smtp://127.0.0.1:{sink.port}?starttls=never", "SMTP_CONNECTIONS": "16"}

    def open_(kind: str) -> Deployment:
        if kind not in standing:
            standing[kind] = (
                Standalone(settings=settings)
                if kind == Standalone.kind
                else Distributed(shared_amqp_url(), settings=settings)
            )
            standing[kind].open()
        return standing[kind]

    yield open_
    for deployment in standing.values():
        deployment.close()
