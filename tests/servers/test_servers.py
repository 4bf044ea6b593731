"""The test servers are what they claim to be, so that a failure elsewhere is a failure of the product."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import aio_pika
import aiohttp
import aiosmtplib
import psycopg
import pytest
from aio_pika.abc import AbstractChannel, AbstractQueue
from playwright.async_api import Page
from sqlalchemy import make_url

from tests.eventually import eventually
from tests.servers import finding
from tests.servers.certificates import CertificateAuthority
from tests.servers.finding import ServerUnavailable, shared
from tests.servers.postgres import PrivatePostgres, drop_database, plain, shared_postgres_url
from tests.servers.rabbitmq import PrivateRabbitMQ
from tests.servers.receiver import CUT, HANG, Answer, HttpReceiver, drip, redirect
from tests.servers.recycled import Databases
from tests.servers.run import claim_port
from tests.servers.sink import SinkProcess
from tests.servers.smtp import DROP, Phase, SmtpServer
from tests.servers.smtp import HANG as SILENCE

# --- RabbitMQ


async def _quorum_queue(channel: AbstractChannel, name: str) -> AbstractQueue:
    return await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})


async def _publish(url: str, queue: str, body: bytes) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(on_return_raises=True)
        await _quorum_queue(channel, queue)
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, queue, timeout=10)


async def _take(url: str, queue: str) -> bytes:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        message = await (await _quorum_queue(channel, queue)).get(timeout=10)
        await message.ack()
        return message.body


async def test_the_shared_broker_carries_a_message(amqp_url: str) -> None:
    name = amqp_url.partition("namespace=")[2]
    await _publish(amqp_url, name, "nyhet från Kalmar".encode())
    assert (await _take(amqp_url, name)).decode() == "nyhet från Kalmar"


@pytest.mark.soak  # the faults of `tests/resilience` do it in every run
async def test_a_killed_broker_comes_back_with_what_it_confirmed(private_rabbitmq: PrivateRabbitMQ) -> None:
    before = private_rabbitmq.url
    await _publish(private_rabbitmq.url, "q", b"confirmed")
    private_rabbitmq.await_registered("q")
    private_rabbitmq.kill()
    with pytest.raises(ConnectionError):
        await aio_pika.connect(private_rabbitmq.url, timeout=2)
    await asyncio.to_thread(private_rabbitmq.start)
    assert private_rabbitmq.url == before
    assert await _take(private_rabbitmq.url, "q") == b"confirmed"


@pytest.mark.soak
async def test_the_broker_hangs_and_raises_its_memory_alarm_on_request(private_rabbitmq: PrivateRabbitMQ) -> None:
    url = private_rabbitmq.url
    await _publish(url, "q", b"first")
    private_rabbitmq.pause()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await _publish(url, "q", b"lost in the silence")
    private_rabbitmq.resume()
    await asyncio.to_thread(private_rabbitmq.raise_memory_alarm)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await _publish(url, "q", b"held back")
    await asyncio.to_thread(private_rabbitmq.clear_memory_alarm)
    await _publish(url, "q", b"second")


# --- PostgreSQL


def _value(url: str, query: str) -> object:
    with psycopg.connect(plain(url), connect_timeout=2) as connection:
        row = connection.execute(query).fetchone()
        return row and row[0]


def _do(url: str, statements: str) -> None:
    with psycopg.connect(plain(url), autocommit=True) as connection:
        connection.execute(statements.encode())


def test_each_call_gives_another_empty_database(postgres_database: Callable[[], str]) -> None:
    one, other = postgres_database(), postgres_database()
    assert one != other
    for url in (one, other):
        assert make_url(url).drivername == "postgresql+psycopg"
        assert _value(url, "SELECT current_database()") == make_url(url).database
        assert _value(url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
        assert _value(url, "SHOW server_encoding") == "UTF8"


def test_databases_are_dropped_under_whoever_still_uses_them(postgres_database: Callable[[], str]) -> None:
    url = postgres_database()
    with psycopg.connect(plain(url)) as still_connected:
        still_connected.execute("SELECT 1")
        drop_database(url, shared_postgres_url())
        with pytest.raises(psycopg.OperationalError):
            still_connected.execute("SELECT 1")
        still_connected.close()


FILL = "INSERT INTO outbox VALUES (gen_random_uuid(), 'news', 'news.published', '', now(), NULL, 0)"


def test_a_database_is_lent_again_when_it_can_be_made_as_new() -> None:
    databases = Databases(shared_postgres_url())
    url = databases.lend("content")
    _do(url, FILL)
    databases.take_back(url)
    assert databases.lend("content") == url
    assert _value(url, "SELECT count(*) FROM outbox") == 0
    assert _value(url, "SELECT count(*) FROM alembic_version") == 1
    databases.drop_all()


@pytest.mark.parametrize("change", ["ALTER TABLE items RENAME TO things", f"{FILL}; ANALYZE", "CREATE SCHEMA other"])
def test_a_database_that_cannot_be_made_as_new_is_not_lent_again(change: str) -> None:
    databases = Databases(shared_postgres_url())
    url = databases.lend("content")
    _do(url, change)
    databases.take_back(url)
    assert databases.lend("content") != url
    databases.drop_all()


def test_a_database_that_is_still_in_use_is_not_lent_again() -> None:
    databases = Databases(shared_postgres_url())
    url = databases.lend()
    with psycopg.connect(plain(url)) as still_connected:
        databases.take_back(url)
        assert databases.lend() != url
        still_connected.close()
    databases.drop_all()


def test_a_killed_database_comes_back_with_what_it_committed(private_postgres: PrivatePostgres) -> None:
    url = private_postgres.create_database()
    with psycopg.connect(plain(url)) as connection:
        connection.execute("CREATE TABLE item AS SELECT 'kept' AS title")
    private_postgres.kill()
    with pytest.raises(psycopg.OperationalError):
        _value(url, "SELECT 1")
    private_postgres.start()
    assert _value(url, "SELECT title FROM item") == "kept"
    private_postgres.pause()
    with pytest.raises(psycopg.OperationalError):
        _value(url, "SELECT 1")
    private_postgres.resume()
    assert _value(url, "SELECT title FROM item") == "kept"


# --- finding and ending them


def test_when_no_server_can_be_had_every_asker_is_told_the_same() -> None:
    def obtain() -> str:
        asked.append(1)
        raise ServerUnavailable("set THIS")

    asked: list[int] = []
    name = f"nothing-{claim_port()}"
    for _ in range(2):
        with pytest.raises(ServerUnavailable, match="set THIS"):
            shared(name, obtain)
    assert len(asked) == 1


def test_a_docker_command_without_an_engine_is_no_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "docker"
    fake.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    finding.docker_answers.cache_clear()
    try:
        assert finding.docker_answers() is False
    finally:
        finding.docker_answers.cache_clear()


async def test_no_server_outlives_a_killed_run(tmp_path: Path) -> None:
    script = tmp_path / "owner.py"
    script.write_text(
        "import sys, time\n"
        "from tests.servers.postgres import PrivatePostgres\n"
        "from tests.servers.run import run_directory\n"
        "server = PrivatePostgres(durable=False)\n"
        "server.start()\n"
        "print(server.port, run_directory(), flush=True)\n"
        "time.sleep(300)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "BUDKAVLE_TEST_RUN_DIR"}
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, script], env={**environment, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        port, directory = (await asyncio.to_thread(owner.stdout.readline)).split()
        assert _value(f"postgresql://budkavle@127.0.0.1:{port}/postgres", "SELECT 1") == 1
        owner.send_signal(signal.SIGKILL)
    await eventually(lambda: not Path(directory).exists())
    with pytest.raises(psycopg.OperationalError):
        _value(f"postgresql://budkavle@127.0.0.1:{port}/postgres", "SELECT 1")


# --- mail

MAIL = EmailMessage()
MAIL["From"] = "press@forbund.example"
MAIL["To"] = "desk@tidning.example"
MAIL["Message-ID"] = "<one@forbund.example>"
MAIL["Subject"] = "Ny samverkan i länet"
MAIL.set_content("Hej.\n.\n.. och en rad med punkt\n")


async def _send(port: int, **options: object) -> tuple[dict[str, object], str]:
    client = aiosmtplib.SMTP(hostname="127.0.0.1", port=port, **{"timeout": 5, **options})  # type: ignore[arg-type]
    async with client:
        return await client.send_message(MAIL)  # type: ignore[return-value]


def _assert_intact(content: bytes) -> None:
    sent = MAIL.as_bytes().replace(b"\n", b"\r\n")
    body = content.partition(b"\r\n\r\n")[2]
    assert body == sent.partition(b"\r\n\r\n")[2]


async def test_a_plain_mail_is_recorded_with_its_queue_id(smtp_server: SmtpServer) -> None:
    _, reply = await _send(smtp_server.port, start_tls=False)
    [mail] = smtp_server.accepted
    assert (mail.sender, mail.recipients) == ("press@forbund.example", ("desk@tidning.example",))
    assert mail.queue_id in reply
    assert mail.answered_at is not None and mail.received_at <= mail.answered_at
    assert (mail.tls, mail.user) == (False, None)
    _assert_intact(mail.content)


async def test_starttls_is_required_and_carries_a_login(certificate_authority: CertificateAuthority) -> None:
    with SmtpServer(security="starttls", login=("budkavle", "hemligt"), authority=certificate_authority) as server:
        with pytest.raises(aiosmtplib.SMTPException):
            await _send(server.port, start_tls=False)
        trust = certificate_authority.client_context()
        with pytest.raises(aiosmtplib.SMTPAuthenticationError):
            await _send(server.port, start_tls=True, tls_context=trust, username="budkavle", password="fel")
        await _send(server.port, start_tls=True, tls_context=trust, username="budkavle", password="hemligt")
        [mail] = server.mails
        assert (mail.tls, mail.user) == (True, "budkavle")
        assert server.url == f"smtp://budkavle:hemligt@127.0.0.1:{server.port}?starttls=required"


async def test_implicit_tls_and_login(certificate_authority: CertificateAuthority) -> None:
    with SmtpServer(security="tls", login=("budkavle", "hemligt"), authority=certificate_authority) as server:
        trust = certificate_authority.client_context()
        with pytest.raises(aiosmtplib.SMTPException):
            await _send(server.port, use_tls=True)  # whom it has no reason to trust
        with pytest.raises(aiosmtplib.SMTPException):
            await _send(server.port, use_tls=True, tls_context=trust)  # 530: authentication required
        await _send(server.port, use_tls=True, tls_context=trust, username="budkavle", password="hemligt")
        [mail] = server.mails
        assert (mail.tls, mail.user) == (True, "budkavle")


async def test_an_expired_certificate_is_expired(certificate_authority: CertificateAuthority) -> None:
    context = certificate_authority.server_context(expired=True)
    with SmtpServer(security="tls", tls_context=context) as server:
        with pytest.raises(aiosmtplib.SMTPException, match="expired"):
            await _send(server.port, use_tls=True, tls_context=certificate_authority.client_context())


@pytest.mark.parametrize("phase", ["connect", "MAIL", "RCPT", "DATA", "dot"])
async def test_every_phase_can_be_answered_dropped_or_left_silent(smtp_server: SmtpServer, phase: Phase) -> None:
    smtp_server.on(phase, "421 4.3.2 Try later", nth=1)
    smtp_server.on(phase, DROP, nth=2)
    smtp_server.on(phase, SILENCE, nth=3)
    for _ in range(2):
        with pytest.raises(aiosmtplib.SMTPException):
            await _send(smtp_server.port, start_tls=False)
    with pytest.raises(aiosmtplib.SMTPTimeoutError):
        await _send(smtp_server.port, start_tls=False, timeout=0.3)
    await _send(smtp_server.port, start_tls=False)
    assert len(smtp_server.accepted) == 1
    dots = smtp_server.mails
    if phase == "dot":
        assert [mail.reply and mail.reply[:3] for mail in dots] == ["421", None, None, "250"]
    else:
        assert len(dots) == 1
    await eventually(lambda: smtp_server.open_now == 0)


async def test_rules_by_address_and_by_function(smtp_server: SmtpServer) -> None:
    smtp_server.on("RCPT", "550 5.1.1 No such user", address="desk@tidning.example", times=1)
    with pytest.raises(aiosmtplib.SMTPRecipientsRefused):
        await _send(smtp_server.port, start_tls=False)
    smtp_server.on("dot", lambda occasion: "452 4.3.1 Full" if b"samverkan" in occasion.content else None)
    smtp_server.on("dot", lambda occasion: "451 4.7.1 Greylisted" if occasion.number == 1 else None)
    with pytest.raises(aiosmtplib.SMTPDataError) as refused:
        await _send(smtp_server.port, start_tls=False)
    assert refused.value.code in (451, 452)
    smtp_server.behave()
    await _send(smtp_server.port, start_tls=False)


async def test_the_sink_records_what_it_swallows(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    sink = SinkProcess(tmp_path, "--store", str(tmp_path / "store"))
    sink.start()
    try:
        await _send(sink.port, start_tls=False)
        [mail] = await eventually(lambda: sink.mails)
        assert mail.rcpt == ("desk@tidning.example",)
        assert mail.message_id == "<one@forbund.example>"
        assert mail.answered_at is not None and mail.answered_at >= mail.dot_at
        [stored] = (tmp_path / "store").iterdir()
        _assert_intact(stored.read_bytes())
    finally:
        sink.stop()


SENDER = """
import smtplib, sys
with smtplib.SMTP("127.0.0.1", int(sys.argv[1])) as client:
    for number in range(10):
        client.sendmail("a@b.example", [f"r{number}@b.example"], f"Message-ID: <{number}@b>\\r\\n\\r\\nhej\\r\\n")
