"""Mail through real servers: every way a dialogue can end, TLS and AUTH, kept connections."""

import asyncio
import contextlib
import email
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import mailparser
import pytest
from tests.eventually import eventually
from tests.servers.postfix import SmtpSink
from tests.servers.smtp import DROP, HANG, SmtpServer
from tests.unit.distributor.mail_examples import dispatch, item, of_item, settings

from distributor.channels import Fault
from distributor.mail import dialogue as mail_dialogue
from distributor.mail import smtp
from distributor.mail.composer import Composer
from distributor.mail.sending import MailSender
from shared.contracts.delivery import Channel, DeliveryState
from shared.contracts.mail import Form

SENT, DEFERRED, BOUNCED, FAILED, UNCERTAIN = (
    DeliveryState.SENT,
    DeliveryState.DEFERRED,
    DeliveryState.BOUNCED,
    DeliveryState.FAILED,
    DeliveryState.UNCERTAIN,
)
NONE, RECIPIENT, CONTENT, SYSTEM = Fault.NONE, Fault.RECIPIENT, Fault.CONTENT, Fault.SYSTEM
CONTENT_ITEM = of_item()


@contextlib.asynccontextmanager
async def sending(url: str, **changes: Any) -> AsyncIterator[MailSender]:
    sender = MailSender(settings(smtp_url=url, **{"smtp_timeout_s": 10, "smtp_dot_timeout_s": 10, **changes}))
    try:
        yield sender
    finally:
        await sender.close()


def to(address: str = "eva.ek@kommun.example", **changes: Any) -> Any:
    return dispatch(changes.pop("content", CONTENT_ITEM), address=address, recipient_id=uuid4(), **changes)


# What arrives


async def test_the_server_gets_the_bytes_that_were_composed(smtp_server: SmtpServer) -> None:
    sent = to(form=Form.PRESS)
    async with sending(smtp_server.url) as sender:
        ended = await sender.send(sent)

    (mail,) = smtp_server.mails
    assert mail.content == Composer(settings()).compose(sent).data
    assert (mail.sender, mail.recipients) == ("nyheter@kalmar.example", ("eva.ek@kommun.example",))
    assert (ended.state, ended.code, ended.enhanced, ended.phase, ended.fault) == (SENT, 250, "2.0.0", "dot", NONE)
    assert mail.queue_id in ended.reply
    assert timedelta(0) < ended.duration < timedelta(seconds=5)
    assert (sender.channel, sender.slots) == (Channel.MAIL, 64)


async def test_without_keys_a_mail_goes_out_unsigned_for_the_relay_to_sign(smtp_server: SmtpServer) -> None:
    async with sending(smtp_server.url) as sender:
        assert (await sender.send(to())).state == SENT

    (mail,) = smtp_server.mails
    assert "DKIM-Signature" not in email.message_from_bytes(mail.content)


DOTS = ".\n..\n.\r\n\r\n.\r\nMAIL FROM:<x@y.example>\r\n.ett\n\r.\r" + "x" * 2000 + "\x00\n."


@pytest.mark.parametrize("long", [False, True], ids=["one write", "several writes"])
async def test_b38_no_text_can_end_the_mail_or_begin_another(smtp_server: SmtpServer, long: bool) -> None:
    body = DOTS + ("\n.\n" + "å" * 60) * (700 if long else 1)
    sent = to(content=of_item(item(body_text=body, lead=DOTS, title=".\r\n.\r\nBcc: x@y.example")), form=Form.PRESS)
    async with sending(smtp_server.url) as sender:
        assert (await sender.send(sent)).state == SENT
        assert (await sender.send(to())).state == SENT

    first, second = smtp_server.mails
    assert first.content == Composer(settings()).compose(sent).data
    assert (len(first.content) > mail_dialogue.ONE_WRITE) is long
    assert first.recipients == second.recipients == ("eva.ek@kommun.example",)
    read = mailparser.parse_from_bytes(first.content)
    assert read.subject == ". . Bcc: x@y.example"
    assert read.bcc == []


