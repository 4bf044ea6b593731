"""The office's search with a million people in the register, on both databases: the slowest of each kind of question.

`BUDKAVLE_BENCH_PEOPLE` makes the register smaller. What is measured is `finding.find`, the first page and one far in,
through the service's own connection; the page around it costs the same at any size.
"""

import os
import random
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, insert, select, text
from tests.load.conftest import Table
from tests.servers.postgres import PrivatePostgres, create_database

from shared import migrations
from shared.clock import SystemClock
from shared.contracts.news import Audience, Locale
from shared.database import Database
from shared.ids import new_id
from subscriptions.addresses import Address
from subscriptions.app import MIGRATIONS
from subscriptions.models import Organisation, OrganisationKind, Role, Subscriber
from subscriptions.office import finding, places
from subscriptions.office.finding import Place, Wanted
from subscriptions.office.indexing import Indexer
from subscriptions.office.models import SearchWord
from subscriptions.people import role_values
from subscriptions.states import SubscriberState
from subscriptions.subscribing import values_of
from subscriptions.tasks import tasks
from subscriptions.tasks.models import Task
from subscriptions.tasks.tasks import TaskKind, TaskState

PEOPLE = int(os.environ.get("BUDKAVLE_BENCH_PEOPLE", "1000000"))
CHUNK = 5_000
GOAL_S = 0.5
FIRST = ["Anna", "Eva", "Bo", "Li", "Åsa", "Örjan", "Karin", "Erik", "Lars", "Maria", "Nils", "Sara", "Omar", "Fatima"]
LAST = [
    f"{begin}{end}"
    for begin in ("Berg", "Lind", "Sjö", "Ny", "Ek", "Ström", "Gran", "Häll", "Ås", "Dal")
    for end in ("ström", "man", "gren", "qvist", "lund", "berg", "holm", "kvist", "by", "son")
]
DOMAINS = ["mejl.example", "post.example", "brev.example", "kalmar.example", "nybro.example"]
AREAS = ["0880", "0881", "0882", "0883", "0884", "0885", "0821", "0834", "0840", "0860", "0861", "0862"]


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    server = PrivatePostgres(durable=True) if request.param == "postgresql" else None
    if server is not None:
        server.start()
    url = create_database(server.url) if server else f"sqlite:///{tmp_path}/subscriptions.sqlite3"
    migrations.upgrade(MIGRATIONS, url)
    database = Database(url)
    yield database
    await database.dispose()
    if server is not None:
        server.remove()


