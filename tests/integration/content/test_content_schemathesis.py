"""The editors' API against its own OpenAPI document: no input makes it fail or answer what it does not promise."""

import asyncio
from typing import Any

import pytest
import schemathesis
from tests.api_properties import CONFIG, calls_hold, chains_hold, edges_hold
from tests.servers.migrated import migrated_sqlite

from content.app import build
from content.settings import ContentSettings

ADMIN = "a" * 40
KEY = {"Authorization": f"Bearer {ADMIN}"}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Any:
    url = migrated_sqlite("content", tmp_path_factory.mktemp("content"))
    settings = ContentSettings(
        database_url=url, broker_url="embedded:x", secret_keys=("k" * 40,), admin_key=ADMIN, requests_per_key=0
    )
    service = build(settings)
    yield schemathesis.openapi.from_asgi("/api/content/openapi.json", service.app, config=CONFIG)
    asyncio.run(service.database.dispose())


def test_every_answer_is_promised(document: Any) -> None:
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) >= 9
    for operation in operations:
        calls_hold(operation, schemathesis.GenerationMode.POSITIVE, KEY, 3)


def test_every_edge_of_the_document_holds(document: Any) -> None:
    for found in document.get_all_operations():
        edges_hold(found.ok(), KEY)


@pytest.mark.parametrize("usual", [5, pytest.param(200, marks=pytest.mark.soak)])
def test_every_chain_of_calls_holds(document: Any, usual: int) -> None:
    chains_hold(document, KEY, usual)


@pytest.mark.soak
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=str)
def test_every_answer_is_promised_in_many_more_calls(document: Any, mode: schemathesis.GenerationMode) -> None:
    for found in document.get_all_operations():
        calls_hold(found.ok(), mode, KEY, 500)