async def test_f46_a_server_without_extensions_gets_mail_that_it_can_carry(tmp_path: Path) -> None:
    sink = SmtpSink(tmp_path)
    sink.start("-e", "-8", "-p")
    try:
        async with sending(sink.url) as sender:
            assert (await sender.send(to())).state == SENT
        (mail,) = sink.mails
    finally:
        sink.stop()
    assert mail.content.isascii()
    assert mailparser.parse_from_bytes(mail.content).subject.startswith("Fler unga")


async def test_an_address_beyond_ascii_goes_out_where_the_server_takes_it(smtp_server: SmtpServer) -> None:
    async with sending(smtp_server.url) as sender:
        assert (await sender.send(to("åsa@mönsterås.example"))).state == SENT
    assert smtp_server.mails[0].recipients == ("åsa@xn--mnsters-jxa1m.example",)


async def test_f46_an_address_beyond_ascii_is_failed_where_the_server_does_not() -> None:
    with SmtpServer(smtputf8=False) as server:
        async with sending(server.url) as sender:
            ended = await sender.send(to("åsa@kommun.example"))
            assert (await sender.send(to())).state == SENT
    assert (ended.state, ended.enhanced, ended.fault) == (FAILED, "5.6.7", SYSTEM)
    assert ended.reply.startswith("smtputf8_unsupported")
    assert len(server.mails) == 1


async def test_f46_what_the_server_cannot_take_is_not_begun() -> None:
    with SmtpServer(size_limit=2000) as server:
        async with sending(server.url) as sender:
            ended = await sender.send(to())
    assert (ended.state, ended.enhanced, ended.fault) == (FAILED, "5.3.4", CONTENT)
    assert ended.reply.startswith("message_too_big")


@pytest.mark.parametrize("address", ["", "eva@kommun.example\r\nRCPT TO:<x@y.example>"])
async def test_no_address_no_connection(smtp_server: SmtpServer, address: str) -> None:
    async with sending(smtp_server.url) as sender:
        ended = await sender.send(to(address))
    assert (ended.state, ended.fault, ended.phase) == (BOUNCED, RECIPIENT, "compose")
    assert smtp_server.connections == 0


# How it can end

ENDINGS = [
    ("connect", "421 4.3.2 Not now", DEFERRED, SYSTEM, False, "connect"),
    ("connect", "554 5.7.1 Blocked", DEFERRED, SYSTEM, False, "connect"),
    ("connect", DROP, DEFERRED, SYSTEM, False, "connect"),
    ("connect", HANG, DEFERRED, SYSTEM, False, "connect"),
    ("MAIL", "421 4.7.0 Too many", DEFERRED, SYSTEM, False, "mail"),
    ("MAIL", "550 5.7.1 Sender not allowed", DEFERRED, SYSTEM, False, "mail"),
    ("MAIL", "451 4.3.0 Later", DEFERRED, SYSTEM, False, "mail"),
    ("MAIL", DROP, DEFERRED, SYSTEM, False, "mail"),
    ("MAIL", HANG, DEFERRED, SYSTEM, False, "mail"),
    ("RCPT", "550 5.1.1 No such user", BOUNCED, RECIPIENT, True, "rcpt"),
    ("RCPT", "450 4.7.1 Greylisted", DEFERRED, NONE, True, "rcpt"),
    ("RCPT", "452 4.2.2 Mailbox full", DEFERRED, RECIPIENT, True, "rcpt"),
    ("RCPT", "550 5.7.1 Blocked", DEFERRED, SYSTEM, True, "rcpt"),
    ("RCPT", "421 4.3.2 Closing", DEFERRED, SYSTEM, True, "rcpt"),
    ("RCPT", DROP, DEFERRED, SYSTEM, True, "rcpt"),
    ("RCPT", HANG, DEFERRED, SYSTEM, True, "rcpt"),
    ("DATA", "451 4.3.0 Later", DEFERRED, SYSTEM, True, "data"),
    ("DATA", "554 5.6.0 No", FAILED, CONTENT, True, "data"),
    ("DATA", "250 what", DEFERRED, SYSTEM, True, "data"),
    ("DATA", "421 4.3.2 Closing", DEFERRED, SYSTEM, True, "data"),
    ("DATA", DROP, DEFERRED, SYSTEM, True, "data"),
    ("DATA", HANG, DEFERRED, SYSTEM, True, "data"),
    ("dot", "451 4.7.1 Later", DEFERRED, NONE, True, "dot"),
    ("dot", "452 4.3.1 Full", DEFERRED, SYSTEM, True, "dot"),
    ("dot", "550 5.1.1 Unknown after all", BOUNCED, RECIPIENT, True, "dot"),
    ("dot", "554 5.6.0 Bad content", FAILED, CONTENT, True, "dot"),
    ("dot", "550 5.7.26 Unauthenticated", DEFERRED, SYSTEM, True, "dot"),
    ("dot", "421 4.3.2 Closing", DEFERRED, SYSTEM, True, "dot"),
    ("dot", DROP, UNCERTAIN, NONE, True, "dot"),
    ("dot", HANG, UNCERTAIN, NONE, True, "dot"),
]


