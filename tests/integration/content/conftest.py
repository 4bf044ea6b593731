"""The content service on both databases."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.content_service import Content, running_content
from tests.servers.migrated import migrated_sqlite


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_database")("content"))
    return migrated_sqlite("content", tmp_path)


@pytest.fixture
async def content(database_url: str) -> AsyncIterator[Content]:
    async with running_content(database_url) as content:
        yield content
