"""Whatever the API's own document allows, and much that it does not, is answered without a 500 and as documented."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.content_service import Content, running_content
from tests.servers.migrated import migrated_sqlite

EXAMPLES = 25
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@contextmanager
def served(database_url: str, port: int) -> Iterator[dict[str, object]]:
    """The service on a port, in a thread with a loop of its own; gives what the tests need from it."""
    ready, told = threading.Event(), {}

    async def serve() -> None:
        async with running_content(database_url) as content:
            told.update(document=content.service.app.openapi(), item=await _some_items(content))
            server = uvicorn.Server(uvicorn.Config(content.service.app, port=port, log_config=None, lifespan="off"))
            server.install_signal_handlers = lambda: None
            told["server"] = server
            serving = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            ready.set()
            await serving

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    try:
        yield told
    finally:
        told["server"].should_exit = True
        thread.join(30)


async def _some_items(content: Content) -> str:
    await content.published(title="En nyhet")
    return (await content.draft(title="Ett utkast"))["id"]


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_makes_the_service_fall(tmp_path, free_port, mode):
    with served(migrated_sqlite("content", tmp_path), free_port) as told:
        schema = schemathesis.openapi.from_dict(told["document"])
        operations = [result.ok() for result in schema.get_all_operations()]
        assert len(operations) >= 9
        for operation in operations:
            _try(operation, mode, f"http://127.0.0.1:{free_port}", str(told["item"]))


def _try(operation, mode, base_url, item_id):
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(case=operation.as_strategy(generation_mode=mode), known=...)
    def every(case: schemathesis.Case, known: bool) -> None:
        if known and "item_id" in (case.path_parameters or {}):
            case.path_parameters["item_id"] = item_id
        headers = {"Authorization": "Bearer bootstrap-key-of-the-tests"}
        case.call_and_validate(base_url=base_url, headers=headers, checks=CHECKS)

    every()
