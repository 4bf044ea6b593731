"""The content service on both databases."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.content_service import Content, running_content


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_database")()
        return url
    return f"sqlite:///{tmp_path / 'content.sqlite3'}"


@pytest.fixture
async def content(database_url: str) -> AsyncIterator[Content]:
    async with running_content(database_url) as content:
        yield content
