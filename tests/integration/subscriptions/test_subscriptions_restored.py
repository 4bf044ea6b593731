"""A register that was put back from a backup brings back nobody who was erased since."""

import asyncio
import shutil
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from httpx2 import AsyncClient
from sqlalchemy import inspect, make_url, select, text
from structlog.testing import capture_logs
from tests.eventually import eventually
from tests.integration.subscriptions.conftest import ADMIN, Register, emitted
from tests.servers.postgres import create_database, drop_database, shared_postgres_url
from tests.telling import Telling

from shared.clock import FixedClock
from shared.contracts.news import Audience
from shared.database import Database
from shared.ids import new_id
from shared.service import Service
from subscriptions import erased_file, erasures
from subscriptions.app import build
from subscriptions.erased_file import ErasedFile
from subscriptions.erasures import ErasureKeeper
from subscriptions.forgetting import forget
from subscriptions.imports import imports
from subscriptions.models import Subscriber
from subscriptions.settings import SubscriptionsSettings

OWN = {"sec-fetch-site": "same-origin", "origin": "null"}
V1 = "/api/subscriptions/v1"
GONE, LATE, KEPT = "frida.ekmosse@kalmar.example", "sven.lundmosse@nybro.example", "eva@borgholm.example"
ERASED = Telling("ekmosse", "lundmosse")
ONLY_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def file(tmp_path: Path) -> ErasedFile:
    return ErasedFile(tmp_path / "erased.txt")


@pytest.fixture
async def put_back(service: Service, database_url: str, clock: FixedClock, tmp_path: Path) -> AsyncIterator[Any]:
    """Call it for a copy of the register as it stands, to be opened later."""
    made: list[Service] = []
    urls: list[str] = []

    async def copy() -> Callable[[], Service]:
        await service.database.dispose()
        known = make_url(database_url)
        if known.get_backend_name() == "sqlite":
            url = f"sqlite:///{shutil.copy(known.database or '', tmp_path / 'backup.sqlite3')}"
        else:
            url = create_database(shared_postgres_url(), known.database or "")
            urls.append(url)

        def opened() -> Service:
            settings = SubscriptionsSettings(
                database_url=url, broker_url="embedded:unused", secret_keys=("k" * 40,), admin_key=ADMIN
            )
            made.append(build(settings, clock))
            return made[-1]

        return opened

    yield copy
    for one in made:
        await one.database.dispose()
    for url in urls:
        drop_database(url, shared_postgres_url())


async def told_in(database: Database) -> list[str]:
    """Every table and column that still tells of who was erased."""
    found = []
    async with database.reading() as session:
        connection = await session.connection()
        for table in await connection.run_sync(lambda sync: inspect(sync).get_table_names()):
            for row in (await session.execute(text(f'SELECT * FROM "{table}"'))).mappings():
                found += [f"{table}.{column}" for column, value in row.items() if ERASED.tells(value)]
    return found


def ids_in(file: ErasedFile) -> list[UUID]:
    return [one for page in file.pages() for one in page]


