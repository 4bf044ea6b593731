"""What comes back, over each border, and what the ledger and the others hear of it; on both databases."""

import asyncio
import json
import os
import smtplib
import socket
import sys
from base64 import encodebytes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from quopri import encodestring
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text
from tests.bent_mail import bent
from tests.eventually import eventually
from tests.integration.distributor.conftest import CLOCK, batch, people, snapshot
from tests.servers.post import Post

from distributor.app import build
from distributor.bounces.applying import NotYet, Result
from distributor.bounces.intake import Intake
from distributor.bounces.listener import BounceListener
from distributor.bounces.mailbox import MailboxWorker
from distributor.channels import Outcome
from distributor.ledger import bounce_reports
from distributor.progress import ProgressWorker
from distributor.settings import DistributorSettings
from shared.clock import SystemClock
from shared.contracts.delivery import DeliveryState, fingerprint
from shared.contracts.envelope import Envelope
from shared.contracts.mail import RecipientErased
from shared.messaging.outbox import outbox

EXAMPLES = Path(__file__).parents[2] / "unit/distributor/bounce_examples"
BOUNCE_ADDRESS = "studs@forbundet.example"
HARD, SOFT, FULL = "hard-dsn-sendmail-user-unknown", "soft-dsn-temporary-local-problem", "full-dsn-postfix-quota"
POLICY, LATE, AWAY = "policy-dsn-spamhaus", "delayed-dsn-delayed", "out_of_office-reply-swedish"


class Desk:
    """Somebody's delivery that was sent, and the way back to it."""

    def __init__(self, room: Any, settings: DistributorSettings) -> None:
        self.room = room
        self.settings = settings
        self.intake = Intake(settings, room.database, SystemClock())
        self.delivery: Any = None

    async def send(self, state: DeliveryState = DeliveryState.SENT) -> None:
        item = snapshot(uuid4())
        self.room.sender.answer = lambda dispatch: Outcome(state, 250, reply="2.0.0 Ok")
        await self.room.hear(batch(item, people(2)))
        await self.room.drain()
        self.delivery = (await self.room.rows(subject_id=item.item_id))[0]

    @property
    def way_back(self) -> str:
        return self.intake.paths.of(self.delivery.id)

    def mail(self, example: str, to: str | None = None) -> bytes:
        """An example, come back to this delivery."""
        raw = (EXAMPLES / f"{example}.eml").read_bytes()
        return raw.replace(BOUNCE_ADDRESS.encode(), (to or self.way_back).encode())

    async def state(self) -> str:
        return str((await self.room.rows(id=self.delivery.id))[0].state)

    async def reports(self) -> list[Any]:
        async with self.room.database.reading() as session:
            return list((await session.execute(select(bounce_reports))).all())

    async def events(self) -> list[tuple[str, dict[str, Any]]]:
        async with self.room.database.reading() as session:
            bodies = await session.scalars(select(outbox.c.body).order_by(outbox.c.created_at))
            envelopes = [Envelope.model_validate_json(body) for body in bodies]
        told = [(envelope.type, dict(envelope.data)) for envelope in envelopes]
        return [(name, data) for name, data in told if "bounced" in name or "complained" in name]


@pytest.fixture
async def desk(room: Any) -> Desk:
    settings = room.settings.model_copy(update={"bounce_address": BOUNCE_ADDRESS})
    one = Desk(room, settings)
    await one.send()
    return one


async def test_a_hard_bounce_is_written_down_and_told_once(desk: Desk) -> None:
    assert await desk.intake.take(desk.mail(HARD)) is Result.APPLIED
    assert await desk.intake.take(desk.mail(HARD)) is Result.REPEATED
    other = desk.mail("hard-exim-unrouteable")
    assert await desk.intake.take(other) is Result.APPLIED  # another report on the same delivery
    assert await desk.state() == "bounced"
    (row,) = await desk.room.rows(id=desk.delivery.id)
    assert (row.ended_reason, row.next_attempt_at) == ("bounced_later", None)
    ((name, data),) = await desk.events()
    assert name == "se.budkavle.delivery.bounced.v1"
    assert data["kind"] == "hard"
    assert data["status"] == "5.1.1"
    assert UUID(data["recipient_id"]) == desk.delivery.recipient_id
    assert data["address_fingerprint"] == fingerprint(desk.delivery.recipient_id, desk.delivery.address)
    first, second = sorted(await desk.reports(), key=lambda report: report.received_at)
    assert "User unknown" in first.diagnostic
    assert second.reason == "no such recipient"


