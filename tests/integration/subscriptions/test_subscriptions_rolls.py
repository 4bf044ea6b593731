"""Rolls: compared before they are applied, one term after another, and forgotten when their time is over."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from threading import get_ident
from typing import Any

import pytest
from httpx2 import AsyncClient
from sqlalchemy import event
from structlog.testing import capture_logs
from tests.integration.subscriptions.conftest import NOON, Register, emitted, make_item, run_dry

from shared.clock import FixedClock
from shared.database import Database
from shared.service import Service
from subscriptions.fanout import FanoutWorker, record
from subscriptions.rolls import importing
from subscriptions.rolls.comparing import compare
from subscriptions.rolls.weeding import RollWeeder

V1 = "/api/subscriptions/v1"
HEADER = "E-post;Namn;Fullmäktige;Kommun;Mandat från;Mandat till\n"
OLD = ";Kommunfullmäktige;Kalmar;2022-10-15;2026-10-14\n"
NEW = ";Kommunfullmäktige;Kalmar;2026-10-15;2030-10-14\n"
SITTING = f"{HEADER}anna@kalmar.example;Anna Åberg{OLD}bo@kalmar.example;Bo Ek{OLD}"
ELECTED = f"{HEADER}anna@kalmar.example;Anna Åberg{NEW}cia@kalmar.example;Cia Lind{NEW}"


async def send(office: AsyncClient, text: str, etag: str | None = None, *, dry: bool = False) -> Any:
    headers = {"If-Match": etag} if etag else {}
    files = {"file": ("lista.csv", text.encode())}
    return await office.post(f"{V1}/rolls?dry_run={str(dry).lower()}", files=files, headers=headers)


async def apply(office: AsyncClient, text: str) -> dict[str, Any]:
    """Compare, apply what was shown, and find nothing left to do."""
    shown = await send(office, text, dry=True)
    assert shown.status_code == 200, shown.text
    done = await send(office, text, shown.headers["etag"])
    assert done.status_code == 200, done.text
    assert summary(done.json()) == summary(shown.json())
    again = (await send(office, text, dry=True)).json()
    assert [(roll["joining"], roll["leaving"], roll["changing"]) for roll in again["rolls"]] == [([], [], [])] * len(
        again["rolls"]
    )
    return dict(done.json())


def summary(report: dict[str, Any]) -> list[Any]:
    return [
        (
            roll["organisation"],
            roll["municipalities"],
            [person["address"] for person in roll["joining"]],
            [person["address"] for person in roll["leaving"]],
            [(person["address"], [field["field"] for field in person["fields"]]) for person in roll["changing"]],
            roll["staying"],
        )
        for roll in report["rolls"]
    ]


async def mailed(worker: FanoutWorker, database: Database, at: datetime) -> set[str]:
    """Who gets an item for politicians that is published at `at`."""
    item = make_item("politician")
    async with database.transaction() as session:
        await record(session, item, at)
    await run_dry(worker, database)
    about = str(item.item_id)
    mails = [mail for mail in await emitted(database, "mail.requested") if mail.data["subject_id"] == about]
    return {recipient["address"] for mail in mails for recipient in mail.data["recipients"]}


async def test_the_comparison_names_everybody_and_changes_nothing(office: AsyncClient) -> None:
    await apply(office, SITTING)
    before = (await office.get(f"{V1}/subscribers")).json()
    moved = (
        f"{HEADER}anna@kalmar.example;Anna Öberg{OLD.replace('2026-10-14', '2025-10-14').replace('2025', '2027')}"
        f"cia@kalmar.example;Cia Lind{OLD}"
    )
    shown = (await send(office, moved, dry=True)).json()
    kalmar = ("Kommunfullmäktige", ["0880"])
    assert summary(shown) == [
        (*kalmar, ["cia@kalmar.example"], ["bo@kalmar.example"],
         [("anna@kalmar.example", ["name", "mandate_until"])], 0)
    ]  # fmt: skip
    assert shown["rolls"][0]["changing"][0]["fields"][0] == {
        "field": "name", "before": "Anna Åberg", "after": "Anna Öberg"
    }  # fmt: skip
    assert (await office.get(f"{V1}/subscribers")).json() == before


async def test_only_what_was_shown_is_applied(office: AsyncClient, register: Register) -> None:
    await apply(office, SITTING)
    assert (await send(office, ELECTED)).status_code == 428
    shown = await send(office, ELECTED, dry=True)
    etag = shown.headers["etag"]
    other_file = await send(office, ELECTED.replace("cia@", "dan@"), etag)
    assert (other_file.status_code, other_file.json()["code"]) == (412, "roll_changed")
    bo = next(row for row in (await office.get(f"{V1}/subscribers")).json()["data"] if row["name"] == "Bo Ek")
    await register.change(bo["id"], name="Bo Ek Lund")
    assert (await send(office, ELECTED, etag)).status_code == 412
    assert len((await office.get(f"{V1}/subscribers")).json()["data"]) == 2
    etag = (await send(office, ELECTED, dry=True)).headers["etag"]
    answers = await asyncio.gather(*(send(office, ELECTED, etag) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412]


async def test_the_new_roll_takes_over_at_the_days_change_in_sweden(
    office: AsyncClient, worker: FanoutWorker, database: Database
) -> None:
    await apply(office, SITTING)
    report = await apply(office, ELECTED)
    assert summary(report)[0][2:] == (["anna@kalmar.example", "cia@kalmar.example"], [], [], 0)
    eve, morning = datetime(2026, 10, 14, 21, 59, tzinfo=UTC), datetime(2026, 10, 14, 22, 0, tzinfo=UTC)
    assert await mailed(worker, database, eve) == {"anna@kalmar.example", "bo@kalmar.example"}
    assert await mailed(worker, database, morning) == {"anna@kalmar.example", "cia@kalmar.example"}


async def test_whoever_has_no_dates_sits_until_the_new_term(
    office: AsyncClient, worker: FanoutWorker, database: Database, register: Register
) -> None:
    council = await register.organisation("council", "Kommunfullmäktige")
    role = {"audience": "politician", "organisation_id": council, "municipalities": ["0880"]}
    await register.person("anna@kalmar.example", role)
    await register.person("bo@kalmar.example", role)
    elsewhere = await register.person("dan@nybro.example", {**role, "municipalities": ["0881"]})
    report = await apply(office, ELECTED)
    changed = [("anna@kalmar.example", ["name", "mandate_from", "mandate_until"])]
    assert summary(report)[0][2:] == (["cia@kalmar.example"], ["bo@kalmar.example"], changed, 0)
    eve, morning = datetime(2026, 10, 14, 12, tzinfo=UTC), datetime(2026, 10, 15, 12, tzinfo=UTC)
    everybody = {"anna@kalmar.example", "bo@kalmar.example", "dan@nybro.example"}
    assert await mailed(worker, database, eve) == everybody
    assert await mailed(worker, database, morning) == (everybody | {"cia@kalmar.example"}) - {"bo@kalmar.example"}
    dan = (await office.get(f"{V1}/subscribers/{elsewhere}")).json()
    assert (dan["version"], dan["roles"][0]["mandate_until"]) == (1, None)


@pytest.mark.parametrize(
    ("line", "column", "code"),
    [
        ("x@kalmar.example;X;Nämnden;;;2030-10-14\n", "mandate_from", "missing_value"),
        ("x@kalmar.example;X;Nämnden;;2022-10-15;2026-05-11\n", "mandate_until", "mandate_is_over"),
        ("x@kalmar.example;X;;;2022-10-15;2030-05-11\n", "organisation", "missing_value"),
        ("", "", "empty_roll"),
    ],
)
async def test_a_faulty_roll_lets_nothing_in(line: str, column: str, code: str, office: AsyncClient) -> None:
    faulty = (SITTING if line else HEADER) + line
    shown = await send(office, faulty, dry=True)
    assert [(error["column"], error["code"]) for error in shown.json()["errors"]] == [(column, code)]
    refused = await send(office, faulty, '"x"')
    assert (refused.status_code, refused.json()["code"]) == (422, "import_refused")
    assert (await office.get(f"{V1}/subscribers")).json()["data"] == []


async def test_former_representatives_are_weeded_and_nobody_else(
    office: AsyncClient, service: Service, register: Register, clock: FixedClock, database: Database
) -> None:
    await apply(office, SITTING)
    people = (await office.get(f"{V1}/subscribers")).json()["data"]
    bo = next(row for row in people if row["name"] == "Bo Ek")
    roles = [{name: role[name] for name in role if name != "name"} for role in bo["roles"]]
    await register.person("dan@kalmar.example", *roles, {"audience": "public"})
    await register.person("eva@kalmar.example")
    await apply(office, ELECTED + f"dan@kalmar.example;Dan{NEW}")
    await apply(office, ELECTED)  # Dan's seat was a mistake
    weeder = next(found for found in service.workers if isinstance(found, RollWeeder))
    clock.advance(datetime(2027, 1, 12, 22, 59, tzinfo=UTC) - NOON)  # the 90th day after 14 October
    assert not await weeder.weed()
    assert len((await office.get(f"{V1}/subscribers")).json()["data"]) == 5
    clock.advance(timedelta(minutes=1))
    with capture_logs() as logs:
        await weeder.weed()
        await weeder.weed()
    left = (await office.get(f"{V1}/subscribers")).json()["data"]
    assert [row["address"] for row in left] == [
        "anna@kalmar.example", "dan@kalmar.example", "eva@kalmar.example", "cia@kalmar.example"
    ]  # fmt: skip
    assert [[role["mandate_from"] for role in row["roles"]] for row in left] == [
        ["2026-10-15"],
        [None],
        [],
        ["2026-10-15"],
    ]
    assert [event.data["recipient_id"] for event in await emitted(database, "recipient.erased")] == [bo["id"]]
    [line] = [entry for entry in logs if entry["event"] == "mandates_weeded"]
    assert (line["mandates"], line["people"]) == (3, 1)
    dan = next(row["id"] for row in left if row["address"] == "dan@kalmar.example")
    [last, *_] = (await office.get(f"{V1}/subscribers/{dan}/history")).json()["data"]
    assert (last["source"], last["before"], last["after"]) == (
        "weeding", {"audience:politician": "gets"}, {"audience:politician": None}
    )  # fmt: skip


async def test_coverage_shows_the_holes(office: AsyncClient, register: Register) -> None:
    await apply(office, SITTING + "eva@nybro.example;Eva;Socialnämnden;Nybro;2022-10-15;2026-10-14\n")
    paper = await register.organisation("newsroom", "Barometern", "0880")
    radio = await register.organisation("newsroom", "P4 Kalmar")
    await register.person("desk@p4.example", {"audience": "newsroom", "organisation_id": radio})
    desk = await register.person("desk@barometern.example", {"audience": "newsroom", "organisation_id": paper})

    async def holes(day: date) -> dict[str, Any]:
        answer = await office.get(f"{V1}/coverage?on={day}")
        assert answer.status_code == 200, answer.text
        found = answer.json()["municipalities"]
        assert len(found) == 12
        return {entry["name"]: entry for entry in found}

    today = await holes(date(2026, 5, 12))
    assert today["Kalmar"]["holes"] == ["group"]
    assert today["Nybro"]["holes"] == ["local_newsroom", "group"]
    assert today["Borgholm"]["holes"] == ["local_newsroom", "council", "group"]
    [council] = today["Kalmar"]["councils"]
    assert (council["members"], council["reached"], council["mandate_until"]) == (2, 2, "2026-10-14")
    await register.change(desk, unsubscribed=True)
    after = await holes(date(2026, 10, 15))
    assert after["Kalmar"]["holes"] == ["local_newsroom", "council", "council_without_members", "group"]
    await apply(office, ELECTED)
    after = await holes(date(2026, 10, 15))
    assert after["Kalmar"]["holes"] == ["local_newsroom", "group"]
    assert today["Kalmar"]["councils"][0]["id"] == after["Kalmar"]["councils"][0]["id"]
    only = (await office.get(f"{V1}/coverage?municipality=0885")).json()
    assert [entry["name"] for entry in only["municipalities"]] == ["Borgholm"]
    assert (await office.get(f"{V1}/coverage?municipality=9999")).status_code == 422


async def test_no_statement_names_each_of_many(office: AsyncClient, database: Database, clock: FixedClock) -> None:
    """A statement with a parameter for every row takes the driver far longer than the database."""
    most = {"": 0}

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: Any) -> None:
        if not many and len(parameters) > max(most.values()):
            most.update({statement: len(parameters)})

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    await apply(office, HEADER + "".join(f"p{number}@kalmar.example;P {number}{OLD}" for number in range(60)))
    await apply(office, f"{HEADER}anna@kalmar.example;Anna Åberg{OLD}")
    clock.advance(timedelta(days=365))
    weeder = RollWeeder(database, clock, timedelta(days=90))
    while await weeder.weed():
        pass
    event.remove(database.engine.sync_engine, "before_cursor_execute", note)
    assert max(most.values()) < 40, most


async def test_b28_a_roll_is_compared_beside_the_loop(office: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    where: list[int] = []

    def seen(*given: Any) -> Any:
        where.append(get_ident())
        return compare(*given)

    monkeypatch.setattr(importing, "compare", seen)
    await apply(office, SITTING)
    assert len(where) == 3
    assert get_ident() not in where