def invented(numbers: range, council: UUID, drawn: random.Random) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Nearly everybody is the public; one in five hundred is elected, one in a hundred is stopped."""
    now = SystemClock().now()
    for number in numbers:
        key, first, last = new_id(), drawn.choice(FIRST), drawn.choice(LAST)
        address = f"{first}.{last}{number}@{drawn.choice(DOMAINS)}".lower()
        person = {"id": key, **values_of(Address(address, address), f"{first} {last}", Locale.SV, now)}
        person["municipalities"] = frozenset(drawn.sample(AREAS, 2)) if number % 3 == 0 else frozenset()
        person["suppressed_at"] = now if number % 100 == 0 else None
        elected = number % 500 == 0
        audience, place = (Audience.POLITICIAN, council) if elected else (Audience.PUBLIC, None)
        area = frozenset({drawn.choice(AREAS)}) if elected else frozenset[str]()
        yield person, role_values(key, audience, place, municipalities=area)


async def fill(database: Database) -> UUID:
    council, drawn = new_id(), random.Random(1)
    named = {"id": council, "kind": "council", "name": "Fullmäktige", "name_key": "fullmäktige"}
    async with database.transaction() as session:
        await session.execute(
            insert(Organisation), [{**named, "created_at": SystemClock().now(), "municipalities": frozenset()}]
        )
    for start in range(0, PEOPLE, CHUNK):
        rows = list(invented(range(start, min(start + CHUNK, PEOPLE)), council, drawn))
        async with database.transaction() as session:
            await session.execute(insert(Subscriber), [person for person, _ in rows])
            await session.execute(insert(Role), [role for _, role in rows])
    return council


async def index(database: Database) -> float:
    indexer, began = Indexer(database), time.monotonic()
    while await indexer.advance():
        pass
    return PEOPLE / (time.monotonic() - began)


async def seconds(database: Database, wanted: Wanted, after: Place | None) -> tuple[float, int]:
    """The median of five, and how many were found."""
    took = []
    for _ in range(5):
        async with database.reading() as session:
            began = time.monotonic()
            found = await finding.find(session, wanted, after, 50, SystemClock().now())
            took.append(time.monotonic() - began)
    return statistics.median(took), len(found.people)


@pytest.mark.bench
async def test_people_are_found_among_a_million(database: Database, table: Table) -> None:
    council = await fill(database)
    kind = "sqlite" if database.is_sqlite else "postgresql"
    table.add(f"{kind}: words kept", f"{await index(database):,.0f} people/s")
    if not database.is_sqlite:
        async with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await connection.execute(text("VACUUM ANALYZE"))
    async with database.reading() as session:
        words = await session.scalar(select(func.count()).select_from(SearchWord))
        middle = await session.scalar(select(Subscriber.id).order_by(Subscriber.id).offset(PEOPLE // 2).limit(1))
    assert middle is not None
    table.add(f"{kind}: people, words", f"{PEOPLE:,}, {words:,}")
    slowest = 0.0
    for what, wanted in {
        "all": Wanted(),
        "the public": Wanted(audience=Audience.PUBLIC),
        "elected, in one municipality": Wanted(audience=Audience.POLITICIAN, municipality="0885"),
        "stopped": Wanted(state=SubscriberState.SUPPRESSED),
        "stopped, in one municipality": Wanted(state=SubscriberState.SUPPRESSED, municipality="0885"),
        "paused (nobody)": Wanted(state=SubscriberState.PAUSED),
        "in one municipality": Wanted(municipality="0885"),
        "in no such municipality (walks to the bound)": Wanted(municipality="9999"),
        "of one council": Wanted(organisation_id=council),
        "one letter": Wanted(words=("a",)),
        "a first name": Wanted(words=("anna",)),
        "first and last name": Wanted(words=("anna", "lindqvist")),
        "a whole address": Wanted(words=("anna", "lindqvist1000", "mejl", "example")),
        "a first name, elected": Wanted(words=("anna",), audience=Audience.POLITICIAN),
        "a first name, stopped, in one municipality": Wanted(
            words=("anna",), state=SubscriberState.SUPPRESSED, municipality="0885"
        ),
        "two broad words, paused (nobody)": Wanted(words=("a", "example"), state=SubscriberState.PAUSED),
        "two broad words, in no such municipality (walks to the bound)": Wanted(
            words=("a", "example"), municipality="9999"
        ),
    }.items():
        first, found = await seconds(database, wanted, None)
        far, _ = await seconds(database, wanted, Place(middle, "karin" if wanted.words else ""))
        table.add(f"{kind}: {what}", f"{first * 1000:.0f} ms, {found} found; far in {far * 1000:.0f} ms")
        slowest = max(slowest, first, far)
    assert table.goal(f"{kind}: the slowest page, seconds", slowest, GOAL_S, at_most=True)


NUMBERS = {
    "sqlite": "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :many)",
    "postgresql": "WITH numbers (n) AS (SELECT generate_series(1, :many))",
}
KEYS = {"sqlite": "printf('01930000%024x', n)", "postgresql": "lpad(to_hex(n), 32, '0')::uuid"}
INSTANTS = {"sqlite": "1764000000000000", "postgresql": "now()"}


async def fill_tasks(database: Database, kind: str) -> None:
    """A million tasks; the last thousand are open, and of two kinds in turn."""
    values = f"{KEYS[kind]}, CASE n % 2 WHEN 0 THEN 'newsroom_bounced' ELSE 'desk_missing' END, 't' || n"
    closed = f"CASE WHEN n <= :many - 1000 THEN {INSTANTS[kind]} END"
    columns = "id, kind, topic, details, raised_at, closed_at, closed_because"
    filling = f"INSERT INTO tasks ({columns}) {NUMBERS[kind]} SELECT {values}, '{{}}', {INSTANTS[kind]}, {closed}, ''"
    async with database.transaction() as session:
        await session.execute(text("SET LOCAL statement_timeout = 0") if kind == "postgresql" else text("SELECT 1"))
        await session.execute(text(f"{filling} FROM numbers"), {"many": PEOPLE})


@pytest.mark.bench
async def test_tasks_are_found_among_a_million(database: Database, table: Table) -> None:
    kind = "sqlite" if database.is_sqlite else "postgresql"
    await fill_tasks(database, kind)
    if not database.is_sqlite:
        async with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await connection.execute(text("VACUUM ANALYZE"))
    async with database.reading() as session:
        middle = await session.scalar(select(Task.id).order_by(Task.id).offset(PEOPLE // 2).limit(1))
    slowest = 0.0
    for state in (None, *TaskState):
        for about in (None, TaskKind.NEWSROOM_BOUNCED, TaskKind.DESK_WISH):
            took = []
            for after in (None, middle):
                async with database.reading() as session:
                    began = time.monotonic()
                    found = await tasks.listing(session, after=after, limit=50, state=state, kind=about)
                    took.append(time.monotonic() - began)
            told = f"{took[0] * 1000:.0f} ms, {len(found)} found; far in {took[1] * 1000:.0f} ms"
            table.add(f"{kind}: tasks, {state or 'any'}, {about or 'of any kind'}", told)
            slowest = max(slowest, *took)
    assert table.goal(f"{kind}: the slowest page of tasks, seconds", slowest, GOAL_S, at_most=True)


async def fill_places(database: Database, kind: str) -> None:
    """As many organisations as nobody has; every thousandth is a newsroom."""
    of_kind = "CASE n % 1000 WHEN 0 THEN 'newsroom' ELSE 'council' END"
    values = f"{KEYS[kind]}, {of_kind}, 'Nämnd ' || n, 'nämnd ' || n, '|0880|', {INSTANTS[kind]}"
    columns = "id, kind, name, name_key, municipalities, created_at"
    filling = f"INSERT INTO organisations ({columns}) {NUMBERS[kind]} SELECT {values} FROM numbers"
    async with database.transaction() as session:
        await session.execute(text("SET LOCAL statement_timeout = 0") if kind == "postgresql" else text("SELECT 1"))
        await session.execute(text(filling), {"many": PEOPLE})


@pytest.mark.bench
async def test_places_are_found_among_a_million(database: Database, table: Table) -> None:
    kind = "sqlite" if database.is_sqlite else "postgresql"
    await fill_places(database, kind)
    slowest = 0.0
    for what, of_kind, words, area in (
        ("all", None, "", ""),
        ("newsrooms", OrganisationKind.NEWSROOM, "", ""),
        ("by a word", None, "nämnd 99", ""),
        ("newsrooms by a word that none has", OrganisationKind.NEWSROOM, "zzz", ""),
        ("by a word that none has (walks to the bound)", None, "zzz", ""),
        ("in a municipality that none has (walks to the bound)", None, "", "0885"),
    ):
        took = []
        for after in (None, ("council", "nämnd 5")):
            async with database.reading() as session:
                began = time.monotonic()
                found = await places.organisations(session, of_kind, words, area, after, 50)
                took.append(time.monotonic() - began)
        told = f"{took[0] * 1000:.0f} ms, {len(found.places)} found; far in {took[1] * 1000:.0f} ms"
        table.add(f"{kind}: organisations, {what}", told)
        slowest = max(slowest, *took)
    assert table.goal(f"{kind}: the slowest page of organisations, seconds", slowest, GOAL_S, at_most=True)
