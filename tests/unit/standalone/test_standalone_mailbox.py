"""The mail catcher and its pages, seen from an SMTP client and a reader."""

import asyncio
import re
import smtplib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import html5lib
import httpx2
import pytest
from fastapi import FastAPI

import standalone
from shared.clock import SystemClock
from shared.database import Database
from shared.http import create_app
from shared.web.pages import Pages, install_error_pages
from standalone.mailbox.catcher import MailCatcher
from standalone.mailbox.pages import mailbox_router
from standalone.mailbox.store import MailStore
from standalone.settings import StandaloneSettings
from standalone.tables import create_tables

HERE = Path(standalone.__file__).parent
SITE = "http://localhost:8080"


@dataclass
class Mailbox:
    url: str
    app: FastAPI

    async def send(self, *mails: EmailMessage) -> None:
        host, port = self.url.removeprefix("smtp://").partition("?")[0].split(":")
        await asyncio.to_thread(_send, host, int(port), mails)

    def browser(self, client: str = "127.0.0.1", site: str = SITE) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(self.app, client=(client, 4711))
        return httpx2.AsyncClient(transport=transport, base_url=site)


def _send(host: str, port: int, mails: tuple[EmailMessage, ...]) -> None:
    with smtplib.SMTP(host, port, timeout=10) as client:
        for mail in mails:
            client.send_message(mail)


def letter(subject: str = "Nyheter från förbundet", to: str = "eva@kalmar.example", text: str = "Hej!") -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "nyheter@forbundet.example", to, subject
    mail.set_content(text)
    mail.add_alternative(f"<html><head><title>x</title></head><body><p>{text}</p></body></html>", subtype="html")
    return mail


@pytest.fixture
def limit() -> int:
    return 1000


@pytest.fixture
async def mailbox(tmp_path: Path, limit: int) -> AsyncIterator[Mailbox]:
    settings = StandaloneSettings(data_dir=tmp_path)
    database = Database(f"sqlite:///{tmp_path / 'caught.sqlite3'}")
    await create_tables(database)
    store = MailStore(database, SystemClock(), limit=limit)
    catcher = MailCatcher(store)
    await catcher.start()
    pages = Pages(settings, HERE)
    app = create_app("standalone", "Test", settings=settings, database=database, clock=SystemClock())
    install_error_pages(app, pages)
    app.serve(mailbox_router(store, pages, origin=SITE, remote=False))
    yield Mailbox(catcher.url, app)
    await catcher.stop()
    await database.dispose()


async def test_a_caught_mail_is_listed_and_shown_in_all_its_views(mailbox: Mailbox) -> None:
    await mailbox.send(letter("Ärende på Öland", text="Räksmörgås & <b>fet</b>"))
    async with mailbox.browser() as browser:
        listing = (await browser.get("/mailbox")).text
        assert "Ärende på Öland" in listing
        assert "eva@kalmar.example" in listing
        assert "Räksmörgås &amp; &lt;b&gt;fet&lt;/b&gt;" in (await browser.get("/mailbox/1?view=text")).text
        assert "nyheter@forbundet.example" in (await browser.get("/mailbox/1?view=headers")).text
        assert "multipart/alternative" in (await browser.get("/mailbox/1?view=source")).text
        shown = await browser.get("/mailbox/1")
        assert '<iframe class="mail-frame" src="/mailbox/1/html"' in shown.text
        for page in ("/mailbox", "/mailbox/1", "/mailbox/1?view=source", "/mailbox/1?lang=en"):
            html5lib.HTMLParser(strict=True).parse((await browser.get(page)).text)


async def test_the_source_is_what_came_over_the_wire(mailbox: Mailbox) -> None:
    mail = letter()
    mail.set_boundary("=====")
    await mailbox.send(mail)
    async with mailbox.browser() as browser:
        source = await browser.get("/mailbox/1/source.eml")
    assert source.headers["content-type"] == "message/rfc822"
    assert source.content.replace(b"\r\n", b"\n").strip() == mail.as_bytes().strip()


async def test_a_mails_html_runs_nothing_and_fetches_nothing_from_elsewhere(mailbox: Mailbox) -> None:
    await mailbox.send(letter())
    async with mailbox.browser() as browser:
        framed = await browser.get("/mailbox/1/html")
        around = await browser.get("/mailbox/1")
    policy = framed.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "sandbox allow-popups" in policy
    assert "allow-scripts" not in policy
    assert "https:" not in policy
    assert "frame-ancestors 'self'" in policy
    assert "allow-scripts" not in re.search(r'sandbox="([^"]*)"', around.text)[1]
    assert "frame-src 'self'" in around.headers["content-security-policy"]
    assert '<base target="_blank">' in framed.text


