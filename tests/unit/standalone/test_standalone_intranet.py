"""The demo's intranets: what they believe, and what their page says."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from standardwebhooks import Webhook

import standalone
from shared.clock import SystemClock
from shared.database import Database
from shared.http import create_app
from shared.web.pages import Pages, install_error_pages
from standalone.demo.intranet import KEPT, IntranetLog, intranet_router
from standalone.settings import StandaloneSettings
from standalone.tables import create_tables

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = '{"type":"se.budkavle.news.published.v1","data":{"title":"Ny samverkan på Öland"}}'


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    settings = StandaloneSettings(data_dir=tmp_path)
    database = Database(f"sqlite:///{tmp_path / 'log.sqlite3'}")
    await create_tables(database)
    pages = Pages(settings, Path(standalone.__file__).parent)
    app = create_app("standalone", "Test", settings=settings, database=database, clock=SystemClock())
    install_error_pages(app, pages)
    log = IntranetLog(database, SystemClock())
    app.serve(intranet_router(log, {"kalmar": SECRET}.get, pages))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost") as client:
        yield client
    await database.dispose()


def signed(body: str = BODY, secret: str = SECRET, at: datetime | None = None) -> dict[str, str]:
    at = at or datetime.now(UTC)
    signature = Webhook(secret).sign("msg_1", at, body)
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signature,
        "content-type": "application/cloudevents+json",
    }


async def test_a_signed_call_is_taken_and_shown_as_verified(browser: httpx2.AsyncClient) -> None:
    assert (await browser.post("/demo/intranet/kalmar", content=BODY, headers=signed())).status_code == 204
    page = (await browser.get("/demo/intranet")).text
    assert "Ny samverkan på Öland" in page
    assert "Ja" in page
    assert "Nej" not in page


OTHER = "whsec_" + "A" * 32


@pytest.mark.parametrize(
    "headers",
    [
        {},
        signed(secret=OTHER),
        signed(body=BODY + " "),
        signed(at=datetime.now(UTC) - timedelta(hours=1)),
        signed() | {"webhook-signature": "nonsense"},
        signed() | {"webhook-signature": "v1,åäö".encode("latin-1")},
    ],
)
async def test_an_unbelievable_call_is_refused_and_shown_as_such(
    browser: httpx2.AsyncClient, headers: dict[str, str | bytes]
) -> None:
    assert (await browser.post("/demo/intranet/kalmar", content=BODY, headers=headers)).status_code == 401
    page = (await browser.get("/demo/intranet")).text
    assert "Nej" in page


async def test_an_intranet_that_nobody_knows_is_not_there(browser: httpx2.AsyncClient) -> None:
    assert (await browser.post("/demo/intranet/okand", content=BODY, headers=signed())).status_code == 404


async def test_the_newest_calls_are_kept(browser: httpx2.AsyncClient) -> None:
    for _ in range(KEPT + 5):
        await browser.post("/demo/intranet/kalmar", content=BODY, headers=signed())
    page = (await browser.get("/demo/intranet")).text
    assert f"{KEPT} mottagna anrop" in page
    assert "Äldre anrop visas inte" in page