@pytest.mark.parametrize("example", [SOFT, FULL])
async def test_a_soft_bounce_is_told_and_leaves_the_delivery(desk: Desk, example: str) -> None:
    await desk.intake.take(desk.mail(example))
    await desk.intake.take(desk.mail(example))
    ((_, data),) = await desk.events()
    assert data["kind"] == "soft"
    assert await desk.state() == "sent"


@pytest.mark.parametrize("example", [POLICY, LATE, AWAY, "auto_reply-mdn-deleted", "unknown-reply-human-quotes-550"])
async def test_what_is_not_about_the_address_tells_nobody(desk: Desk, example: str) -> None:
    assert await desk.intake.take(desk.mail(example), [desk.way_back]) is Result.APPLIED
    assert await desk.events() == []
    assert await desk.state() == "sent"


async def test_a_complaint_is_told_once_for_a_delivery(desk: Desk) -> None:
    await desk.intake.take(desk.mail("complaint-arf-abuse"))
    await desk.intake.take(desk.mail("complaint-arf-opt-out"))
    ((name, data),) = await desk.events()
    assert name == "se.budkavle.delivery.complained.v1"
    assert UUID(data["delivery_id"]) == desk.delivery.id
    assert await desk.state() == "sent"


async def test_b39_a_forged_return_path_changes_nothing(desk: Desk) -> None:
    genuine = desk.way_back
    at = genuine.index("+") + 20
    forged = genuine[:at] + ("a" if genuine[at] != "a" else "b") + genuine[at + 1 :]
    elsewhere = Intake(
        desk.settings.model_copy(update={"secret_keys": DistributorSettings(
            database_url="sqlite:///x", broker_url="embedded:x", secret_keys="z" * 40
        ).secret_keys}), desk.room.database, SystemClock()
    ).paths.of(desk.delivery.id)  # fmt: skip
    for address in (forged, elsewhere, BOUNCE_ADDRESS, f"studs+{desk.delivery.id.hex}@forbundet.example"):
        assert await desk.intake.take(desk.mail(HARD, address), [address]) is Result.NOT_OURS
    assert await desk.intake.take(desk.mail(HARD, desk.intake.paths.of(uuid4()))) is Result.NOT_OURS
    assert await desk.state() == "sent"
    assert await desk.events() == []
    assert await desk.reports() == []


async def test_a_message_id_alone_is_no_proof(desk: Desk) -> None:
    raw = (EXAMPLES / f"{HARD}.eml").read_bytes().replace(b"nyhet", desk.delivery.id.hex.encode())
    assert await desk.intake.take(raw) is Result.NOT_OURS
    assert await desk.state() == "sent"


async def test_the_token_is_found_in_the_returned_mail_alone(desk: Desk) -> None:
    raw = (EXAMPLES / f"{HARD}.eml").read_bytes()
    raw = raw.replace(b"Return-Path: <studs@", f"Return-Path: <{desk.way_back}>\nX-Was: <studs@".encode())
    assert await desk.intake.take(raw) is Result.APPLIED
    assert await desk.state() == "bounced"


@pytest.mark.parametrize(("encoding", "encoded"), [("base64", encodebytes), ("quoted-printable", encodestring)])
async def test_the_token_is_found_in_what_a_gateway_has_encoded(desk: Desk, encoding: str, encoded: Any) -> None:
    quoted = f"Feedback-Type: abuse\nVersion: 1\nX-The-Return-Path-Of-The-Original: <{desk.way_back}>\n"
    raw = (
        f"From: klagomal@post.example\nTo: {BOUNCE_ADDRESS}\nSubject: FW: Nyheter\nMIME-Version: 1.0\n"
        "Content-Type: multipart/report; report-type=feedback-report; boundary=b\n\n--b\n"
        f"Content-Type: message/feedback-report\nContent-Transfer-Encoding: {encoding}\n\n"
    )
    assert await desk.intake.take(raw.encode() + encoded(quoted.encode()) + b"\n--b--\n") is Result.APPLIED
    assert [name for name, _ in await desk.events()] == ["se.budkavle.delivery.complained.v1"]