@pytest.mark.parametrize(("phase", "reply", "state", "fault", "counts", "told"), ENDINGS)
async def test_each_phase_can_end_a_dialogue(
    smtp_server: SmtpServer, phase: Any, reply: Any, state: Any, fault: Any, counts: bool, told: str
) -> None:
    smtp_server.on(phase, reply, times=1)
    short = {"smtp_timeout_s": 0.5, "smtp_dot_timeout_s": 1} if reply is HANG else {}
    async with sending(smtp_server.url, smtp_connections=1, **short) as sender:
        ended = await sender.send(to())
        assert (ended.state, ended.fault, ended.counts, ended.phase) == (state, fault, counts, told)
        if isinstance(reply, str) and not reply.startswith("250"):
            assert ended.code == int(reply[:3]) and ended.reply == reply[4:]
        again = await sender.send(to("nasta@kommun.example"))

    assert again.state == SENT, again
    assert len(smtp_server.to("nasta@kommun.example")) == 1
    dots = len(smtp_server.to("eva.ek@kommun.example"))
    assert dots == (1 if phase == "dot" else 0)


@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "one at a time"])
async def test_f43_the_final_dot_has_a_time_of_its_own(pipelining: bool) -> None:
    """Ten minutes, beside the one that any other answer may take: whoever is late for that alone is in no doubt."""

    async def late(at: Any) -> None:
        await asyncio.sleep(0.8)

    with SmtpServer(pipelining=pipelining) as server:
        server.on("dot", late)
        async with sending(server.url, smtp_timeout_s=0.3, smtp_dot_timeout_s=20) as sender:
            assert (await sender.send(to())).state == SENT
    assert len(server.mails) == 1


async def test_a_kept_connection_survives_a_refused_recipient(smtp_server: SmtpServer) -> None:
    smtp_server.on("RCPT", "550 5.1.1 No such user", address="borta@kommun.example")
    async with sending(smtp_server.url, smtp_connections=1) as sender:
        for address in ("a@kommun.example", "borta@kommun.example", "b@kommun.example"):
            await sender.send(to(address))
    assert [mail.recipients[0] for mail in smtp_server.mails] == ["a@kommun.example", "b@kommun.example"]
    assert smtp_server.connections == 1


@pytest.mark.parametrize("reply", ["421 4.7.0 Enough for one session", DROP])
async def test_a_kept_connection_that_is_over_costs_no_attempt(smtp_server: SmtpServer, reply: Any) -> None:
    smtp_server.on("MAIL", reply, nth=3)
    async with sending(smtp_server.url, smtp_connections=1) as sender:
        assert [(await sender.send(to())).state for _ in range(4)] == [SENT] * 4
    assert smtp_server.connections == 2
    assert len(smtp_server.mails) == 4


