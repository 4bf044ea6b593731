"""What a limit per domain costs: counted, since a clock tells more of the machine than of us."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from tests.integration.distributor.conftest import CLOCK, MemorySender, Room, batch, people, snapshot

from distributor import at_hand, leases
from distributor.channels import Dispatch, Outcome
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


class Counting(MemorySender):
    """Knows how many were in its hands at most."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots=slots)
        self.most = self._in_hand = 0

    async def send(self, dispatch: Dispatch) -> Outcome:
        self._in_hand += 1
        self.most = max(self.most, self._in_hand)
        try:
            return await super().send(dispatch)
        finally:
            self._in_hand -= 1


async def test_what_is_too_much_even_to_stand_aside_is_put_off_without_being_begun(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_hand, "ASIDE", 3 * at_hand.SHARE)
    monkeypatch.setattr(at_hand, "SOME", 1)
    room.settings = room.settings.model_copy(update={"smtp_per_domain": CAP})
    sender = Counting(slots=16)
    await room.hear(batch(snapshot(uuid4()), people(MAILS)))
    await room.drain(sender=sender)
    assert sender.most <= CAP
    assert len(sender.dispatched) == MAILS
    rows = await room.rows()
    assert [(row.state, row.attempts) for row in rows] == [("sent", 1)] * MAILS
    put_off = [tried for tried in await room.attempts() if tried.phase == "wait"]
    assert len(put_off) == sum(row.tries for row in rows) - MAILS > 0


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
