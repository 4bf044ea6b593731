"""Imports that a worker carries: checked before anything is written, resumed after a death, and gone when they end."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from httpx2 import AsyncClient
from sqlalchemy import event, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs
from tests.eventually import eventually
from tests.integration.subscriptions.conftest import NOON, Register
from tests.integration.subscriptions.test_subscriptions_rolls import ELECTED, SITTING

from shared.clock import FixedClock
from shared.contracts.news import Audience
from shared.database import Database
from shared.service import Service
from subscriptions.importing import Writing
from subscriptions.imports import api, imports, leasing
from subscriptions.imports.models import Import, ImportFile, ImportState
from subscriptions.imports.worker import LEASE, MOST_FAILURES, ImportWorker
from subscriptions.models import HistoryRow, Role, Subscriber

V1 = "/api/subscriptions/v1"


def people(count: int, **more: str) -> str:
    lines = (f"p{number}@kalmar.example;Person {number};Kalmar" for number in range(count))
    return "\n".join(["email;namn;kommun", *lines, *more.values()]) + "\n"


@pytest.fixture
def carrier(service: Service) -> ImportWorker:
    return next(found for found in service.workers if isinstance(found, ImportWorker))


async def stored(database: Database, text: str, *, is_roll: bool = False, is_agreed: bool = False) -> UUID:
    audience = Audience.POLITICIAN if is_roll else Audience.PUBLIC
    content = imports.compressed(io.BytesIO(text.encode()))
    async with database.transaction() as session:
        return await imports.store(
            session, content, audience, NOON, file_name="lista.csv", is_roll=is_roll, is_agreed=is_agreed
        )


async def look(database: Database, import_id: UUID) -> Import:
    async with database.reading() as session:
        found = await imports.look(session, import_id)
    assert found is not None
    return found


async def count(database: Database, table: Any) -> int:
    async with database.reading() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


async def agree(database: Database, import_id: UUID, version: str = "") -> bool:
    async with database.transaction() as session:
        return await imports.agree(session, import_id, version)


async def test_a_large_file_is_accepted_and_told_of_until_it_is_in(
    office: AsyncClient, database: Database, carrier: ImportWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "SMALL", 1_000)
    files, data = {"file": ("lista.csv", people(900).encode())}, {"audience": "public"}
    dry = await office.post(f"{V1}/imports?dry_run=true", files=files, data=data)
    assert (dry.status_code, dry.json()["created"]) == (200, 900)
    answer = await office.post(f"{V1}/imports", files=files, data=data)
    assert answer.status_code == 202, answer.text
    place = answer.headers["location"]
    assert (await office.get(place)).json() == answer.json()
    assert answer.json()["state"] == "stored"
    assert await carrier.advance()
    assert (await office.get(place)).json()["state"] == "writing"
    assert await carrier.advance()
    told = (await office.get(place)).json()
    counts = [told[name] for name in ("state", "rows", "rows_done", "created", "updated", "unchanged")]
    assert counts == ["done", 900, 900, 900, 0, 0]
    assert not await carrier.advance()
    assert (await count(database, Subscriber), await count(database, ImportFile)) == (900, 0)
    assert (await office.get(f"{V1}/imports/{UUID(int=1)}")).status_code == 404
    again = await office.post(f"{V1}/imports", files=files, data=data)
    while await carrier.advance():
        pass
    told = (await office.get(again.headers["location"])).json()
    assert (told["state"], told["unchanged"]) == ("done", 900)
    assert await count(database, HistoryRow) == 900


async def test_a_stretch_costs_as_many_statements_whatever_it_holds(
    database: Database, carrier: ImportWorker, clock: FixedClock
) -> None:
    async def cost(text: str) -> list[int]:
        """How many values each statement is given."""
        given: list[int] = []
        engine = database.engine.sync_engine

        def note(*call: Any) -> None:
            given.append(sum(map(len, call[3])) if call[5] else len(call[3]))

        await stored(database, text, is_agreed=True)
        await carrier.advance()
        event.listen(engine, "before_cursor_execute", note)
        await carrier.advance()
        event.remove(engine, "before_cursor_execute", note)
        return given

    few, many = await cost(people(10)), await cost(people(310))
    unchanged, renamed = await cost(people(310)), await cost(people(310).replace("Person", "Människa"))
    assert len(few) == len(many) == len(renamed) + 2 == len(unchanged) + 3
    assert max(few + many + unchanged + renamed) < 20
    async with database.reading() as session:
        told = await session.execute(select(Subscriber.name, Subscriber.version, Subscriber.locale).distinct())
        assert {(name.split()[0], version, locale) for name, version, locale in told} == {("Människa", 2, "sv")}


async def test_a_faulty_large_file_lets_nothing_in(
    office: AsyncClient, database: Database, carrier: ImportWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "SMALL", 100)
    faulty = people(450, last="=HYPERLINK(1);;", twice="p1@kalmar.example;Person 1;")
    files = {"file": ("lista.csv", faulty.encode())}
    answer = await office.post(f"{V1}/imports", files=files, data={"audience": "public"})
    assert await carrier.advance()
    told = (await office.get(answer.headers["location"])).json()
    assert (told["state"], told["rows"]) == ("refused", 452)
    assert [(error["line"], error["column"], error["code"]) for error in told["errors"]] == [
        (452, "email", "invalid_email"),
        (453, "email", "duplicate_line"),
    ]
    assert (await count(database, Subscriber), await count(database, ImportFile)) == (0, 0)
    huge = {"file": ("lista.csv", b"x" * 20_000_001)}
    refused = await office.post(f"{V1}/imports", files=huge, data={"audience": "public"})
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "file_too_large")


async def test_b15_of_who_may_not_import_nothing_is_read(office: AsyncClient) -> None:
    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("its body was read")
        yield b""

    headers = {"Content-Type": "multipart/form-data; boundary=x", "Authorization": "Bearer x"}
    for path in ("imports", "rolls"):
        answer = await office.post(f"{V1}/{path}", content=unread(), headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="budkavle"')


@pytest.mark.parametrize("path", ["imports", "rolls?dry_run=true"])
async def test_b13_an_upload_that_is_none_is_told_what_could_not_be_read(office: AsyncClient, path: str) -> None:
    bent = {"Content-Type": "multipart/form-data"}
    answer = await office.post(f"{V1}/{path}", content=b"--x\r\n", headers=bent)
    assert (answer.status_code, answer.json()["detail"]) == (400, "Missing boundary in multipart.")
    announced = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": "20200000"}
    answer = await office.post(f"{V1}/{path}", content=b"", headers=announced)
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert "20000000 bytes" in answer.json()["detail"]


async def test_b28_a_second_file_or_a_field_too_many_is_refused_not_left_aside(office: AsyncClient) -> None:
    one, other = ("file", ("a.csv", b"email\na@b.se\n")), ("file", ("b.csv", b"email\nc@d.se\n"))
    misspelt, text = ("dryrun", (None, b"true")), ("file", (None, b"email\na@b.se\n"))
    for path, rest in (("imports", [("audience", (None, b"public"))]), ("rolls?dry_run=true", [])):
        for parts, fault in (
            ([one, other], ("/file", "duplicate_field")),
            ([one, misspelt], ("/dryrun", "unknown_field")),
            ([text], ("/file", "no_file")),
        ):
            answer = await office.post(f"{V1}/{path}", files=[*parts, *rest])
            errors = answer.json()["errors"]
            assert (answer.status_code, [(error["pointer"], error["code"]) for error in errors]) == (422, [fault])


class Killed(BaseException):
    """Nothing of ours catches it: what a dead process would leave is left, its lease among it."""


async def test_a_worker_that_dies_leaves_its_work_to_the_next(
    database: Database, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies at every stretch in turn, before and after having written it."""
    monkeypatch.setattr("subscriptions.importing.CHUNK", 50)
    import_id = await stored(database, people(250), is_agreed=True)
    write, deaths = Writing.write, [False, True] * 5

    async def write_and_die(self: Writing, session: AsyncSession, rows: Any) -> None:
        is_late = deaths.pop() if deaths else None
        if is_late is False:
            raise Killed
        await write(self, session, rows)
        if is_late:
            raise Killed

    monkeypatch.setattr(Writing, "write", write_and_die)

    async def work() -> bool:
        clock.advance(timedelta(seconds=1))
        with suppress(Killed):
            await ImportWorker(database, clock, lease=timedelta(milliseconds=50)).advance()
        return (await look(database, import_id)).state == ImportState.DONE

    await eventually(work, within=60)
    found = await look(database, import_id)
    assert deaths == []
    assert [found.report[name] for name in ("created", "updated", "unchanged")] == [250, 0, 0]
    assert (found.rows_done, found.line) == (250, 251)
    for table in (Subscriber, Role, HistoryRow):
        assert await count(database, table) == 250
    assert await count(database, ImportFile) == 0


