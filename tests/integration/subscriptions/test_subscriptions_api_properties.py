"""The API against its own OpenAPI document: no input makes it fail or answer what it does not promise."""

import asyncio
import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as budget
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.servers.migrated import migrated_sqlite

from subscriptions.app import build
from subscriptions.settings import SubscriptionsSettings

ADMIN = "a" * 40
EXAMPLES = int(os.environ.get("BUDKAVLE_TEST_EXAMPLES", "15"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Any:
    url = migrated_sqlite("subscriptions", tmp_path_factory.mktemp("subscriptions"))
    settings = SubscriptionsSettings(
        database_url=url, broker_url="embedded:x", secret_keys=("k" * 40,), admin_key=ADMIN
    )
    service = build(settings)
    yield schemathesis.openapi.from_asgi("/api/subscriptions/openapi.json", service.app)
    asyncio.run(service.database.dispose())


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=str)
def test_every_answer_is_promised(document: Any, mode: schemathesis.GenerationMode) -> None:
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) == 28
    for operation in operations:

        @budget(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy(generation_mode=mode))
        def holds(case: schemathesis.Case) -> None:
            case.call_and_validate(headers={"Authorization": f"Bearer {ADMIN}"}, checks=CHECKS)

        holds()
