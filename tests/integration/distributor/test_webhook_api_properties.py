"""The endpoints' API against its own OpenAPI document: no input makes it fail or answer what it does not promise."""

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

from distributor.app import build
from distributor.settings import DistributorSettings

ADMIN = "a" * 40
EXAMPLES = int(os.environ.get("BUDKAVLE_TEST_EXAMPLES", "20"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
PATHS = "^/api/distributor/v1/endpoints"


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Any:
    url = migrated_sqlite("distributor", tmp_path_factory.mktemp("endpoints"))
    settings = DistributorSettings(database_url=url, broker_url="embedded:x", secret_keys="k" * 40, admin_key=ADMIN)
    service = build(settings)
    yield schemathesis.openapi.from_asgi("/api/distributor/openapi.json", service.app).include(path_regex=PATHS)
    asyncio.run(service.database.dispose())


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=str)
def test_every_answer_is_promised(document: Any, mode: schemathesis.GenerationMode) -> None:
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) == 9
    for operation in operations:

        @budget(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy(generation_mode=mode))
        def holds(case: schemathesis.Case) -> None:
            case.call_and_validate(headers={"Authorization": f"Bearer {ADMIN}"}, checks=CHECKS)

        holds()
