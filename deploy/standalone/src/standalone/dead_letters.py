"""Dead letters at the command line: look at them, and send one back to its queue.

Works on each service's database directly, whether or not the service runs: a letter that is sent back waits in the
outbox for the service's relay. What a letter says of people is blotted out unless it is asked for.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import RowMapping

from shared.clock import Clock
from shared.contracts.envelope import Envelope
from shared.logging import ADDRESS
from shared.messaging import dead_letters
from standalone.databases import opened

PERSONAL = frozenset({"address", "reason", "preferences_url", "unsubscribe_url", "one_click_url"})
"""Fields of a recipient: what is written to one person, and the links that are theirs alone."""
BLOT = "[blotted]"


class UnfitBody(Exception):
    """What was to be sent in the letter's place is no event."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter without its body."""

    id: UUID
    service: str
    queue: str
    event_type: str
    reason: str
    detail: str
    attempts: int
    dead_at: datetime


async def listing(urls: dict[str, str], clock: Clock) -> list[Letter]:
    """The letters of all services in `urls` (name to database) that wait for somebody, newest first."""
    letters: list[Letter] = []
    for service, url in urls.items():
        async with opened(url, clock) as database, database.reading() as session:
            letters += [_letter(service, row) for row in await dead_letters.listing(session)]
    return sorted(letters, key=lambda letter: letter.dead_at, reverse=True)


async def show(urls: dict[str, str], key: UUID, clock: Clock, *, personal: bool) -> dict[str, Any]:
    """One letter with its body, ready for JSON. Raises `UnknownDeadLetter`."""
    service, row = await _find(urls, key, clock)
    fields = {name: str(row[name]) if row[name] is not None else None for name in row if name != "body"}
    return {"service": service, **fields, "body": _readable(row["body"], personal=personal)}


async def replay(urls: dict[str, str], key: UUID, clock: Clock, *, body: bytes | None) -> str:
    """Send a letter back to its queue, with `body` in its place where one is given; returns the queue's name.

    Raises `UnknownDeadLetter`, `AlreadyReplayed`, or `UnfitBody` for one that would only die again.
    """
    if body is not None:
        _check(body)
    service, row = await _find(urls, key, clock)
    async with opened(urls[service], clock) as database, database.transaction() as session:
        await dead_letters.replay(session, key, clock.now(), body=body)
    queue: str = row["queue"]
    return queue


async def _find(urls: dict[str, str], key: UUID, clock: Clock) -> tuple[str, RowMapping]:
    for service, url in urls.items():
        async with opened(url, clock) as database, database.reading() as session:
            try:
                return service, await dead_letters.find(session, key)
            except dead_letters.UnknownDeadLetter:
                continue
    raise dead_letters.UnknownDeadLetter(str(key))


def _check(body: bytes) -> None:
    try:
        Envelope.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise UnfitBody(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}".lstrip(": ")) from error


def _letter(service: str, row: RowMapping) -> Letter:
    names = ("id", "queue", "event_type", "reason", "detail", "attempts", "dead_at")
    return Letter(service=service, **{name: row[name] for name in names})


def _readable(body: bytes, *, personal: bool) -> Any:
    try:
        value = json.loads(body)
    except ValueError:
        value = body.decode("utf-8", "backslashreplace")
    return value if personal else blotted(value)


def blotted(value: Any) -> Any:
    """`value` with whatever points to a person blotted out, however deep."""
    if isinstance(value, dict):
        return {name: BLOT if name in PERSONAL and each else blotted(each) for name, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [blotted(each) for each in value]
    return ADDRESS.sub(BLOT, value) if isinstance(value, str) else value
