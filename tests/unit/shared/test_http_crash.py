"""A crash is answered like everything else: a problem, with the correlation id and the security headers."""

import json
import subprocess
import sys

import httpx2
import pytest
from fastapi import FastAPI

from shared.clock import SystemClock
from shared.database import Database
from shared.http import create_app
from shared.settings import Settings

HALF_WAY = """
import asyncio, sys
import httpx2
from fastapi.responses import StreamingResponse
from shared import logging
from shared.clock import SystemClock
from shared.database import Database
from shared.http import create_app
from shared.service import HttpServer
from shared.settings import Settings

async def main(port, folder):
    database_url = f"sqlite:///{folder}/x.sqlite3"
    settings = Settings(
        database_url=database_url, broker_url="embedded:x", secret_keys="k" * 40, host="127.0.0.1", port=port
    )
    logging.configure(service="content")
    app = create_app("content", "Test", settings=settings, database=Database(database_url), clock=SystemClock())

    @app.get("/half")
    async def half():
        async def body():
            yield b"half of it"
            raise ValueError("the rest is missing")
        return StreamingResponse(body())

    server = HttpServer(app, settings)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    async with httpx2.AsyncClient() as client:
        try:
            await client.get(f"http://127.0.0.1:{port}/half", headers={"X-Correlation-Id": "follow-me"})
        except httpx2.RemoteProtocolError:
            print("cut off")
    server.should_exit = True
    await serving
    await app.state.database.dispose()

asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
"""


@pytest.fixture
async def app(tmp_path):
    settings = Settings(database_url=f"sqlite:///{tmp_path}/x.sqlite3", broker_url="embedded:x", secret_keys="k" * 40)
    database = Database(settings.database_url)
    app = create_app("content", "Test", settings=settings, database=database, clock=SystemClock())

    @app.get("/crash")
    async def crash() -> None:
        raise ValueError("the reason is for the log alone")

    yield app
    await database.dispose()


async def test_a_crash_is_a_problem_with_its_correlation_id_and_headers(app: FastAPI) -> None:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://x") as client:
        answer = await client.get("/crash", headers={"X-Correlation-Id": "follow-me"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["instance"] == answer.headers["x-correlation-id"] == "follow-me"
    assert "reason" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_crash_half_way_through_an_answer_cuts_it_off_and_has_one_line_in_the_log(tmp_path, free_port: int) -> None:
    command = [sys.executable, "-c", HALF_WAY, str(free_port), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "cut off\n"
    (line,) = map(json.loads, done.stderr.splitlines())
    assert (line["event"], line["route"], line["correlation_id"]) == ("request_failed", "/half", "follow-me")
    assert "the rest is missing" in line["exception"]
