"""The command line, against real databases."""

import asyncio
import json
import re
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import select, update
from typer.testing import CliRunner, Result

from distributor.ledger import stops
from distributor.restored import homes
from shared.clock import SystemClock
from shared.contracts.mail import RecipientErased
from shared.contracts.news import Locale
from shared.database import Database
from shared.keys import Principal, Scope, verify
from shared.messaging.bus import DeadLetter, Incoming
from shared.messaging.dead_letters import park
from shared.messaging.outbox import emit
from shared.messaging.outbox import outbox as table
from standalone import databases, importing
from standalone.cli import app
from standalone.parts import PARTS
from subscriptions import addresses
from subscriptions.csv_reading import COLUMNS, OF_AUDIENCE
from subscriptions.erased_file import ErasedFile
from subscriptions.models import Subscriber
from subscriptions.people import insert_subscriber
from subscriptions.subscribing import values_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ADDRESS = "eva.ekmosse@kalmar.example"
LINK = "https://forbundet.example/prenumeration/a.b.c"
BODY: dict[str, Any] = {
    "specversion": "1.0",
    "id": str(uuid4()),
    "source": "/budkavle/subscriptions",
    "type": "se.budkavle.mail.requested.v1",
    "subject": str(uuid4()),
    "time": "2026-11-22T12:00:00Z",
    "correlationid": "c-1",
    "data": {
        "form": "news",
        "recipients": [
            {"recipient_id": str(uuid4()), "address": ADDRESS, "preferences_url": LINK, "reason": "Du, Eva"}
        ],
        "note": f"could not write to {ADDRESS}",
    },
}

Budkavle = Callable[..., Result]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def budkavle(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Budkavle:
    monkeypatch.setenv("BUDKAVLE_DATA_DIR", str(directory))
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def dead(directory: Path, body: bytes, service: str = "distributor", queue: str = "distributor.mail.news") -> UUID:
    async def put() -> UUID:
        database = Database(f"sqlite:///{directory / service}.sqlite3")
        async with database.transaction() as session:
            verdict = DeadLetter("invalid_data", "recipients.0.address: bad")
            key = await park(session, queue, Incoming(str(uuid4()), body, 5), verdict, BODY["type"], NOW)
        await database.dispose()
        return key

    return asyncio.run(put())


def outbox(directory: Path, service: str = "distributor") -> list[tuple[str, bytes]]:
    connection = sqlite3.connect(directory / f"{service}.sqlite3")
    try:
        return connection.execute("SELECT routing_key, body FROM outbox").fetchall()
    finally:
        connection.close()


def one_line(result: Result) -> str:
    assert result.exit_code == 1, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_the_version_is_told(budkavle: Budkavle) -> None:
    assert budkavle("--version").output.startswith("budkavle 0.")


def test_migrate_makes_all_databases_and_may_be_repeated(budkavle: Budkavle, directory: Path) -> None:
    assert budkavle("migrate").exit_code == 0
    assert budkavle("migrate", "--service", "content").output == "content: newest version\n"
    assert {path.name for path in directory.glob("*.sqlite3")} == {
        "content.sqlite3",
        "subscriptions.sqlite3",
        "distributor.sqlite3",
    }


def test_a_key_opens_its_service_with_its_scopes(budkavle: Budkavle, directory: Path) -> None:
    budkavle("migrate")
    made = budkavle(
        "keys", "create", "--service", "all", "--scope", "read", "--scope", "publish", "--name", "x", "--json"
    )
    keys = json.loads(made.stdout)

    async def principal(service: str) -> Principal | None:
        database = Database(f"sqlite:///{directory / service}.sqlite3")
        async with database.reading() as session:
            found = await verify(session, keys[service], NOW)
        await database.dispose()
        return found

    for service in ("content", "subscriptions", "distributor"):
        found = asyncio.run(principal(service))
        assert found is not None
        assert found.scopes == {Scope.READ, Scope.PUBLISH}


def test_a_revoked_key_opens_nothing_any_more(budkavle: Budkavle, directory: Path) -> None:
    budkavle("migrate")
    made = budkavle("keys", "create", "--service", "content", "--scope", "read", "--name", "lost", "--json")
    key = json.loads(made.stdout)["content"]
    key_id = key.split("_")[1]
    assert f"{key_id}  read  lost" in budkavle("keys", "list").stdout
    assert budkavle("keys", "revoke", key_id).stdout.strip() == f"{key_id} is revoked (content)"

    async def principal() -> Principal | None:
        database = Database(f"sqlite:///{directory / 'content'}.sqlite3")
        async with database.reading() as session:
            found = await verify(session, key, NOW)
        await database.dispose()
        return found

    assert asyncio.run(principal()) is None
    assert "revoked" in budkavle("keys", "list").stdout
    assert "no living key" in one_line(budkavle("keys", "revoke", key_id))


def test_a_key_for_a_database_that_is_not_there_is_refused_in_one_line(budkavle: Budkavle) -> None:
    line = one_line(budkavle("keys", "create", "--scope", "read", "--name", "x"))
    assert "budkavle migrate" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("dead", "list"),
        ("dead", "show", uuid4()),
        ("keys", "list"),
        ("keys", "revoke", "x"),
        ("keys", "list", "--json"),
    ],
)
def test_a_wrong_directory_is_named_and_nothing_is_made_in_it(
    budkavle: Budkavle, directory: Path, arguments: tuple[object, ...]
) -> None:
    for _ in range(2):
        line = one_line(budkavle(*arguments))
        assert str(directory) in line
        assert "BUDKAVLE_DATA_DIR" in line
        directory.mkdir(exist_ok=True)  # the second time it exists, and holds nothing
    assert list(directory.iterdir()) == []


