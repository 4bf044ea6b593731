"""The word that senders wait for when the distributor's database was put back from a backup."""

from distributor import restored
from distributor.restored import Gap
from shared.clock import Clock
from standalone.databases import opened


class NothingToSay(Exception):
    """The database is where it was: nobody waits."""


async def go_on(url: str, clock: Clock, *, send: bool) -> tuple[Gap, int]:
    """Let senders begin; gives what the ledger does not know of, and how many mails are held."""
    async with opened(url, clock) as database:
        try:
            return await restored.go_on(database, send=send)
        except restored.NotRestored as error:
            raise NothingToSay("the distributor's database is where it was; nothing waits for this") from error
