"""How PostgreSQL goes about a group commit, in a ledger that it knows nothing of yet: that plan stays."""

import re
from uuid import uuid4

import pytest
from psycopg._queries import MAX_CACHED_STATEMENT_LENGTH
from sqlalchemy import text
from tests.integration.distributor.conftest import CLOCK, Room, batch, people, snapshot
from tests.integration.distributor.webhook_room import opened

from distributor.channels import Outcome
from distributor.group_commit_postgresql import statement
from distributor.journal import Journal
from distributor.leases import take
from distributor.states import SENT
from shared.contracts.delivery import Channel

READS_ALL = re.compile(r"(?:Seq Scan|Bitmap Heap Scan|Hash Join|Merge Join|Sort)\b.*")
ROWS_A_LOOK = re.compile(r"pk_endpoint_health .*actual time=\S+ rows=(\d+)")


async def journal_of(room: Room, channel: Channel) -> Journal:
    async with room.database.transaction() as session:
        await take(session, room.database, "a")
    journal = Journal(room.database, CLOCK, channel, repeated_lanes=frozenset(), retry_scale=1)
    journal.owner = "a"
    return journal


async def plans_of(journal: Journal, answer: Outcome, wanted: int) -> list[str]:
    """How three groups are written, of which the first only begins."""
    told: list[str] = []
    rows = await journal.write([], wanted)
    await explained(journal, told)
    for _ in range(2):
        rows = await journal.write([(row, answer) for row in rows], wanted)
        assert len(rows) == wanted
    await journal.close()
    return updates(told)


async def explained(journal: Journal, told: list[str]) -> None:
    """From now on `told` hears how each statement is gone about."""
    driver = journal._commit._driver  # type: ignore[attr-defined]
    driver.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
    for setting in ("LOAD 'auto_explain'", "SET auto_explain.log_min_duration = 0", "SET client_min_messages = log"):
        await driver.execute(setting)
    await driver.execute("SET auto_explain.log_analyze = on")


def updates(told: list[str]) -> list[str]:
    return [each for each in told if "Update on deliveries" in each]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_group_goes_from_index_to_row_however_small_the_ledger_was(room: Room) -> None:
    await room.hear(batch(snapshot(uuid4()), people(3)))
    plans = await plans_of(await journal_of(room, Channel.MAIL), Outcome(SENT, 250, reply="2.0.0 Ok"), 1)
    assert len(plans) == 2
    for plan in plans:
        assert "ix_deliveries_due" in plan
        assert "pk_deliveries" in plan
        assert not READS_ALL.findall(plan), plan
    async with room.database.reading() as session:  # whoever has the connection next finds it as it was
        assert await session.scalar(text("SHOW enable_seqscan")) == "on"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_group_that_claims_ahead_does_so_too(room: Room) -> None:
    await room.hear(batch(snapshot(uuid4()), people(3)))
    journal, told = await journal_of(room, Channel.MAIL), []
    ahead = await journal.write([], 1, ahead=True)
    await explained(journal, told)
    begun = await journal.write([], 1, ahead=True, starting=ahead)
    assert len(begun) == 2
    await journal.write([(begun[0], Outcome(SENT, 250))], 1, ahead=True, starting=begun[1:])
    await journal.close()
    plans = updates(told)
    assert len(plans) == 2
    for plan in plans:
        assert "ix_deliveries_due" in plan
        assert "pk_deliveries" in plan
        assert not READS_ALL.findall(plan), plan


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_each_endpoint_that_answered_is_looked_up_by_itself(database_url: str) -> None:
    """Not all that there are, for each that answered."""
    async with opened(database_url) as hooks:
        for number in range(30):
            await hooks.endpoint(f"http://127.0.0.1:8001/{number}")
        await hooks.publish()
        await hooks.room.follow_up()
        plans = await plans_of(await journal_of(hooks.room, Channel.WEBHOOK), Outcome(SENT, 200), 10)
    assert len(plans) == 2
    for plan in plans:
        looks = [int(rows) for rows in ROWS_A_LOOK.findall(plan)]
        assert looks, plan
        assert max(looks) <= 1, plan
        assert not READS_ALL.findall(plan), plan


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize(
    ("mail", "bounces", "fared", "ahead"),
    [(True, True, False, False), (True, False, False, False), (True, False, False, True), (False, False, True, False)],
)
def test_the_driver_keeps_each_statement_taken_apart(
    *, mail: bool, ended: bool, bounces: bool, fared: bool, ahead: bool
) -> None:
    said = statement(mail=mail, ended=ended, bounces=bounces, fared=fared, ahead=ahead)
    assert len(said) <= MAX_CACHED_STATEMENT_LENGTH
