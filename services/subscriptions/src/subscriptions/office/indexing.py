"""Keeps the words that people are found by, behind those who change names and addresses.

Every change to a subscriber raises their version; here is who has a version whose words are not kept yet, some hundred
at a time, each round one short transaction. A round that dies is done again. Replicas share the work: what one has in
hand, the others pass by. Whoever is erased takes their words along. The search may be behind by a moment, an import of
a hundred thousand people by less than a minute: between rounds it rests as long as the round took, since mail that is
being sent matters more than a search.
"""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Table, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database import Database, among
from shared.rows import put_rows
from shared.tasks import pause
from subscriptions.models import UNINDEXED, Subscriber
from subscriptions.office.models import SearchWord
from subscriptions.office.words import words_of

search_words: Table = SearchWord.__table__  # type: ignore[assignment]
subscribers: Table = Subscriber.__table__  # type: ignore[assignment]

AT_A_TIME = 500
POLL_S = 1.0
LEAST_REST_S = 0.02
"""An import's people are many rounds: in between, whoever else writes gets their turn."""

BEHIND = (
    select(Subscriber.id, Subscriber.name, Subscriber.address)
    .with_hint(Subscriber, f"INDEXED BY {UNINDEXED}", "sqlite")
    .where(Subscriber.indexed_version < Subscriber.version)
    .order_by(Subscriber.id)
    .limit(AT_A_TIME)
)


class Indexer:
    """Looks once a second."""

    name = "search indexer"

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self, stop: asyncio.Event) -> None:
        now = asyncio.get_running_loop().time
        while not stop.is_set():
            began = now()
            more = await self.advance()
            await pause(stop, max(now() - began, LEAST_REST_S) if more else POLL_S)

    async def advance(self) -> bool:
        """One round; whether there may be more at once."""
        async with self._database.reading() as session:
            if (await session.execute(BEHIND.limit(1))).first() is None:
                return False
        async with self._database.transaction(quiet=True) as session:
            rows = (await session.execute(BEHIND.with_for_update(skip_locked=True))).all()
            await keep_words(session, rows)
        return len(rows) == AT_A_TIME


async def keep_words_of(session: AsyncSession, subscriber_id: UUID) -> None:
    """At once, for whoever looks for somebody that they have just changed."""
    mine = select(Subscriber.id, Subscriber.name, Subscriber.address).where(Subscriber.id == subscriber_id)
    await keep_words(session, (await session.execute(mine.with_for_update())).all())


async def keep_words(session: AsyncSession, rows: Sequence[Any]) -> None:
    """Keep the words of these (id, name, address); the caller holds their rows."""
    if not rows:
        return
    ids = [row.id for row in rows]
    await session.execute(delete(search_words).where(among(session, search_words.c.subscriber_id, ids)))
    words = [{"subscriber_id": row.id, "word": word} for row in rows for word in words_of(row.name, row.address)]
    await put_rows(session, search_words.insert(), words)
    known = update(subscribers).where(among(session, subscribers.c.id, ids))
    await session.execute(known.values(indexed_version=subscribers.c.version))