"""


@pytest.mark.parametrize(("when", "answered"), [("before", False), ("after", True)])
def test_the_sink_kills_at_the_nth_dot(tmp_path: Path, when: str, answered: bool) -> None:
    pid_file = tmp_path / "pid"
    sink = SinkProcess(tmp_path, "--kill-pid-file", str(pid_file), "--kill-at", "3", "--kill-when", when)
    sink.start()
    try:
        # The shell writes the pid and becomes the sender: the file is there before the first byte.
        command = 'echo $$ > "$0"; exec "$@"'
        sender = [sys.executable, "-c", SENDER, str(sink.port)]
        done = subprocess.run(["sh", "-c", command, str(pid_file), *sender], check=False, timeout=30)
        assert done.returncode == -signal.SIGKILL
        deadline = time.monotonic() + 5
        while len(sink.mails) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert [mail.rcpt[0] for mail in sink.mails] == [f"r{number}@b.example" for number in range(3)]
        assert (sink.mails[-1].answered_at is not None) is answered
    finally:
        sink.stop()


# --- webhooks


async def test_the_receiver_records_and_follows_its_script(http_receiver: HttpReceiver) -> None:
    http_receiver.script("/hook", 503, redirect(http_receiver.url("/elsewhere"), 307), 200)
    async with aiohttp.ClientSession() as client:
        seen = []
        for _ in range(4):
            async with client.post(
                http_receiver.url("/hook"), data=b'{"a": 1}', headers={"webhook-id": "x"}, allow_redirects=False
            ) as response:
                seen.append(response.status)
    assert seen == [503, 307, 200, 204]
    assert [request.status for request in http_receiver.requests_to("/hook")] == seen
    assert http_receiver.requests_to("/elsewhere") == []
    first = http_receiver.requests[0]
    assert (first.method, first.body, first.header("Webhook-Id")) == ("POST", b'{"a": 1}', "x")
    assert first.header_map["webhook-id"] == "x"


async def test_the_receiver_hangs_cuts_and_drips(http_receiver: HttpReceiver) -> None:
    http_receiver.always("/hang", HANG)
    http_receiver.always("/cut", CUT)
    http_receiver.always("/drip", drip(pause=0.01))
    impatient = aiohttp.ClientTimeout(total=0.5)
    async with aiohttp.ClientSession(timeout=impatient) as client:
        with pytest.raises(TimeoutError):
            await client.post(http_receiver.url("/hang"))
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.post(http_receiver.url("/cut"))
        async with client.post(http_receiver.url("/drip")) as dripping:
            assert dripping.status == 200
            assert await dripping.content.readexactly(5) == b"....."
    assert len(http_receiver.requests) == 3


async def test_the_receiver_speaks_tls(certificate_authority: CertificateAuthority) -> None:
    with HttpReceiver(tls_context=certificate_authority.server_context()) as receiver:
        async with aiohttp.ClientSession() as client:
            async with client.post(receiver.url("/x"), ssl=certificate_authority.client_context()) as response:
                assert response.status == 204


# --- browser


async def test_the_browser_shows_a_page(browser_page: Page, http_receiver: HttpReceiver) -> None:
    page = "<!doctype html><html lang=sv><title>Nyheter</title><h1>Nytt i länet</h1>".encode()
    http_receiver.always("/", Answer(200, {"Content-Type": "text/html; charset=utf-8"}, page))
    await browser_page.goto(http_receiver.url("/"))
    assert await browser_page.title() == "Nyheter"
    assert await browser_page.locator("h1").inner_text() == "Nytt i länet"