async def test_connections_are_reused_and_never_more_than_told(smtp_server: SmtpServer) -> None:
    async with sending(smtp_server.url, smtp_connections=3) as sender:
        ended = await asyncio.gather(*(sender.send(to()) for _ in range(60)))
        assert {outcome.state for outcome in ended} == {SENT}
        assert 1 <= smtp_server.connections <= 3
    await eventually(lambda: smtp_server.open_now == 0)


async def test_an_idle_connection_is_hung_up(smtp_server: SmtpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "IDLE_S", 0.05)
    async with sending(smtp_server.url) as sender:
        await sender.send(to())
        await eventually(lambda: smtp_server.open_now == 0)
        assert (await sender.send(to())).state == SENT


async def test_an_old_connection_is_replaced(smtp_server: SmtpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "MAX_AGE_S", 0.0)
    async with sending(smtp_server.url) as sender:
        for _ in range(3):
            assert (await sender.send(to())).state == SENT
    assert smtp_server.connections == 3


async def test_a_cancelled_dialogue_leaves_no_connection_behind(smtp_server: SmtpServer) -> None:
    smtp_server.on("dot", HANG, times=1)
    async with sending(smtp_server.url, smtp_connections=1) as sender:
        task = asyncio.create_task(sender.send(to()))
        await eventually(lambda: len(smtp_server.mails) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: smtp_server.open_now == 0)
        assert (await sender.send(to())).state == SENT


async def test_a_closed_port_counts_against_nobody(free_port: int) -> None:
    async with sending(f"smtp://127.0.0.1:{free_port}") as sender:
        ended = await sender.send(to())
    assert (ended.state, ended.fault, ended.counts, ended.phase, ended.code) == (
        DEFERRED,
        SYSTEM,
        False,
        "connect",
        None,
    )


async def test_a_name_that_does_not_resolve_counts_against_nobody() -> None:
    async with sending("smtp://relay.invalid:25?starttls=never") as sender:
        ended = await sender.send(to())
    assert (ended.state, ended.fault, ended.counts) == (DEFERRED, SYSTEM, False)


