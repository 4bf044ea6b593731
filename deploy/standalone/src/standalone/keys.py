"""Makes API keys, in the databases of the services that they are for."""

from collections.abc import Iterable

from shared import keys
from shared.clock import Clock
from shared.keys import Scope
from standalone.databases import opened


async def create(urls: dict[str, str], *, name: str, scopes: Iterable[Scope], clock: Clock) -> dict[str, str]:
    """A new key for each service in `urls` (name to database), by service. None of them can be shown again."""
    wanted = sorted(set(scopes))
    made: dict[str, str] = {}
    for service, url in urls.items():
        async with opened(url, clock) as database, database.transaction() as session:
            made[service] = await keys.create(session, name=name, scopes=wanted, at=clock.now())
    return made
