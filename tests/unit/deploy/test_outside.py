"""What the services show of themselves to the outside: B41."""

from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client import REGISTRY

import content.app
import distributor.app
import subscriptions.app
from content.settings import ContentSettings
from distributor.settings import DistributorSettings
from subscriptions.settings import SubscriptionsSettings

BUILT = (
    (content.app.build, ContentSettings),
    (subscriptions.app.build, SubscriptionsSettings),
    (distributor.app.build, DistributorSettings),
)
PERSONAL = {
    "address",
    "email",
    "name",
    "recipient",
    "recipient_id",
    "subscriber",
    "person",
    "token",
    "path",
    "url",
    "ip",
}


@pytest.mark.parametrize(("build", "kind"), BUILT, ids=lambda part: getattr(part, "__module__", ""))
async def test_b41_no_documentation_page_and_no_person_in_a_label(build: Any, kind: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/hidden.sqlite3"
    service = build(kind(database_url=url, broker_url="embedded:x", secret_keys="k" * 40, admin_key="a" * 40))
    service.install_health()
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(service.app), base_url="http://x") as client:
        for path in ("/docs", "/redoc", "/openapi.json", "/.env", "/.git/config", "/admin", "/debug", "/server-status"):
            assert (await client.get(path)).status_code == 404, path
        document = await client.get(f"/api/{service.name}/openapi.json")
        metrics = await client.get("/metrics")
        ready = await client.get("/readyz")
    assert document.status_code == 200
    for answer in (document, metrics, ready):
        assert "k" * 40 not in answer.text and "a" * 40 not in answer.text and "sqlite" not in answer.text
    labels = {label for collector in REGISTRY._collector_to_names for label in getattr(collector, "_labelnames", ())}
    assert labels & PERSONAL == set()
    await service.database.dispose()