# A server that speaks as it likes

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@contextlib.asynccontextmanager
async def raw_server(talk: Talk) -> AsyncIterator[str]:
    talking: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await talk(reader, writer)
        writer.transport.abort()
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await writer.wait_closed()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talking.add(asyncio.create_task(answer(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    try:
        yield f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking)


def speaking(replies: dict[bytes, bytes], *, ehlo: bytes = b"250 raw.example\r\n") -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        usual = {b"EHLO": ehlo, b"DATA": b"354 go on\r\n", b"greeting": b"220 raw.example\r\n"} | replies
        writer.write(usual[b"greeting"])
        while line := await reader.readline():
            verb = line[:4].upper()
            writer.write(usual.get(verb, b"250 Ok\r\n"))
            if verb == b"DATA" and usual[b"DATA"].startswith(b"354"):
                await reader.readuntil(b"\r\n.\r\n")
                writer.write(usual.get(b"dot", b"250 2.0.0 queued as RAW1\r\n"))
            await writer.drain()

    return talk


@pytest.mark.parametrize(
    ("replies", "state", "phase", "code"),
    [
        ({}, SENT, "dot", 250),
        ({b"dot": b"250-2.0.0 first\r\n250 2.0.0 queued as RAW2\r\n"}, SENT, "dot", 250),
        ({b"dot": b"250 2.0.0 k\xf6ad\x1b[31m\r\n"}, SENT, "dot", 250),
        ({b"dot": b"hello there\r\n"}, UNCERTAIN, "dot", None),
        ({b"dot": b"999 what\r\n"}, UNCERTAIN, "dot", None),
        ({b"dot": b"-50 what\r\n"}, UNCERTAIN, "dot", None),
        ({b"dot": b"250-" + b"x" * 9000 + b"\r\n250 Ok\r\n"}, UNCERTAIN, "dot", None),
        ({b"dot": b"250-go on\r\n" * 6000}, UNCERTAIN, "dot", None),
        ({b"dot": b"x" * 70_000}, UNCERTAIN, "dot", None),
        ({b"RCPT": b"x" * 70_000}, DEFERRED, "rcpt", None),
        ({b"RCPT": b"550-5.1.1 no\r\n550-5.1.1 such\r\n550 5.1.1 user\r\n"}, BOUNCED, "rcpt", 550),
        ({b"MAIL": b"\r\n"}, DEFERRED, "mail", None),
        ({b"greeting": b"hej\r\n"}, DEFERRED, "connect", None),
        ({b"greeting": b"x" * 70_000}, DEFERRED, "connect", None),
        ({b"EHLO": b"502 no\r\n"}, SENT, "dot", 250),
        ({b"EHLO": b"502 no\r\n", b"HELO": b"550 5.7.1 nor this\r\n"}, DEFERRED, "connect", 550),
        ({b"EHLO": b"250-raw.example\r\n250-SIZE\r\n250 SIZE x\r\n"}, SENT, "dot", 250),
    ],
)
async def test_f46_strange_replies_are_bounded_and_never_trusted(
    replies: dict[bytes, bytes], state: DeliveryState, phase: str, code: int | None
) -> None:
    async with (
        raw_server(speaking(replies)) as url,
        sending(url, smtp_timeout_s=2, smtp_dot_timeout_s=2) as sender,
    ):
        ended = await sender.send(to())
        assert (ended.state, ended.phase, ended.code) == (state, phase, code)
        assert ended.reply.isprintable()
        assert len(ended.reply.encode()) <= 4096


async def test_a_long_mail_broken_off_before_its_dot_was_surely_not_delivered() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 raw.example\r\n")
        while line := await reader.readline():
            writer.write(b"354 go on\r\n" if line.startswith(b"DATA") else b"250 Ok\r\n")
            if line.startswith(b"DATA"):
                await reader.readexactly(1000)
                return

    huge = of_item(item(body_text="å" * 4_000_000))
    async with raw_server(talk) as url, sending(url) as sender:
        ended = await sender.send(to(content=huge, form=Form.PRESS))
    assert (ended.state, ended.phase, ended.counts) == (DEFERRED, "data", True)


async def test_a_long_mail_refused_before_its_dot_is_not_finished() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 raw.example\r\n")
        while line := await reader.readline():
            writer.write(b"354 go on\r\n" if line.startswith(b"DATA") else b"250 Ok\r\n")
            if line.startswith(b"DATA"):
                await reader.readexactly(1000)
                writer.write(b"552 5.3.4 too much\r\n")
                while await reader.read(65_536):
                    pass

    huge = of_item(item(body_text="å" * 4_000_000))
    async with raw_server(talk) as url, sending(url) as sender:
        ended = await sender.send(to(content=huge, form=Form.PRESS))
    assert (ended.state, ended.phase, ended.code, ended.fault) == (FAILED, "data", 552, CONTENT)


# TLS and AUTH


@pytest.fixture
def authority_file(certificate_authority: Any, tmp_path: Any) -> str:
    return str(certificate_authority.write(tmp_path / "authority.pem"))


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_tls_and_login(certificate_authority: Any, authority_file: str, security: Any) -> None:
    with SmtpServer(security=security, login=("budkavle", "p@ss/ö"), authority=certificate_authority) as server:
        url = server.url.replace("budkavle:p@ss/ö@127.0.0.1", "budkavle:p%40ss%2F%C3%B6@localhost")
        async with sending(url, smtp_ca_file=authority_file) as sender:
            assert [(await sender.send(to())).state for _ in range(3)] == [SENT] * 3
    assert [(mail.tls, mail.user) for mail in server.mails] == [(True, "budkavle")] * 3
    assert server.connections == 1


async def test_a_long_mail_over_tls(certificate_authority: Any, authority_file: str) -> None:
    huge = to(content=of_item(item(body_text="å" * 300_000)), form=Form.PRESS)
    with SmtpServer(security="starttls", authority=certificate_authority) as server:
        async with sending(server.url, smtp_ca_file=authority_file) as sender:
            assert (await sender.send(huge)).state == SENT
    assert server.mails[0].content == Composer(settings()).compose(huge).data


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize("flaw", ["expired", "unknown authority", "wrong name"])
async def test_f45_a_bad_certificate_gets_no_mail(
    certificate_authority: Any, authority_file: str, security: Any, flaw: str
) -> None:
    names = ("annan.example",) if flaw == "wrong name" else ()
    context: ssl.SSLContext = certificate_authority.server_context(*names, expired=flaw == "expired")
    trusted = "" if flaw == "unknown authority" else authority_file
    with SmtpServer(security=security, tls_context=context) as server:
        async with sending(server.url, smtp_ca_file=trusted) as sender:
            ended = await sender.send(to())
    assert (ended.state, ended.fault, ended.counts, ended.phase) == (DEFERRED, SYSTEM, False, "connect")
    assert "certificate" in ended.reply.lower()
    assert not server.mails


async def test_f45_starttls_stripped_on_the_way_gets_no_mail_and_no_password() -> None:
    heard: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 raw.example\r\n")
        while line := await reader.readline():
            heard.append(line[:4])
            writer.write(b"250-raw.example\r\n250 AUTH PLAIN LOGIN\r\n")

    async with raw_server(talk) as url:
        relay = url.replace("smtp://", "smtp://user:secret@") + "?starttls=required"
        async with sending(relay) as sender:
            ended = await sender.send(to())
    assert (ended.state, ended.fault, ended.counts) == (DEFERRED, SYSTEM, False)
    assert "STARTTLS" in ended.reply
    assert set(heard) <= {b"EHLO", b"QUIT"}


@pytest.mark.parametrize("answer", [b"454 4.7.0 not now\r\n", b"220 go\r\n250 injected\r\n", b""])
async def test_f45_starttls_refused_or_garbled_gets_no_mail(answer: bytes) -> None:
    heard: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 raw.example\r\n")
        while line := await reader.readline():
            heard.append(line[:4])
            if line.startswith(b"STARTTLS"):
                writer.write(answer)
                return
            writer.write(b"250-raw.example\r\n250 STARTTLS\r\n")

    async with raw_server(talk) as url, sending(url + "?starttls=required", smtp_timeout_s=3) as sender:
        ended = await sender.send(to())
    assert (ended.state, ended.fault, ended.counts, ended.phase) == (DEFERRED, SYSTEM, False, "connect")
    assert b"MAIL" not in heard


async def test_a_wrong_password_counts_against_nobody(certificate_authority: Any, authority_file: str) -> None:
    with SmtpServer(security="starttls", login=("budkavle", "rätt"), authority=certificate_authority) as server:
        url = f"smtp://budkavle:fel@localhost:{server.port}?starttls=required"
        async with sending(url, smtp_ca_file=authority_file) as sender:
            ended = await sender.send(to())
    assert (ended.state, ended.code, ended.phase, ended.fault, ended.counts) == (DEFERRED, 535, "auth", SYSTEM, False)
    assert not server.mails


async def test_a_repeat_is_the_same_mail(smtp_server: SmtpServer) -> None:
    smtp_server.on("dot", DROP, times=1)
    doubtful = dispatch(CONTENT_ITEM, recipient_id=UUID(int=7))
    async with sending(smtp_server.url) as sender:
        assert (await sender.send(doubtful)).state == UNCERTAIN
    async with sending(smtp_server.url) as restarted:
        assert (await restarted.send(doubtful)).state == SENT
    first, second = smtp_server.mails
    assert first.content == second.content