async def test_search_finds_words_in_subject_address_and_text_whatever_their_case(mailbox: Mailbox) -> None:
    await mailbox.send(
        letter("Årsredovisning", "a@kalmar.example"),
        letter("Nyhet", "b@nybro.example", "Om ÅRSREDOVISNING i Nybro"),
        letter("100 % nöjda", "c@torsas.example"),
    )
    async with mailbox.browser() as browser:
        found = {
            words: (await browser.get("/mailbox.json", params={"q": words})).json()["total"]
            for words in ("årsredovisning", "ÅRSREDOVISNING nybro", "c@torsas.example", "%", "_", "finns inte")
        }
    assert found == {
        "årsredovisning": 2,
        "ÅRSREDOVISNING nybro": 1,
        "c@torsas.example": 1,
        "%": 1,
        "_": 0,
        "finns inte": 0,
    }


async def test_pages_lead_from_the_newest_to_the_oldest(mailbox: Mailbox) -> None:
    await mailbox.send(*(letter(f"Nummer {number}") for number in range(120)))
    seen: list[str] = []
    path: str | None = "/mailbox"
    async with mailbox.browser() as browser:
        while path:
            page = (await browser.get(path)).text
            seen += re.findall(r"Nummer (\d+)</a>", page)
            link = re.search(r'rel="next" href="([^"]+)"', page)
            path = link[1].replace("&amp;", "&") if link else None
    assert seen == [str(number) for number in reversed(range(120))]


@pytest.mark.parametrize("limit", [10])
async def test_only_the_newest_are_kept(mailbox: Mailbox) -> None:
    await mailbox.send(*(letter(f"Nummer {number}") for number in range(25)))
    async with mailbox.browser() as browser:
        listed = (await browser.get("/mailbox.json")).json()
    assert listed["total"] == 10
    assert [mail["subject"] for mail in listed["data"]] == [f"Nummer {number}" for number in range(24, 14, -1)]


async def test_mails_that_come_at_once_are_all_caught(mailbox: Mailbox) -> None:
    await asyncio.gather(*(mailbox.send(*(letter(f"{lane}-{number}") for number in range(20))) for lane in range(8)))
    async with mailbox.browser() as browser:
        assert (await browser.get("/mailbox.json")).json()["total"] == 160


@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"no header at all",
        b"Subject: =?utf-8?q?broken\r\nContent-Type: text/html; charset=nosuch\r\n\r\n\xff\xfe<p>x",
        b"Content-Type: multipart/alternative; boundary=x\r\n\r\n--x\r\nContent-Type: text/plain\r\n\r\nhalf",
        b"From: \xc3\x85sa\r\nTo: undisclosed;;\r\nSubject: \xff\r\n\r\n.\r\n",
    ],
)
async def test_a_malformed_mail_is_caught_and_shown_as_far_as_it_goes(mailbox: Mailbox, source: bytes) -> None:
    host, port = mailbox.url.removeprefix("smtp://").partition("?")[0].split(":")

    def send() -> None:
        with smtplib.SMTP(host, int(port), timeout=10) as client:
            client.sendmail("a@b.example", ["c@d.example"], source)

    await asyncio.to_thread(send)
    async with mailbox.browser() as browser:
        for path in (
            "/mailbox",
            "/mailbox/1",
            *(f"/mailbox/1?view={view}" for view in ("html", "text", "source", "headers")),
        ):
            assert (await browser.get(path)).status_code == 200, path
        assert (await browser.get("/mailbox/1/html")).status_code in (200, 404)


@pytest.mark.parametrize(
    "path", ["/mailbox/2", "/mailbox/x", "/mailbox/99999999999999999999", "/mailbox/٣", "/mailbox/2/html"]
)
async def test_a_mail_that_is_not_there_is_a_page_that_says_so(mailbox: Mailbox, path: str) -> None:
    async with mailbox.browser() as browser:
        answer = await browser.get(path)
    assert answer.status_code == 404
    assert "Sidan finns inte" in answer.text


@pytest.mark.parametrize(
    ("client", "site", "headers"),
    [
        ("192.0.2.7", SITE, {}),
        ("127.0.0.1", "http://rebound.example:8080", {}),
        ("127.0.0.1", SITE, {"X-Forwarded-For": "192.0.2.7"}),
    ],
)
async def test_nobody_but_this_machine_reads_the_mails(
    mailbox: Mailbox, client: str, site: str, headers: dict[str, str]
) -> None:
    await mailbox.send(letter())
    async with mailbox.browser(client, site) as browser:
        for path in ("/mailbox", "/mailbox.json", "/mailbox/1", "/mailbox/1/html", "/mailbox/1/source.eml"):
            assert (await browser.get(path, headers=headers)).status_code == 404


async def test_the_pages_speak_english_to_those_who_ask(mailbox: Mailbox) -> None:
    await mailbox.send(letter())
    async with mailbox.browser() as browser:
        page = (await browser.get("/mailbox?lang=en")).text
        opened = (await browser.get("/mailbox/1?lang=en")).text
    assert "1 mail." in page
    assert "Search the mails" in page
    assert "Back to the mailbox" in opened
    assert not re.search(r"mejl|brevlåda", page + opened, re.IGNORECASE)