async def test_whoever_was_erased_after_the_backup_is_erased_again_and_nobody_else(
    service: Service,
    register: Register,
    office: AsyncClient,
    reader: AsyncClient,
    clock: FixedClock,
    file: ErasedFile,
    put_back: Any,
) -> None:
    """A subscriber; somebody who had signed up by the backup, confirmed since and left; a list that was waiting."""
    gone, kept = [await register.person(address, {"audience": "public"}) for address in (GONE, KEPT)]
    await reader.post("/prenumerera", data={"email": LATE, "frequency": "immediate"}, headers=OWN)
    confirm = (await emitted(service.database, "mail.requested"))[-1].data
    people = imports.compressed(BytesIO(f"email\n{GONE}\n".encode()))
    async with service.database.transaction() as session:
        await imports.store(session, people, Audience.PUBLIC, clock.now(), file_name="p.csv", is_agreed=True)
    backup = await put_back()

    clock.advance(timedelta(hours=3))
    assert (await reader.post(confirm["request"]["action_url"], headers=OWN)).status_code == 200
    late = confirm["recipients"][0]["recipient_id"]
    for one in (gone, late):
        assert (await office.delete(f"{V1}/subscribers/{one}")).status_code == 204
    await ErasureKeeper(service.database, clock, file).look()
    assert set(ids_in(file)) >= {UUID(gone), UUID(late)}

    restored = backup()
    assert set(await told_in(restored.database)) >= {"subscribers.address", "sign_ups.address", "import_files.content"}
    before = len(await emitted(restored.database, "recipient.erased"))
    keeper = ErasureKeeper(restored.database, clock, file)
    with capture_logs() as logs:
        await keeper.look()
        await keeper.look()
    assert [(line["event"], line["people"], line["imports_ended"]) for line in logs] == [("erased_again", 1, 1)]
    assert await told_in(restored.database) == []
    events = (await emitted(restored.database, "recipient.erased"))[before:]
    told = [event.data["recipient_id"] for event in events]
    assert set(told) == {gone, late}
    assert len(told) == 2
    async with restored.database.reading() as session:
        assert list(await session.scalars(select(Subscriber.id))) == [UUID(kept)]


@ONLY_SQLITE
async def test_the_list_is_written_anew_when_it_is_lost_and_outlives_a_torn_line(
    service: Service, clock: FixedClock, file: ErasedFile
) -> None:
    keeper = ErasureKeeper(service.database, clock, file)
    first, second, third = (new_id() for _ in range(3))
    await erased(service.database, clock, first)
    await keeper.look()
    assert ids_in(file) == [first]
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    file.path.unlink()
    await keeper.look()
    assert ids_in(file) == [first]
    whole = file.path.read_bytes()
    file.path.write_bytes(whole + whole[:40])  # a crash in the middle of a line
    assert file.last() == first
    await erased(service.database, clock, second)
    await keeper.look()
    assert ids_in(file) == [first, second]
    file.path.write_bytes(file.path.read_bytes() + b"\xff\xfe nothing of ours\n")
    await erased(service.database, clock, third)
    await keeper.look()
    assert ids_in(file) == [first, second, third]


@ONLY_SQLITE
async def test_more_than_a_page_is_listed_and_held_against(
    service: Service, clock: FixedClock, file: ErasedFile, put_back: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = await put_back()
    for module in (erasures, erased_file):
        monkeypatch.setattr(module, "PAGE", 3)
    many = [new_id() for _ in range(7)]
    await erased(service.database, clock, *many)
    await ErasureKeeper(service.database, clock, file).look()
    assert ids_in(file) == many
    restored = backup()
    await erasures.hold(restored.database, clock, file)
    known = [one async for page in erasures.known(restored.database, None) for one in page]
    assert known == sorted(many)


@ONLY_SQLITE
async def test_a_list_that_cannot_be_written_waits_and_stops_nobody(
    service: Service, clock: FixedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasures, "AFTER_FAILURE_S", 0.02)
    monkeypatch.setattr(erasures, "LOOK_EVERY_S", 0.02)
    file, one, stop = ErasedFile(tmp_path / "away" / "erased.txt"), new_id(), asyncio.Event()
    await erased(service.database, clock, one)
    with capture_logs() as logs:
        running = asyncio.create_task(ErasureKeeper(service.database, clock, file).run(stop))
        await eventually(lambda: any(line["event"] == "erasures_not_listed" for line in logs))
        file.path.parent.mkdir()
        await eventually(lambda: ids_in(file) == [one])
        stop.set()
        await running


@ONLY_SQLITE
async def test_without_a_list_nothing_is_kept_outside(service: Service) -> None:
    stop = asyncio.Event()
    [keeper] = [worker for worker in service.workers if isinstance(worker, ErasureKeeper)]
    running = asyncio.create_task(keeper.run(stop))
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(running), 0.05)
    assert not running.done()
    stop.set()
    await running


async def erased(database: Database, clock: FixedClock, *ids: UUID) -> None:
    async with database.transaction() as session:
        for one in ids:
            await forget(session, one, clock.now())
            clock.advance(timedelta(microseconds=1))
