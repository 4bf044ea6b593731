"""From a sign-up on the site to an erasure, in a real standalone installation: nothing of the person is left anywhere."""

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import httpx2
import pytest
from tests.deployments import Standalone
from tests.desk import Desk
from tests.eventually import eventually
from tests.inboxes import Inboxes, Mail
from tests.journeys.conftest import pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]

ADDRESS = "Frida.Ekmosse@blåbär.example"
TOLD_APART = ("ekmosse", "blbr", "blåbär")
OWN = {"sec-fetch-site": "same-origin", "origin": "null"}
ITEM = {
    "kind": "news",
    "title": "Nytt stöd i Kalmar",
    "lead": "Stödet finns från och med i dag.",
    "body": "Mer om stödet.",
    "audiences": ["public"],
}


@pytest.fixture
def standalone(inboxes: Inboxes) -> Iterator[Standalone]:
    made = Standalone()
    made.mail_link.target = inboxes.port
    try:
        made.open()
        yield made
    finally:
        made.close()


async def mail_about(inboxes: Inboxes, subject: str) -> Mail:
    async def found() -> Mail | None:
        return next(
            (mail for mail in await asyncio.to_thread(lambda: inboxes.mails) if mail.header("Subject") == subject), None
        )

    mail = await eventually(found, within=30)
    assert mail is not None
    return mail


def link_in(mail: Mail, label: str) -> str:
    """The link under a label of the text part."""
    return re.search(rf"{label}:\n(\S+)", mail.part("plain"))[1]


async def test_erasing_leaves_nothing_in_any_table_or_queue(standalone: Standalone, inboxes: Inboxes) -> None:
    async with (
        httpx2.AsyncClient(base_url=standalone.url, headers=OWN, timeout=30) as reader,
        standalone.client() as api,
    ):
        desk = Desk(api)
        signed = await reader.post("/prenumerera", data={"email": ADDRESS, "frequency": "immediate"})
        assert signed.status_code == 200, signed.text
        confirm = await mail_about(inboxes, "Bekräfta din prenumeration")
        assert confirm.header("Auto-Submitted") == "auto-generated"
        assert (await reader.post(link_in(confirm, "Bekräfta prenumerationen"))).status_code == 200
        welcome = await mail_about(inboxes, "Välkommen som prenumerant")
        item = await desk.publish_new(ITEM)
        await desk.reached(item)
        assert (await mail_about(inboxes, ITEM["title"])).to == "Frida.Ekmosse@xn--blbr-noae.example"
        page = link_in(welcome, "Ändra vad du får")
        assert (await reader.post(page, data={"action": "fresh_link"})).status_code == 303
        fresh = link_in(await mail_about(inboxes, "Länk till dina uppgifter"), "Öppna dina uppgifter")
        assert (
            await reader.post(fresh, data={"action": "move", "new_address": "ny.ekmosse@kalmar.example"})
        ).status_code == 200
        await mail_about(inboxes, "Bekräfta din nya adress")
        assert found_in(standalone) != []
        erased = await reader.post(fresh, data={"action": "erase", "own_address": ADDRESS})
        assert "Dina uppgifter är borttagna" in erased.text
        await eventually(lambda: found_in(standalone) == [], within=30)
        assert (await desk.reach(item))["adds_up"]
    logs = "".join(standalone.logs().values()).lower()
    assert [part for part in TOLD_APART if part in logs] == []


def found_in(standalone: Standalone) -> list[str]:
    """Every table and column of every file that still tells of the person."""
    places = []
    for file in sorted(standalone.data.glob("*.sqlite3")):
        with closing(sqlite3.connect(file, timeout=10)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                rows = connection.execute(f'SELECT * FROM "{table}"')
                names = [column[0] for column in rows.description]
                for row in rows:
                    places += [
                        f"{file.stem}.{table}.{name}" for name, value in zip(names, row, strict=True) if tells(value)
                    ]
    return sorted(set(places))


def tells(value: object) -> bool:
    said = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return any(part in said.lower() for part in TOLD_APART)