async def test_a_report_that_overtakes_the_outcome_waits(desk: Desk) -> None:
    await desk.room.force(state="leased")
    with pytest.raises(NotYet):
        await desk.intake.take(desk.mail(HARD))
    assert await desk.reports() == []


async def test_a_doubtful_delivery_that_came_back_did_go_out(desk: Desk) -> None:
    await desk.send(DeliveryState.UNCERTAIN)
    await desk.intake.take(desk.mail(HARD))
    assert await desk.state() == "bounced"


async def test_many_at_once_tell_once(desk: Desk) -> None:
    raw = desk.mail(HARD)
    results = await asyncio.gather(*(desk.intake.take(raw) for _ in range(8)))
    assert sorted(results).count(Result.APPLIED) == 1
    assert len(await desk.events()) == 1


async def test_an_erased_persons_report_keeps_no_words(desk: Desk) -> None:
    await desk.intake.take(desk.mail(HARD))
    await desk.room.hear(RecipientErased(recipient_id=desk.delivery.recipient_id, version=1))
    (report,) = await desk.reports()
    assert report.diagnostic == ""


async def test_reach_is_told_anew(desk: Desk) -> None:
    worker = ProgressWorker(desk.room.database, CLOCK)
    await worker.tell(desk.delivery.subject_id)
    await desk.intake.take(desk.mail(HARD))
    await worker.tell(desk.delivery.subject_id)
    async with desk.room.database.reading() as session:
        query = outbox.select().where(outbox.c.routing_key == "delivery.progress").order_by(outbox.c.created_at)
        told = [json.loads(row.body)["data"] for row in await session.execute(query)]
    assert [[count["state"] for count in one["deliveries"]] for one in told] == [["sent"], ["bounced", "sent"]]


async def test_no_report_waits_for_ever_however_it_is_bent(desk: Desk) -> None:
    chance = Random(47)
    examples = sorted(file.stem for file in EXAMPLES.glob("*.eml"))
    for _ in range(150):
        raw = bent(desk.mail(chance.choice(examples)), chance)
        assert await desk.intake.take(raw, [desk.way_back]) in (Result.APPLIED, Result.REPEATED)
    assert len(await desk.reports()) > 50


# --- the borders


@asynccontextmanager
async def listening(desk: Desk, port: int) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(BounceListener(f"127.0.0.1:{port}", desk.intake).run(stop))
    await eventually(lambda: _answers(port))
    yield
    stop.set()
    await asyncio.wait_for(task, 10)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_the_relay_hands_on_by_lmtp(desk: Desk, free_port: int) -> None:
    def deliver() -> list[int]:
        with smtplib.LMTP("127.0.0.1", free_port) as client:
            client.ehlo_or_helo_if_needed()
            client.mail("")
            codes = [client.rcpt(to)[0] for to in (desk.way_back.upper(), "nagon@forbundet.example", BOUNCE_ADDRESS)]
            client.putcmd("data")
            codes.append(client.getreply()[0])
            client.send(desk.mail(HARD).replace(b"\n", b"\r\n") + b"\r\n.\r\n")
            return [*codes, client.getreply()[0], client.getreply()[0]]  # one for each recipient that was taken

    async with listening(desk, free_port):
        assert await asyncio.to_thread(deliver) == [250, 550, 250, 354, 250, 250]
    assert await desk.state() == "bounced"


async def test_the_relay_hands_on_by_smtp(desk: Desk, free_port: int) -> None:
    def deliver() -> dict[str, Any]:
        with smtplib.SMTP("127.0.0.1", free_port) as client:
            return client.sendmail("", [desk.way_back], desk.mail(SOFT) + b"x" * 500_000)

    async with listening(desk, free_port):
        assert await asyncio.to_thread(deliver) == {}
    ((_, data),) = await desk.events()
    assert data["kind"] == "soft"


