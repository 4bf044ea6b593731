"""After a database was put back from a backup: whoever was erased since is erased again, and then senders begin."""

from pathlib import Path

from distributor import erasing, restored
from distributor.restored import Gap
from shared.clock import Clock
from shared.database import instant
from standalone.databases import opened
from subscriptions import erasures
from subscriptions.erased_file import ErasedFile


class NothingToSay(Exception):
    """The database is where it was: nobody waits."""


async def erase_again(urls: dict[str, str], path: Path | None, clock: Clock) -> int:
    """Erase in both databases whoever either of them, or the list at `path`, knows to be erased; how many people came
    back. It does no harm where nothing was put back.
    """
    file = ErasedFile(path) if path else None
    async with opened(urls["subscriptions"], clock) as register, opened(urls["distributor"], clock) as ledger:
        people = await erasures.hold(register, clock, file) if file else 0
        async for page in erasures.known(register, file):
            async with ledger.transaction() as session:
                await erasing.erase_unknown(session, page, await instant(session, clock))
    return people


async def go_on(url: str, clock: Clock, *, send: bool) -> tuple[Gap, int]:
    """Let senders begin; gives what the ledger does not know of, and how many mails are held."""
    async with opened(url, clock) as database:
        try:
            return await restored.go_on(database, send=send)
        except restored.NotRestored as error:
            raise NothingToSay("the distributor's database is where it was; nothing waits for this") from error
