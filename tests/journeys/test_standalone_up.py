"""`budkavle up` from its first start: the key, an import, a publication, a dead letter, a restart."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import select
from tests.budkavle import BUDKAVLE, Process
from tests.eventually import eventually
from tests.servers.smtp import SmtpServer

from shared.database import Database
from shared.messaging.outbox import outbox, redirect

PEOPLE = """\
E-post;Namn;Fullmäktige;Kommun;Mandat från;Mandat till
ida.ekmosse@hogsby.example;Ida Ekmosse;Kommunfullmäktige i Högsby;Högsby;2022-10-15;2099-10-14
zahra.tallryd@nybro.example;Zahra Tallryd;Kommunfullmäktige i Nybro;Nybro;2022-10-15;2099-10-14
bo.dalvik@nybro.example;Bo Dalvik;Kommunfullmäktige i Nybro;Nybro;2014-10-15;2018-10-14
"""
ITEM = {
    "kind": "news",
    "title": "Nytt stöd i Nybro",
    "lead": "Stödet finns från och med i dag.",
    "body": "Mer om stödet.",
    "audiences": ["politician"],
    "municipalities": ["0881"],
}


@pytest.fixture
async def budkavle(tmp_path: Path, free_port: int) -> AsyncIterator[Process]:
    process = Process(tmp_path, free_port)
    yield process
    await process.end_at_last()


async def up(budkavle: Process) -> str:
    """Start it; returns what it printed."""
    await budkavle.start("up")
    await budkavle.says("/mailbox")
    return budkavle.out


async def command(budkavle: Process, *arguments: object) -> tuple[int, str, str]:
    """Another `budkavle` beside the one that runs: status, output, complaints."""
    words = [str(argument) for argument in arguments]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        str(BUDKAVLE), *words, stdout=pipe, stderr=pipe, env=budkavle.environment
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()


async def publish(site: httpx2.AsyncClient, item: dict[str, Any]) -> str:
    drafted = (await site.post("/api/content/v1/items", json=item)).json()
    published = await site.post(f"/api/content/v1/items/{drafted['id']}/publish")
    assert published.status_code == 202, published.text
    return str(drafted["id"])


async def mails_to(site: httpx2.AsyncClient, count: int) -> list[str]:
    """Whom the caught mails went to, once there are `count`."""

    async def all_of_them() -> list[dict[str, Any]] | None:
        data: list[dict[str, Any]] = (await site.get("/mailbox.json")).json()["data"]
        return data if len(data) >= count else None

    mails = await eventually(all_of_them, within=30)
    assert mails is not None
    return sorted(address for mail in mails for address in mail["to"])


async def test_from_the_first_start_to_a_restart(budkavle: Process, tmp_path: Path) -> None:
    first = await up(budkavle)
    key = re.search(r"kept in \S+/admin-key: (\S+)", first)[1]
    people = tmp_path / "politiker.csv"
    people.write_text(PEOPLE, encoding="cp1252")
    status, out, err = await command(budkavle, "import", people, "--audience", "politician")
    assert (status, out) == (0, "3 created, 0 updated, 0 unchanged (3 lines)\n"), err
    async with budkavle.site() as site:
        site.headers["Authorization"] = f"Bearer {key}"
        await publish(site, ITEM)
        assert await mails_to(site, 1) == ["zahra.tallryd@nybro.example"]
    assert await budkavle.ended(signal.SIGTERM, within=25) == 0
    again = await up(budkavle)
    assert "admin-key" not in again
    async with budkavle.site() as site:
        site.headers["Authorization"] = f"Bearer {key}"
        await publish(site, {**ITEM, "title": "Och i Högsby", "municipalities": ["0821"]})
        assert await mails_to(site, 2) == ["ida.ekmosse@hogsby.example", "zahra.tallryd@nybro.example"]
    assert await budkavle.ended(signal.SIGINT, within=25) == 0


async def test_a_faulty_file_is_refused_whole_with_a_table_of_its_lines(budkavle: Process, tmp_path: Path) -> None:
    await up(budkavle)
    people = tmp_path / "politiker.csv"
    people.write_text(PEOPLE.replace("zahra.tallryd@nybro.example", "zahra").replace("2018-10-14", "i höst"))
    for dry_run in ([], ["--dry-run"]):
        status, out, _ = await command(budkavle, "import", people, "--audience", "politician", *dry_run)
        assert status == 1
        assert "2 faults" in out
        assert re.search(r"3 +. email", out), out
        assert re.search(r"4 +. mandate_until", out), out
    people.write_text(PEOPLE)
    status, out, _ = await command(budkavle, "import", people, "--audience", "politician", "--dry-run", "--json")
    assert status == 0
    assert json.loads(out)["created"] == 3
    people.write_text(PEOPLE.rpartition("bo.dalvik")[0])
    roll = ("import", people, "--audience", "politician", "--roll")
    for options, told in (("--dry-run", "Would be: 2 joining"), ("--yes", "\n2 joining"), ("--dry-run", "2 staying")):
        status, out, err = await command(budkavle, *roll, options)
        assert (status, told in out) == (0, True), out + err
    status, _, err = await command(budkavle, "import", people, "--audience", "politician", "--key", "bk_wrong_key")
    assert status == 1
    assert len(err.splitlines()) == 1


async def test_a_mended_dead_letter_is_handled_while_everything_runs(budkavle: Process, tmp_path: Path) -> None:
    key = re.search(r"kept in \S+/admin-key: (\S+)", await up(budkavle))[1]
    people = tmp_path / "politiker.csv"
    people.write_text(PEOPLE)
    await command(budkavle, "import", people, "--audience", "politician")
    async with budkavle.site() as site:
        site.headers["Authorization"] = f"Bearer {key}"
        await publish(site, ITEM)
        await mails_to(site, 1)
        event = await break_a_message(tmp_path / "data" / "content.sqlite3")
        (letter,) = await eventually(lambda: dead_letters(budkavle), within=30)
        assert (letter["queue"], letter["reason"]) == ("subscriptions.news", "undecodable")
        mended = tmp_path / "mended.json"
        mended.write_text(json.dumps(about_hogsby(event)))
        status, _, err = await command(budkavle, "dead", "replay", letter["id"], "--body", mended)
        assert status == 0, err
        assert await mails_to(site, 2) == ["ida.ekmosse@hogsby.example", "zahra.tallryd@nybro.example"]
        status, _, err = await command(budkavle, "dead", "replay", letter["id"])
        assert status == 1
        assert "replayed before" in err


async def test_with_a_mail_server_named_mail_goes_there_and_there_is_no_mailbox(
    budkavle: Process, tmp_path: Path, smtp_server: SmtpServer
) -> None:
    await budkavle.start("up", BUDKAVLE_SMTP_URL=smtp_server.url, BUDKAVLE_ADMIN_KEY="a-key-of-my-own")
    await budkavle.says("Everything is kept in")
    assert "/mailbox" not in budkavle.out
    assert "a-key-of-my-own" not in budkavle.out
    people = tmp_path / "politiker.csv"
    people.write_text(PEOPLE)
    status, _, err = await command(budkavle, "import", people, "--audience", "politician", "--key", "a-key-of-my-own")
    assert status == 0, err
    async with budkavle.site() as site:
        site.headers["Authorization"] = "Bearer a-key-of-my-own"
        await publish(site, ITEM)
        await eventually(lambda: smtp_server.accepted, within=30)
        assert [mail.recipients for mail in smtp_server.accepted] == [("zahra.tallryd@nybro.example",)]
        assert (await site.get("/mailbox")).status_code == 404
        assert (await site.get("/mailbox.json")).status_code == 404
        assert (await site.get("/demo/intranet")).status_code == 404


async def break_a_message(content: Path) -> dict[str, Any]:
    """Put half of the last event on the queue of `subscriptions`, as from a faulty producer; returns the event."""
    database = Database(f"sqlite:///{content}")
    async with database.transaction() as session:
        row = (await session.execute(select(outbox).where(outbox.c.routing_key == "news.published"))).one()
        await redirect(session, "subscriptions.news", row.body[: len(row.body) // 2], datetime.now(UTC))
    await database.dispose()
    event: dict[str, Any] = json.loads(row.body)
    return event


def about_hogsby(event: dict[str, Any]) -> dict[str, Any]:
    """The same event about another item, for another municipality."""
    item = {**event["data"]["item"], "item_id": str(uuid4()), "title": "Och i Högsby", "municipalities": ["0821"]}
    return {**event, "id": str(uuid4()), "subject": item["item_id"], "data": {"item": item}}


async def dead_letters(budkavle: Process) -> list[dict[str, Any]]:
    status, out, err = await command(budkavle, "dead", "list", "--json")
    assert status == 0, err
    letters: list[dict[str, Any]] = json.loads(out)
    return letters
