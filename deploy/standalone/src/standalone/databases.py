"""The services' databases as the command line reaches them: beside the services, not through them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.clock import Clock
from shared.database import Database
from shared.settings import refuse
from standalone.data_directory import DataDirectory
from standalone.settings import StandaloneSettings


def database_url(name: str, settings: StandaloneSettings) -> str:
    """Where the service called `name` keeps its data: the database that was named for it, else a file."""
    if settings.database_url:
        refuse(
            "BUDKAVLE_DATABASE_URL: is for one service alone; here each has its own, "
            "BUDKAVLE_CONTENT_DATABASE_URL, BUDKAVLE_SUBSCRIPTIONS_DATABASE_URL, BUDKAVLE_DISTRIBUTOR_DATABASE_URL"
        )
    return settings.named_database(name) or DataDirectory(settings.data_dir).database_url(name)


@asynccontextmanager
async def opened(url: str, clock: Clock) -> AsyncIterator[Database]:
    """A database for the length of the block."""
    database = Database(url, clock=clock)
    try:
        yield database
    finally:
        await database.dispose()
