"""What the rooms of `shared` are tested on: both transports, both databases."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.integration.shared.transports import EmbeddedTransport, RabbitMQTransport, Transport

from shared.database import Database, plumbing


@pytest.fixture(params=["embedded", "rabbitmq"])
async def transport(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Transport]:
    opened: Transport
    if request.param == "embedded":
        opened = EmbeddedTransport(tmp_path / "bus.sqlite3")
    else:
        opened = RabbitMQTransport(request.getfixturevalue("amqp_url"))
    yield opened
    await opened.shut()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'service.sqlite3'}"
    create: Callable[[], str] = request.getfixturevalue("postgres_database")
    return create()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database that has the plumbing's tables."""
    opened = Database(database_url)
    async with opened.engine.begin() as connection:
        await connection.run_sync(plumbing.create_all)
    yield opened
    await opened.dispose()
