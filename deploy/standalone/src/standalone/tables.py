"""Where the tables of standalone itself are hung: caught mails, the demo's intranet log.

They lie in a file of their own and hold nothing that a service needs: the file may be deleted while nothing runs.
"""

from sqlalchemy import MetaData

from shared.database import Database

metadata = MetaData()
FILE = "standalone"


async def create_tables(database: Database) -> None:
    """Make the tables; they may exist."""
    async with database.engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