def test_beside_a_demo_its_directory_is_named(budkavle: Budkavle, directory: Path) -> None:
    (directory / "demo").mkdir(parents=True)
    assert f"({directory / 'demo'} is the demo's)" in one_line(budkavle("dead", "list"))


def test_the_settings_are_listed_and_each_says_what_it_means(budkavle: Budkavle) -> None:
    lines = budkavle("settings").stdout.splitlines()
    told = dict(zip((line.partition("=")[0] for line in lines[::2]), lines[1::2], strict=True))
    assert {"BUDKAVLE_DATA_DIR", "BUDKAVLE_PORT", "BUDKAVLE_SMTP_URL", "BUDKAVLE_BOUNCE_ADDRESS"} <= set(told)
    read = {f"BUDKAVLE_{name.upper()}" for part in PARTS for name in part.settings.model_fields}
    assert read - set(told) == {"BUDKAVLE_DATABASE_URL", "BUDKAVLE_RETRY_SCALE", "BUDKAVLE_WEBHOOK_ALLOW_LOOPBACK"}
    assert [name for name, meaning in told.items() if not meaning.strip()] == []
    assert "BUDKAVLE_PORT=8080" in lines
    offered = set(re.findall(r"BUDKAVLE_[A-Z_]+", budkavle("up", "--help").output))
    assert {"BUDKAVLE_DATA_DIR", "BUDKAVLE_PORT", "BUDKAVLE_SMTP_URL"} <= offered <= set(told)


def test_the_columns_of_an_import_are_told(budkavle: Budkavle) -> None:
    document = (Path(__file__).parents[3] / "docs/import.md").read_text(encoding="utf-8")
    told = budkavle("import", "--help").output
    for audience, columns in OF_AUDIENCE.items():
        row = next(line for line in document.splitlines() if line.startswith(f"| `{audience}`"))
        for column in columns:
            assert f"`{column}`" in row, audience
            assert column in told
        for spelling in (each for column in columns for each in COLUMNS[column]):
            assert spelling in document


def test_dead_letters_are_listed_newest_first(budkavle: Budkavle, directory: Path) -> None:
    budkavle("migrate")
    assert budkavle("dead", "list").output == f"No dead letters in {directory}.\n"
    key = dead(directory, b"{}")
    other = dead(directory, b"{}", "subscriptions", "subscriptions.news")
    assert str(key) in budkavle("dead", "list").output
    listed = json.loads(budkavle("dead", "list", "--json").stdout)
    assert {(letter["id"], letter["service"]) for letter in listed} == {
        (str(key), "distributor"),
        (str(other), "subscriptions"),
    }
    assert str(other) not in budkavle("dead", "list", "--service", "distributor").output


def test_a_dead_letter_is_shown_without_what_points_to_a_person(budkavle: Budkavle, directory: Path) -> None:
    budkavle("migrate")
    key = dead(directory, json.dumps(BODY).encode())
    shown = budkavle("dead", "show", key)
    assert shown.exit_code == 0
    for personal in (ADDRESS, LINK, "Du, Eva"):
        assert personal not in shown.output
    letter = json.loads(shown.stdout)
    assert letter["reason"] == "invalid_data"
    assert letter["body"]["type"] == BODY["type"]
    assert letter["body"]["data"]["form"] == "news"


def test_a_dead_letter_is_shown_whole_to_who_asks(budkavle: Budkavle, directory: Path) -> None:
    budkavle("migrate")
    key = dead(directory, json.dumps(BODY).encode())
    assert json.loads(budkavle("dead", "show", key, "--personal").stdout)["body"] == BODY


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"not json eva@kalmar.example", b"[1, null]"])
def test_a_dead_letter_of_any_bytes_can_be_shown(budkavle: Budkavle, directory: Path, body: bytes) -> None:
    budkavle("migrate")
    shown = budkavle("dead", "show", dead(directory, body))
    assert shown.exit_code == 0
    assert "eva@kalmar.example" not in shown.output