class Shelf:
    """Takes whatever comes, and keeps it."""

    paths: Any = type("Everybody", (), {"takes": lambda *_: True})()

    def __init__(self) -> None:
        self.mails: list[bytes] = []

    async def take(self, raw: bytes, _envelope: Any) -> Result:
        self.mails.append(raw)
        return Result.APPLIED


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"A: b\r\n\r\n.\r\n..\r\n.x\r\n", 19),
        (b"x" * 99_998 + b"\r\n.\r\ny\r\n", 100_006),
        (b"x" * 100_000 + b"\r\n.\r\ny\r\n", 100_006),
        (b"x" * 250_000 + b".\r\nnext\r\n", 100_000),
        ((b"x" * 76 + b"\r\n") * 300_000, 160_056),
    ],
    ids=["all of it", "a long line", "a longer line", "a line without end", "a mail without end"],
)
async def test_only_the_beginning_of_a_mail_is_kept(free_port: int, sent: bytes, kept: int) -> None:
    def deliver() -> None:
        with smtplib.SMTP("127.0.0.1", free_port) as client:
            client.sendmail("", [BOUNCE_ADDRESS], sent)
            client.sendmail("", [BOUNCE_ADDRESS], b"Subject: the next one\r\n")

    shelf, stop = Shelf(), asyncio.Event()
    task = asyncio.create_task(BounceListener(f"127.0.0.1:{free_port}", shelf).run(stop))  # type: ignore[arg-type]
    await eventually(lambda: _answers(free_port))
    await asyncio.to_thread(deliver)
    stop.set()
    await task
    first, second = shelf.mails
    assert len(first) == kept
    assert sent.startswith(first[:19])
    assert second == b"Subject: the next one\r\n"


async def test_what_cannot_be_written_is_offered_again(desk: Desk, free_port: int) -> None:
    async with desk.room.database.transaction() as session:
        await session.execute(text("ALTER TABLE bounce_reports RENAME TO elsewhere"))

    def deliver() -> int:
        with smtplib.SMTP("127.0.0.1", free_port) as client, pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail("", [desk.way_back], desk.mail(HARD))
        return refused.value.smtp_code

    async with listening(desk, free_port):
        assert await asyncio.to_thread(deliver) == 451
    assert await desk.state() == "sent"


@pytest.mark.parametrize("at", ["to", "recipient"])
async def test_a_mail_server_pipes_it_in(desk: Desk, at: str) -> None:
    environment = os.environ | {
        "BUDKAVLE_DATABASE_URL": desk.room.url,
        "BUDKAVLE_BROKER_URL": "embedded:x",
        "BUDKAVLE_SECRET_KEYS": "k" * 40,
        "BUDKAVLE_BOUNCE_ADDRESS": BOUNCE_ADDRESS,
    }
    raw, told = (
        (desk.mail(HARD), []) if at == "to" else (desk.mail(HARD, "x@y.example"), ["--recipient", desk.way_back])
    )
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "distributor.bounces", *told, env=environment, stdin=asyncio.subprocess.PIPE
        )
        await process.communicate(raw)
        assert process.returncode == 0
    assert await desk.state() == "bounced"
    assert len(await desk.events()) == 1


async def test_a_pipe_without_a_database_says_come_again(tmp_path: Path) -> None:
    environment = os.environ | {
        "BUDKAVLE_DATABASE_URL": f"sqlite:///{tmp_path}/empty.sqlite3",
        "BUDKAVLE_BROKER_URL": "embedded:x",
        "BUDKAVLE_SECRET_KEYS": "k" * 40,
        "BUDKAVLE_BOUNCE_ADDRESS": BOUNCE_ADDRESS,
    }
    settings = DistributorSettings(
        database_url="sqlite:///x", broker_url="embedded:x", secret_keys="k" * 40, bounce_address=BOUNCE_ADDRESS
    )
    assert settings.return_paths is not None
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "distributor.bounces", env=environment, stdin=asyncio.subprocess.PIPE
    )
    await process.communicate(f"To: {settings.return_paths.of(uuid4())}\n\nx".encode())
    assert process.returncode == 75


