"""Makes, lists and ends API keys, in the databases of the services that they are for."""

from collections.abc import Iterable
from typing import Any

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


async def listing(urls: dict[str, str], *, clock: Clock) -> list[dict[str, Any]]:
    """All keys of each service, without their secrets."""
    found: list[dict[str, Any]] = []
    for service, url in urls.items():
        async with opened(url, clock) as database, database.reading() as session:
            found += [{"service": service, **row} for row in await keys.listing(session)]
    return found


async def revoke(urls: dict[str, str], key_id: str, *, clock: Clock) -> list[str]:
    """End the key with this id; returns the services that knew it."""
    ended: list[str] = []
    for service, url in urls.items():
        async with opened(url, clock) as database, database.transaction() as session:
            if await keys.revoke(session, key_id, clock.now()):
                ended.append(service)
    return ended