def test_b42_a_dead_letter_goes_back_to_its_queue_once(budkavle: Budkavle, directory: Path) -> None:
    budkavle("migrate")
    key = dead(directory, json.dumps(BODY).encode())
    assert budkavle("dead", "replay", key).output == f"{key} goes back to distributor.mail.news\n"
    (queue, body), *_ = outbox(directory)
    assert queue == "distributor.mail.news"
    assert json.loads(body).items() > BODY.items()
    assert datetime.fromisoformat(json.loads(body)["replayedtime"]).tzinfo is not None
    assert "replayed before" in one_line(budkavle("dead", "replay", key))
    assert len(outbox(directory)) == 1
    assert str(key) not in budkavle("dead", "list").output


def emitted(directory: Path, published: datetime | None, service: str = "content") -> None:
    async def put() -> None:
        database = Database(f"sqlite:///{directory / service}.sqlite3")
        async with database.transaction() as session:
            event = RecipientErased(recipient_id=uuid4(), version=1)
            key = await emit(session, event, source=service, subject="x", at=NOW)
            done = update(table).where(table.c.id == key)
            await session.execute(done.values(published_at=published, attempts=3))
        await database.dispose()

    asyncio.run(put())


def waiting(directory: Path, service: str = "content") -> int:
    connection = sqlite3.connect(directory / f"{service}.sqlite3")
    try:
        return int(connection.execute("SELECT count(*) FROM outbox WHERE published_at IS NULL").fetchone()[0])
    finally:
        connection.close()


def test_f17_what_was_published_since_an_instant_goes_out_again(budkavle: Budkavle, directory: Path) -> None:
    budkavle("migrate")
    for minutes in (0, 10, 20):
        emitted(directory, NOW + timedelta(minutes=minutes))
    emitted(directory, None)
    emitted(directory, NOW, "distributor")
    told = budkavle("republish", "--since", "2026-11-22T13:10").output  # in Stockholm, an hour ahead
    assert (
        told
        == "content: 2 events go out again\nsubscriptions: 0 events go out again\ndistributor: 0 events go out again\n"
    )
    assert (waiting(directory), waiting(directory, "distributor")) == (3, 0)
    told = budkavle("republish", "--since", "2026-11-22T12:00:00Z", "--service", "distributor").output
    assert told == "distributor: 1 event goes out again\n"
    assert "is no instant" in one_line(budkavle("republish", "--since", "yesterday"))
    assert "still to come" in one_line(budkavle("republish", "--since", "2999-01-01"))


def test_a_mended_body_goes_in_its_place(budkavle: Budkavle, directory: Path, tmp_path: Path) -> None:
    budkavle("migrate")
    key = dead(directory, b"broken")
    mended = tmp_path / "mended.json"
    mended.write_text(json.dumps(BODY))
    assert budkavle("dead", "replay", key, "--body", mended).exit_code == 0
    ((queue, body),) = outbox(directory)
    assert queue == "distributor.mail.news"
    assert json.loads(body).items() > BODY.items()


def test_a_body_that_would_die_again_is_refused(budkavle: Budkavle, directory: Path, tmp_path: Path) -> None:
    budkavle("migrate")
    key = dead(directory, b"broken")
    unfit = tmp_path / "unfit.json"
    unfit.write_text(json.dumps({**BODY, "id": "no uuid"}))
    assert "id: " in one_line(budkavle("dead", "replay", key, "--body", unfit))
    assert outbox(directory) == []
    assert str(key) in budkavle("dead", "list").output


@pytest.mark.parametrize("command", ["show", "replay"])
def test_b42_an_unknown_dead_letter_is_said_to_be_unknown(budkavle: Budkavle, command: str) -> None:
    budkavle("migrate")
    key = uuid4()
    assert f"no dead letter {key}" in one_line(budkavle("dead", command, key))


def test_an_import_to_nobody_is_refused_in_one_line(budkavle: Budkavle, tmp_path: Path, free_port: int) -> None:
    file = tmp_path / "people.csv"
    file.write_text("email\na@b.example\n")
    arguments = ("import", file, "--audience", "public", "--url", f"http://127.0.0.1:{free_port}")
    assert "nobody answers" in one_line(budkavle(*arguments, "--key", "k"))
    line = one_line(budkavle(*arguments))
    assert "no API key" in line and str(tmp_path) in line


