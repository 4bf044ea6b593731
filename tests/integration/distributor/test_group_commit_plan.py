"""How PostgreSQL goes about a group commit, in a ledger that it knows nothing of yet: that plan stays."""

import re
from uuid import uuid4

import pytest
from sqlalchemy import text
from tests.integration.distributor.conftest import CLOCK, Room, batch, people, snapshot

from distributor.channels import Outcome
from distributor.journal import Journal
from distributor.leases import take
from distributor.states import SENT
from shared.contracts.delivery import Channel

READS_ALL = re.compile(r"(?:Seq Scan|Bitmap Heap Scan|Hash Join|Merge Join|Sort)\b.*")


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_group_goes_from_index_to_row_however_small_the_ledger_was(room: Room) -> None:
    told: list[str] = []
    async with room.database.transaction() as session:
        await take(session, room.database, "a")
    await room.hear(batch(snapshot(uuid4()), people(3)))
    journal = Journal(room.database, CLOCK, Channel.MAIL, repeated_lanes=frozenset(), retry_scale=1)
    journal.owner = "a"
    rows = await journal.write([], 1)
    driver = journal._commit._driver  # type: ignore[attr-defined]
    driver.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
    for setting in ("LOAD 'auto_explain'", "SET auto_explain.log_min_duration = 0", "SET client_min_messages = log"):
        await driver.execute(setting)
    for _ in range(2):
        rows = await journal.write([(row, Outcome(SENT, 250, reply="2.0.0 Ok")) for row in rows], 1)
    await journal.close()
    plans = [each for each in told if "Update on deliveries" in each]
    assert len(plans) == 2
    for plan in plans:
        assert "ix_deliveries_due" in plan
        assert "pk_deliveries" in plan
        assert not READS_ALL.findall(plan), plan
    async with room.database.reading() as session:  # whoever has the connection next finds it as it was
        assert await session.scalar(text("SHOW enable_seqscan")) == "on"
