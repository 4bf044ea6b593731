"""F9: a process that is told to stop says so before it closes its door."""

import asyncio
import signal
from pathlib import Path

import httpx2
from tests.eventually import eventually

from shared.clock import SystemClock
from shared.database import Database, plumbing
from shared.http import create_app
from shared.service import Service, run
from shared.settings import Settings


async def test_f9_it_is_not_ready_before_it_closes_and_answers_until_then(tmp_path: Path, free_port: int) -> None:
    url = f"sqlite:///{tmp_path / 'service.sqlite3'}"
    bus = f"embedded:{tmp_path / 'bus.sqlite3'}"
    settings = Settings(
        database_url=url, broker_url=bus, secret_keys=("k" * 32,), host="127.0.0.1", port=free_port, leave_s=1
    )
    database, clock, stopped = Database(url), SystemClock(), asyncio.Event()
    async with database.engine.begin() as connection:
        await connection.run_sync(plumbing.create_all)
    app = create_app("tests", "Tests", settings=settings, database=database, clock=clock)
    service = Service("tests", settings, database, clock, app, tmp_path, ("/",))
    service.install_health()
    running = asyncio.create_task(run([service], app, settings, serve=True, work=True, stopped=stopped))
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{free_port}") as client:

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
    await running
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)