@pytest.mark.parametrize(
    ("last", "exit_code", "says"),
    [
        ({"state": "done"}, 0, "3 created, 0 updated, 0 unchanged (3 lines)"),
        (
            {
                "state": "refused",
                "created": 0,
                "errors": [{"line": 7, "column": "email", "message": "The address has no @."}],
            },
            1,
            "1 fault",
        ),
        ({"state": "failed", "rows_done": 2}, 1, "2 of 3 lines are"),
    ],
)
def test_a_large_import_is_asked_for_until_it_has_ended(
    budkavle: Budkavle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: dict, exit_code: int, says: str
) -> None:
    file = tmp_path / "people.csv"
    file.write_text("email\na@b.example\n")
    shown = {"state": "stored", "rows": 0, "rows_done": 0, "created": 3, "updated": 0, "unchanged": 0, "ended_at": None}
    answers = [
        httpx2.Response(202, json=shown, headers={"Location": "/api/subscriptions/v1/imports/7"}),
        httpx2.Response(200, json={**shown, "rows": 3}),
        httpx2.Response(503, json={}),
        httpx2.Response(200, json={**shown, "state": "writing", "rows": 3, "rows_done": 1}),
        httpx2.Response(200, json={**shown, "rows": 3, "rows_done": 3, "ended_at": "2026-05-12T10:00:00Z", **last}),
    ]
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(f"{request.method} {request.url}")
        assert request.headers["authorization"] == "Bearer k"
        return answers.pop(0)

    client, transport = httpx2.Client, httpx2.MockTransport(answer)
    monkeypatch.setattr(importing.httpx2, "Client", lambda **options: client(transport=transport, **options))
    monkeypatch.setattr(importing.httpx2, "post", client(transport=transport).post)
    monkeypatch.setattr(importing, "ASK_EVERY_S", 0)
    result = budkavle("import", file, "--audience", "public", "--url", "http://site.example/", "--key", "k")
    assert (result.exit_code, says in result.output) == (exit_code, True), result.output
    assert asked[1:] == ["GET http://site.example/api/subscriptions/v1/imports/7"] * 4
    assert answers == []


def test_one_database_for_three_services_is_refused(budkavle: Budkavle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUDKAVLE_DATABASE_URL", "sqlite:///one.sqlite3")
    result = budkavle("migrate")
    assert result.exit_code == 78
    assert "BUDKAVLE_CONTENT_DATABASE_URL" in result.stderr


def test_a_database_may_be_named(budkavle: Budkavle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUDKAVLE_CONTENT_DATABASE_URL", f"sqlite:///{tmp_path / 'elsewhere.sqlite3'}")
    assert budkavle("migrate", "--service", "content").exit_code == 0
    assert (tmp_path / "elsewhere.sqlite3").exists()


@pytest.mark.parametrize(
    "arguments",
    [("dead", "show", "no-uuid"), ("keys", "create", "--scope", "root", "--name", "x"), ("import", "/no/file")],
)
def test_wrong_usage_ends_with_two(budkavle: Budkavle, arguments: tuple[str, ...]) -> None:
    assert budkavle(*arguments).exit_code == 2


def test_restored_erases_again_whom_the_list_names_before_anything_goes_out(
    budkavle: Budkavle, directory: Path
) -> None:
    """In both databases, which were put back together."""
    assert budkavle("migrate").exit_code == 0
    erased, home = uuid4(), {"id": 1, "place": "elsewhere", "seen_at": NOW, "restored_at": NOW}

    async def put_back() -> None:
        async with opened("subscriptions") as database, database.transaction() as session:
            await insert_subscriber(
                session, {"id": erased, **values_of(addresses.parse(ADDRESS), "Eva", Locale.SV, NOW)}
            )
        async with opened("distributor") as database, database.transaction() as session:
            await session.execute(homes.insert().values(home))

    async def left() -> tuple[list[UUID], list[UUID]]:
        async with opened("subscriptions") as register, opened("distributor") as ledger:
            async with register.reading() as session:
                people = list(await session.scalars(select(Subscriber.id)))
            async with ledger.reading() as session:
                return people, list(await session.scalars(select(stops.c.recipient_id).where(stops.c.erased)))

    def opened(name: str) -> Any:
        return databases.opened(f"sqlite:///{directory / name}.sqlite3", SystemClock())

    asyncio.run(put_back())
    ErasedFile(directory / "erased.txt").add([(erased, NOW)])
    done = budkavle("restored")
    assert done.exit_code == 0, done.stderr
    assert "erased again: 1." in done.stdout
    assert "no list" not in done.stdout
    assert asyncio.run(left()) == ([], [erased])
    (directory / "erased.txt").unlink()
    again = budkavle("restored")  # nobody waits any more; to erase again did no harm
    assert again.exit_code == 1
    assert "no list of the erased" in again.stdout
