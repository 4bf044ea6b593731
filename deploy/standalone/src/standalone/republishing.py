"""Publish again what was published since an instant: the way back when the broker has lost its data.

Works on each service's outbox directly, whether or not the service runs; its relay carries the events as it carries new
ones. Nobody gets anything twice by it, since every consumer knows an event that it has handled. An outbox keeps what
it has published for a day, so an instant before that gives a day's events.
"""

from datetime import datetime

from shared.clock import Clock
from shared.messaging import outbox
from shared.web.dates import STOCKHOLM
from standalone.databases import opened


class UnfitInstant(Exception):
    """What was given is no instant, or one that is still to come."""


def instant(text: str, clock: Clock) -> datetime:
    """An ISO 8601 instant; without an offset it is Swedish time. Raises `UnfitInstant`."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise UnfitInstant(f"{text} is no instant; write it as 2026-11-23T08:30 (Swedish time)") from error
    since = parsed if parsed.tzinfo else parsed.replace(tzinfo=STOCKHOLM)
    if since > clock.now():
        raise UnfitInstant(f"{text} is still to come")
    return since


async def republish(urls: dict[str, str], since: datetime, clock: Clock) -> dict[str, int]:
    """How many events of each service in `urls` (name to database) go out again."""
    counts = {}
    for service, url in urls.items():
        async with opened(url, clock) as database, database.transaction() as session:
            counts[service] = await outbox.republish(session, since)
    return counts
