"""From a sign-up on the site to an erasure, on both deployments: nothing of the person is left in any table or queue."""

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import aio_pika
import httpx2
import pytest
from tests.deployments import SERVICES, Deployment, Distributed, Standalone
from tests.desk import Desk
from tests.eventually import eventually
from tests.inboxes import Inboxes, Mail
from tests.journeys.conftest import pytest_runtest_makereport
from tests.servers.rabbitmq import shared_amqp_url
from tests.telling import Telling

from shared.messaging.topology import QUEUES, RETRY_DELAYS_S

__all__ = ["pytest_runtest_makereport"]

ADDRESS = "Frida.Ekmosse@blåbär.example"
FRIDA = Telling("ekmosse", "blåbär")
OWN = {"sec-fetch-site": "same-origin", "origin": "null"}
ITEM = {
    "kind": "news",
    "title": "Nytt stöd i Kalmar",
    "lead": "Stödet finns från och med i dag.",
    "body": "Mer om stödet.",
    "audiences": ["public"],
}


@pytest.fixture(params=[Distributed.kind, Standalone.kind])
def deployment(request: pytest.FixtureRequest, inboxes: Inboxes) -> Iterator[Deployment]:
    made = Standalone() if request.param == Standalone.kind else Distributed(shared_amqp_url())
    with made.opened(inboxes.port):
        yield made


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


async def test_erasing_leaves_nothing_in_any_table_or_queue(deployment: Deployment, inboxes: Inboxes) -> None:
    async with (
        httpx2.AsyncClient(base_url=deployment.url, headers=OWN, timeout=30) as reader,
        deployment.client() as api,
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
        await reads_their_mails(reader, fresh)
        assert await found_in(deployment) != []
        erased = await reader.post(fresh, data={"action": "erase", "own_address": ADDRESS})
        assert "Dina uppgifter är borttagna" in erased.text

        async def nothing_left() -> bool:
            left = await found_in(deployment)
            assert left == []
            return True

        await eventually(nothing_left, within=30)
        assert (await reader.get(fresh)).status_code == 404
        assert (await desk.reach(item))["adds_up"]
    assert [name for name, log in deployment.logs().items() if FRIDA.tells(log)] == []
    if isinstance(deployment, Standalone):
        await asyncio.to_thread(deployment.end, "content")  # its log is written back into each database
        assert bytes_in(deployment.data) == []


def bytes_in(directory: Path) -> list[str]:
    """Files that tell of the person in any byte, also where SQLite had something and has it no more."""
    return [file.name for file in sorted(directory.rglob("*")) if file.is_file() and FRIDA.tells(file.read_bytes())]


async def reads_their_mails(reader: httpx2.AsyncClient, fresh: str) -> None:
    """From their own data on to what the delivery ledger holds: another service, opened by a link and no call."""
    own = (await reader.get(fresh, follow_redirects=True)).text
    mails = re.search(r'href="(/utskick/[^"]+)"', own)[1]
    shown = await reader.get(mails, follow_redirects=True)
    for told in (ITEM["title"], "Välkommen som prenumerant", "Din mejlserver tog emot det", "du prenumererar på våra"):
        assert told in shown.text
    held = (await reader.get(f"{fresh}/export.json", follow_redirects=True)).json()
    document = (await reader.get(held["mails"])).json()
    told_of = {title for mail in document["mails"] for title in mail["titles"]}
    assert told_of >= {ITEM["title"], "Bekräfta din prenumeration", "Länk till dina uppgifter"}


async def found_in(deployment: Deployment) -> list[str]:
    """Every table and column, file and queue that still tells of the person."""
    if isinstance(deployment, Standalone):
        return await asyncio.to_thread(in_files, deployment)
    assert isinstance(deployment, Distributed)
    return [*await asyncio.to_thread(in_databases, deployment), *await in_queues(deployment)]


def in_files(standalone: Standalone) -> list[str]:
    places = set()
    for file in sorted(standalone.data.glob("*.sqlite3")):
        with closing(sqlite3.connect(file, timeout=10)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                rows = connection.execute(f'SELECT * FROM "{table}"')
                names = [column[0] for column in rows.description]
                places |= {f"{file.stem}.{table}.{names[place]}" for row in rows for place in telling(row)}
    return sorted(places)


def in_databases(distributed: Distributed) -> list[str]:
    places = set()
    for service in SERVICES:
        for (table,) in distributed.ask(service, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
            rows = distributed.ask(service, f'SELECT * FROM "{table}"')
            places |= {f"{service}.{table}.{place}" for row in rows for place in telling(row)}
    return sorted(places)


async def in_queues(distributed: Distributed) -> list[str]:
    """What lies in a queue, its backstop or a waiting queue is looked at and goes back when the connection ends."""
    names = [name for queue in QUEUES for name in (queue.name, queue.dead)]
    names += [f"retry.{delay}s" for delay in RETRY_DELAYS_S]
    found = []
    url = str(httpx2.URL(distributed.amqp_url).copy_remove_param("namespace"))
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        for name in names:
            queue = await channel.get_queue(f"{distributed.namespace}.{name}")
            while (message := await queue.get(fail=False)) is not None:
                found += [name] if FRIDA.tells(message.body) else []
    return found


def telling(row: tuple[object, ...]) -> list[int]:
    return [place for place, value in enumerate(row) if FRIDA.tells(value)]
