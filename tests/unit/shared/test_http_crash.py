"""A crash is answered like everything else: a problem, with the correlation id and the security headers."""

import httpx2
import pytest
from fastapi import FastAPI

from shared.clock import SystemClock
from shared.database import Database
from shared.http import create_app
from shared.settings import Settings


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
