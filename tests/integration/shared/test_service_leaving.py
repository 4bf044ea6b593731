"""F9: a process that is told to stop says so before it closes its door, and ends in time whatever hangs."""

import asyncio
import signal
import time
from pathlib import Path

import httpx2
import pytest
from tests.eventually import eventually

from shared import service as services
from shared.clock import SystemClock
from shared.database import Database, plumbing
from shared.http import create_app
from shared.messaging.embedded import EmbeddedBus
from shared.service import Service, run
from shared.settings import Settings


@pytest.fixture
async def service(tmp_path: Path, free_port: int) -> Service:
    url = f"sqlite:///{tmp_path / 'service.sqlite3'}"
    bus = f"embedded:{tmp_path / 'bus.sqlite3'}"
    settings = Settings(
        database_url=url, broker_url=bus, secret_keys=("k" * 32,), host="127.0.0.1", port=free_port, leave_s=1
    )
    database, clock = Database(url), SystemClock()
    async with database.engine.begin() as connection:
        await connection.run_sync(plumbing.create_all)
    app = create_app("tests", "Tests", settings=settings, database=database, clock=clock)
    made = Service("tests", settings, database, clock, app, tmp_path, ("/",))
    made.install_health()
    return made


def running(service: Service, stopped: asyncio.Event) -> "asyncio.Task[None]":
    return asyncio.create_task(
        run([service], service.app, service.settings, serve=True, work=True, stopped=stopped)  # type: ignore[arg-type]
    )


async def ended(task: "asyncio.Task[None]") -> None:
    await task
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)


async def test_f9_it_is_not_ready_before_it_closes_and_answers_until_then(service: Service) -> None:
    stopped = asyncio.Event()
    task = running(service, stopped)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{service.settings.port}") as client:

        async def says(path: str) -> int:
            try:
                return (await client.get(path)).status_code
            except httpx2.TransportError:
                return 0

        async def is_closed() -> bool:
            return await says("/healthz") == 0

        async def is_ready() -> bool:
            return await says("/readyz") == 200

        await eventually(is_ready)
        stopped.set()
        await asyncio.sleep(0)
        assert (await says("/readyz"), await says("/healthz")) == (503, 200)
        await eventually(is_closed)
    await ended(task)


class Hanging:
    """A worker that does not hear that it is to end."""

    def __init__(self, number: int) -> None:
        self.name = f"hanging {number}"
        self.runs = False

    async def run(self, stop: asyncio.Event) -> None:
        self.runs = True
        await asyncio.Event().wait()


async def test_f9_it_ends_in_time_whatever_hangs(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request, a message in hand and a worker, each for ever: a step of the end has its time, and all have theirs."""
    monkeypatch.setattr(services, "DRAIN_S", 1.0)
    monkeypatch.setattr(services, "STOP_S", 1.5)
    asked, worker = asyncio.Event(), Hanging(1)

    @service.app.get("/hangs")
    async def hangs() -> None:
        asked.set()
        await asyncio.Event().wait()

    async def drain(self: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(EmbeddedBus, "drain", drain)
    service.settings = service.settings.model_copy(update={"leave_s": 0})
    service.workers = [worker]
    stopped = asyncio.Event()
    task = running(service, stopped)
    await eventually(lambda: worker.runs)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{service.settings.port}", timeout=20) as client:
        hanging = asyncio.create_task(client.get("/hangs"))
        await eventually(asked.is_set)
        began = time.monotonic()
        stopped.set()
        await ended(task)
        assert time.monotonic() - began < services.STOP_S + 1  # and not a second for each of the four
        await asyncio.gather(hanging, return_exceptions=True)


def test_f9_the_hard_stop_comes_after_25_seconds() -> None:
    assert services.DRAIN_S <= 10
    assert services.STOP_S <= 25