@pytest.mark.parametrize("protocol", ["imap", "pop"])
async def test_a_mailbox_is_emptied_of_what_was_committed(desk: Desk, free_port: int, protocol: str) -> None:
    letter = b"From: eva@kommun.example\nSubject: Hej\n\n" + b"lang rad " * 1000
    post = Post([mail.replace(b"\n", b"\r\n") for mail in (desk.mail(HARD), letter, desk.mail(AWAY))])
    server = await post.serve(protocol, free_port)
    scheme = {"imap": "imap", "pop": "pop3"}[protocol]
    worker = MailboxWorker(f"{scheme}://u%40x:p%2Fw@127.0.0.1:{free_port}/Studs", desk.intake, poll_every_s=0.05)
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    await eventually(lambda: list(post.mails) == [2])
    stop.set()
    await task
    server.close()
    assert await desk.state() == "bounced"
    assert any("u@x" in line for line in post.log[:3])
    assert len(await desk.reports()) == 2
    fetched = [line for line in post.log if line.upper().startswith(("UID FETCH 2", "RETR 2"))]
    assert len(fetched) == 1  # a person's mail stays, and is not read again and again


@pytest.mark.parametrize("protocol", ["imap", "pop"])
async def test_a_mail_that_cannot_be_fetched_holds_up_none_behind_it(desk: Desk, free_port: int, protocol: str) -> None:
    post = Post([mail.replace(b"\n", b"\r\n") for mail in (desk.mail(LATE), desk.mail(HARD))])
    post.broken = {1}
    server = await post.serve(protocol, free_port)
    scheme = {"imap": "imap", "pop": "pop3"}[protocol]
    worker = MailboxWorker(f"{scheme}://u:p@127.0.0.1:{free_port}", desk.intake)
    await worker.visit(asyncio.Event())
    assert list(post.mails) == [1]
    assert await desk.state() == "bounced"
    post.broken = set()
    await worker.visit(asyncio.Event())
    assert post.mails == {}
    server.close()


async def test_a_mail_without_end_is_cut(desk: Desk, free_port: int) -> None:
    post = Post([(desk.mail(HARD) + b"x" * 20_000_000).replace(b"\n", b"\r\n"), desk.mail(POLICY)])
    server = await post.serve("pop", free_port)
    await MailboxWorker(f"pop3://u:p@127.0.0.1:{free_port}", desk.intake).visit(asyncio.Event())
    assert post.mails == {}
    assert await desk.state() == "bounced"
    server.close()


async def test_a_mailbox_keeps_what_cannot_be_committed(desk: Desk, free_port: int) -> None:
    await desk.room.force(state="leased")
    post = Post([desk.mail(HARD).replace(b"\n", b"\r\n")])
    server = await post.serve("imap", free_port)
    worker = MailboxWorker(f"imap://u:p@127.0.0.1:{free_port}", desk.intake, poll_every_s=0.05)
    await worker.visit(asyncio.Event())
    assert list(post.mails) == [1]
    await desk.room.force(state="sent")
    await worker.visit(asyncio.Event())
    assert post.mails == {}
    server.close()


async def test_a_mailbox_that_is_away_is_asked_again(desk: Desk, free_port: int) -> None:
    worker = MailboxWorker(f"imap://u:p@127.0.0.1:{free_port}", desk.intake, poll_every_s=0.05)
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    post = Post([desk.mail(HARD).replace(b"\n", b"\r\n")])
    server = await post.serve("imap", free_port)
    await eventually(lambda: not post.mails)
    stop.set()
    await task
    server.close()
    assert await desk.state() == "bounced"


def test_the_service_has_the_ways_in_that_it_is_told(tmp_path: Path) -> None:
    told: dict[str, Any] = {
        "database_url": f"sqlite:///{tmp_path}/d.sqlite3",
        "broker_url": "embedded:x",
        "secret_keys": "k" * 40,
    }
    names = {worker.name for worker in build(DistributorSettings(**told)).workers}
    assert not any("bounce" in name for name in names)
    told |= {
        "bounce_address": BOUNCE_ADDRESS,
        "bounce_listen": "127.0.0.1:2424",
        "bounce_mailbox_url": "imaps://u:p@mail.example/INBOX",
    }
    names = {worker.name for worker in build(DistributorSettings(**told)).workers}
    assert {"bounce listener", "bounce mailbox"} <= names
