"""
How fast people are found: twenty thousand a second of one core's time, links included, and no more memory for more people.
"""

import resource
import time
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert
from tests.integration.subscriptions.conftest import NOON, confirm_all, make_item

from shared.clock import SystemClock
from shared.contracts.news import Audience, Locale
from shared.database import Database
from shared.ids import new_id
from subscriptions.addresses import Address
from subscriptions.fanout import FanoutWorker, record
from subscriptions.models import Organisation, Role, Subscriber
from subscriptions.people import role_values
from subscriptions.subscribing import values_of

PEOPLE = 100_000
WANTED_PER_SECOND = 20_000


async def fill(database: Database, count: int) -> None:
    """Two thirds public, one third politicians, of whom half are in the public too."""
    council = new_id()
    async with database.transaction() as session:
        row = {"id": council, "kind": "council", "name": "Kommunfullmäktige", "name_key": "kommunfullmäktige"}
        await session.execute(insert(Organisation), [{**row, "created_at": NOON, "municipalities": frozenset()}])
        for start in range(0, count, 5000):
            people: list[dict[str, Any]] = []
            roles: list[dict[str, Any]] = []
            for number in range(start, start + 5000):
                key, text = new_id(), f"person{number}@kalmar.example"
                people.append({"id": key, **values_of(Address(text, text), "", Locale.SV, NOON)})
                if number % 3 == 0:
                    area = frozenset({"0880"})
                    roles.append(role_values(key, Audience.POLITICIAN, council, municipalities=area))
                if number % 3 or number % 2:
                    roles.append(role_values(key, Audience.PUBLIC, None))
            await session.execute(insert(Subscriber), people)
            await session.execute(insert(Role), roles)


@pytest.mark.bench
async def test_a_hundred_thousand_people(database: Database, worker: FanoutWorker) -> None:
    await fill(database, PEOPLE)
    item = make_item("politician", "public", municipalities=("0880", "0881"), topics=("results",))
    async with database.transaction() as session:
        await record(session, item, SystemClock().now() - timedelta(seconds=1))
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, planning = 0.0, True
    while planning:
        began = time.process_time()
        for _ in range(20):
            planning = await worker.advance()
            if not planning:
                break
        seconds += time.process_time() - began
        await confirm_all(database)
        planning = planning or await worker.advance()
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1024
    print(f"\n{PEOPLE / seconds:,.0f} recipients/s, {grown_mb:.0f} MB more")
    assert PEOPLE / seconds > WANTED_PER_SECOND
    assert grown_mb < 64
