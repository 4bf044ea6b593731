"""The services' databases as the command line reaches them: beside the services, not through them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.clock import Clock
from shared.database import Database


@asynccontextmanager
async def opened(url: str, clock: Clock) -> AsyncIterator[Database]:
    """A database for the length of the block."""
    database = Database(url, clock=clock)
    try:
        yield database
    finally:
        await database.dispose()