async def test_who_is_alone_goes_on_at_once(database: Database, clock: FixedClock, carrier: ImportWorker) -> None:
    import_id = await stored(database, people(10), is_agreed=True)
    dead = await leasing.claim(database, clock, LEASE)
    assert dead is not None
    assert not await carrier.advance()
    await leasing.succeed(database)
    assert await carrier.advance()
    assert (await look(database, import_id)).state == ImportState.WRITING
    with pytest.raises(leasing.LostLease):
        async with database.transaction() as session:
            await dead.move(session, rows=1)


async def test_two_workers_and_one_that_wakes_too_late(database: Database, clock: FixedClock) -> None:
    import_id = await stored(database, people(10), is_agreed=True)
    late = await leasing.claim(database, clock, timedelta(0))
    assert late is not None
    clock.advance(timedelta(seconds=1))
    hands = await asyncio.gather(*(leasing.claim(database, clock, LEASE) for _ in range(2)))
    assert [hand.id for hand in hands if hand is not None] == [import_id]
    with pytest.raises(leasing.LostLease):
        async with database.transaction() as session:
            await late.move(session, line=99)
    assert (await look(database, import_id)).line == 0


async def test_a_worker_that_is_told_to_stop_gives_its_lease_back(
    database: Database, carrier: ImportWorker, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subscriptions.importing.CHUNK", 5)
    import_id = await stored(database, people(20), is_agreed=True)
    stop = asyncio.Event()
    carrier._stop = stop
    assert await carrier.advance()
    stop.set()
    assert await carrier.advance()
    halted = await look(database, import_id)
    assert (halted.state, halted.rows_done, halted.lease_id) == (ImportState.WRITING, 5, None)
    assert await ImportWorker(database, clock).advance()
    assert (await look(database, import_id)).report["created"] == 20


async def test_what_fails_again_and_again_ends(
    database: Database, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_id = await stored(database, people(3), is_agreed=True)
    behind = await stored(database, people(4), is_agreed=True)

    async def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("subscriptions.imports.worker.RETRY_AFTER", timedelta(0))
    worker = ImportWorker(database, clock)
    monkeypatch.setattr(worker, "_check", fail)
    with capture_logs() as logs:
        for _ in range(MOST_FAILURES):
            assert await worker.advance()
            clock.advance(timedelta(seconds=1))
    monkeypatch.undo()
    assert (await look(database, import_id)).state == ImportState.FAILED
    assert [entry["failures"] for entry in logs if entry["event"] == "import_failed"] == [1, 2, 3, 4, 5]
    while await worker.advance():
        pass
    assert (await look(database, behind)).state == ImportState.DONE


async def test_a_roll_is_shown_before_it_is_applied(
    office: AsyncClient, register: Register, database: Database, carrier: ImportWorker
) -> None:
    first = await stored(database, SITTING, is_roll=True)
    assert await carrier.advance()
    assert await count(database, Subscriber) == 0
    shown = await look(database, first)
    assert [person["name"] for person in shown.report["rolls"][0]["joining"]] == ["Anna Åberg", "Bo Ek"]
    assert not await agree(database, first, "another")
    assert await agree(database, first, shown.version)
    assert not await agree(database, first, shown.version)
    assert await carrier.advance()
    done = await look(database, first)
    assert (done.state, done.report["rolls"][0]["joining"]) == (ImportState.DONE, 2)
    second = await stored(database, ELECTED, is_roll=True)
    assert await carrier.advance()
    shown = await look(database, second)
    bo = next(row for row in (await office.get(f"{V1}/subscribers")).json()["data"] if row["name"] == "Bo Ek")
    await register.change(bo["id"], name="Bo Ek Lund")
    assert await agree(database, second, shown.version)
    assert await carrier.advance()
    assert await carrier.advance()
    again = await look(database, second)
    assert (again.state, again.is_compared_again) == (ImportState.CHECKED, True)
    assert again.version != shown.version
    assert await agree(database, second, again.version)
    assert await carrier.advance()
    assert (await look(database, second)).state == ImportState.DONE
    assert await count(database, Subscriber) == 3


async def test_a_file_does_not_wait_for_ever(
    database: Database, carrier: ImportWorker, clock: FixedClock, service: Service
) -> None:
    waiting, cancelled = await stored(database, people(3)), await stored(database, people(3))
    roll = await stored(database, SITTING, is_roll=True)
    while await carrier.advance():
        pass
    assert (await look(database, waiting)).report["created"] == 3
    async with database.transaction() as session:
        assert await imports.cancel(session, cancelled, clock.now())
    async with database.transaction() as session:
        assert not await imports.cancel(session, cancelled, clock.now())
    assert await count(database, ImportFile) == 2
    clock.advance(imports.WAITS_FOR_YES)
    await carrier.weed()
    for import_id in (waiting, cancelled, roll):
        found = await look(database, import_id)
        assert (found.state, found.report) == (ImportState.CANCELLED, {})
    assert await count(database, ImportFile) == 0
    clock.advance(imports.KEPT)
    await carrier.weed()
    assert await count(database, Import) == 0
