"""What a limit per domain costs: counted, since a clock tells more of the machine than of us."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from tests.integration.distributor.conftest import CLOCK, Room, batch, people, snapshot

from distributor import leases
from distributor.channels import Outcome
from distributor.journal import Journal
from distributor.states import SENT
from shared.contracts.delivery import Channel
from shared.contracts.mail import RecipientStopped, StopScope
from shared.database import Database

CAP = 2
MAILS = 60
BESIDE_THE_GROUPS = MAILS // CAP // 2
"""A lease is taken, let go of, and renewed every four seconds."""


async def test_a_domain_at_its_limit_gets_its_turns_in_the_commits_that_record_the_ones_before(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, opening = [], Database.transaction

    @asynccontextmanager
    async def counted(self: Database, **told: Any) -> AsyncIterator[Any]:
        opened.append(told)
        async with opening(self, **told) as session:
            yield session

    room.settings = room.settings.model_copy(update={"smtp_per_domain": CAP})
    await room.hear(batch(snapshot(uuid4()), people(MAILS)))
    monkeypatch.setattr(Database, "transaction", counted)
    await room.drain()
    assert len(opened) <= BESIDE_THE_GROUPS
    assert [row.state for row in await room.rows()] == ["sent"] * MAILS


async def test_what_was_claimed_ahead_and_stopped_since_does_not_begin(room: Room) -> None:
    stays, leaves = recipients = people(2)
    await room.hear(batch(snapshot(uuid4()), recipients))
    async with room.database.transaction() as session:
        await leases.take(session, room.database, "a")
    journal = Journal(room.database, CLOCK, Channel.MAIL, repeated_lanes=frozenset(), retry_scale=1)
    journal.owner = "a"
    ahead = await journal.write([], 5, ahead=True)
    assert [row.begun_at for row in ahead] == [None, None]
    await room.hear(RecipientStopped(recipient_id=leaves.recipient_id, scope=StopScope.ALL, version=2))
    (begun,) = await journal.write([], 5, ahead=True, starting=ahead)
    assert begun.recipient_id == stays.recipient_id
    assert begun.begun_at is not None
    assert await journal.write([(begun, Outcome(SENT, 250))], 5, ahead=True) == []
    await journal.close()
    assert {row.recipient_id: row.state for row in await room.rows()} == {
        stays.recipient_id: "sent",
        leaves.recipient_id: "cancelled",
    }
