"""Pipelined mail through real connections: the same endings as one at a time, and what only a group can meet."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from tests.eventually import eventually
from tests.integration.distributor.test_mail_sending import ENDINGS, raw_server, sending, to
from tests.servers.smtp import DROP, HANG, SmtpServer

from distributor.mail import smtp
from shared.contracts.delivery import DeliveryState

SENT, DEFERRED, UNCERTAIN, BOUNCED = (
    DeliveryState.SENT,
    DeliveryState.DEFERRED,
    DeliveryState.UNCERTAIN,
    DeliveryState.BOUNCED,
)


@pytest.mark.parametrize(("phase", "reply", "state", "fault", "counts", "told"), ENDINGS)
async def test_each_phase_ends_a_pipelined_dialogue_as_it_ends_any_other(
    phase: Any, reply: Any, state: Any, fault: Any, counts: bool, told: str
) -> None:
    short = {"smtp_timeout_s": 0.5, "smtp_dot_timeout_s": 1} if reply is HANG else {}
    with SmtpServer(pipelining=True) as server:
        server.on(phase, reply, times=1)
        async with sending(server.url, smtp_connections=1, **short) as sender:
            ended = await sender.send(to())
            assert (ended.state, ended.fault, ended.counts, ended.phase) == (state, fault, counts, told)
            if isinstance(reply, str) and not reply.startswith("250"):
                assert ended.code == int(reply[:3]) and ended.reply == reply[4:]
            again = await sender.send(to("nasta@kommun.example"))
    assert again.state == SENT, again
    assert len(server.to("nasta@kommun.example")) == 1
    assert len(server.to("eva.ek@kommun.example")) == (1 if phase == "dot" else 0)


@pytest.mark.parametrize("pipelining", [True, False])
async def test_many_mails_over_few_connections_each_once(pipelining: bool) -> None:
    with SmtpServer(pipelining=pipelining) as server:
        server.on("RCPT", lambda at: "550 5.1.1 No such user" if at.number % 7 == 0 else None)
        server.on("dot", lambda at: "451 4.3.0 Later" if at.number % 11 == 0 else None)
        async with sending(server.url, smtp_connections=3, smtp_pipeline=4) as sender:
            dispatches = [to(f"p{number}@kommun.example") for number in range(200)]
            outcomes = await asyncio.gather(*(sender.send(each) for each in dispatches))
    sent = {each.address for each, outcome in zip(dispatches, outcomes, strict=True) if outcome.state is SENT}
    assert {mail.recipients[0] for mail in server.accepted} == sent
    assert len(server.accepted) == len(sent) > 140
    assert {outcome.state for outcome in outcomes} == {SENT, BOUNCED, DEFERRED}
    assert server.most_open <= 3


@pytest.mark.parametrize("reply", ["421 4.7.0 Enough for one session", DROP])
@pytest.mark.parametrize("every", [1, 3])
async def test_a_server_that_closes_after_some_mails_costs_nobody_a_try(reply: Any, every: int) -> None:
    with SmtpServer(pipelining=True) as server:
        carried: dict[int, int] = {}

        def enough(at: Any) -> Any:
            carried[at.connection] = carried.get(at.connection, 0) + 1
            return reply if carried[at.connection] > every else None

        server.on("MAIL", enough)
        async with sending(server.url, smtp_connections=2) as sender:
            outcomes = await asyncio.gather(*(sender.send(to(f"p{n}@kommun.example")) for n in range(30)))
    assert {outcome.state for outcome in outcomes} == {SENT}
    assert len(server.mails) == 30


async def test_a_line_lost_at_one_mail_s_dot_leaves_the_one_behind_it_unharmed() -> None:
    with SmtpServer(pipelining=True) as server:
        server.on("dot", DROP, nth=3)
        async with sending(server.url, smtp_connections=1, smtp_pipeline=4) as sender:
            outcomes = await asyncio.gather(*(sender.send(to(f"p{n}@kommun.example")) for n in range(12)))
    assert [outcome.state for outcome in outcomes].count(UNCERTAIN) == 1
    assert [outcome.state for outcome in outcomes].count(SENT) == 11
    assert len(server.mails) == len({mail.recipients[0] for mail in server.mails}) == 12


async def test_a_server_that_cannot_keep_its_promise_is_asked_one_command_at_a_time() -> None:
    """It forgets what came behind a command in the same packet."""
    heard: list[list[bytes]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(mine := [])
        writer.write(b"220 raw.example\r\n")
        text = False
        while packet := await reader.read(65_536):
            mine.append(packet)
            if text:
                text = not packet.endswith(b"\r\n.\r\n")
                writer.write(b"" if text else b"250 2.0.0 queued\r\n")
            elif packet.startswith(b"EHLO"):
                writer.write(b"250-raw.example\r\n250 PIPELINING\r\n")
            elif text := packet.startswith(b"DATA"):
                writer.write(b"354 go on\r\n")
            else:
                writer.write(b"250 2.0.0 Ok\r\n")

    async with raw_server(talk) as url, sending(url, smtp_connections=1, smtp_timeout_s=0.3) as sender:
        first = await sender.send(to())
        assert (first.state, first.phase, first.code) == (DEFERRED, "rcpt", None)
        assert [(await sender.send(to())).state for _ in range(3)] == [SENT] * 3
    assert len(heard) == 2
    assert not any(packet.count(b"\r\n") > 1 and packet.startswith(b"MAIL") for packet in heard[1])


async def test_a_slow_start_asks_for_more_as_mails_are_taken() -> None:
    opened_at_first_dots: list[int] = []
    with SmtpServer(pipelining=True) as server:
        server.on("dot", lambda at: opened_at_first_dots.append(server.open_now))
        async with sending(server.url, smtp_connections=8) as sender:
            await asyncio.gather(*(sender.send(to()) for _ in range(120)))
            assert server.open_now == 8
    assert opened_at_first_dots[0] <= 2
    assert max(opened_at_first_dots) <= 8


async def test_greylisting_keeps_nobody_to_the_connections_of_a_start() -> None:
    open_at: list[int] = []

    def greylist(_: object) -> str:
        open_at.append(server.open_now)
        return "450 4.7.1 Greylisted"

    with SmtpServer(pipelining=True) as server:
        server.on("RCPT", greylist)
        async with sending(server.url, smtp_connections=8) as sender:
            await asyncio.gather(*(sender.send(to()) for _ in range(120)))
    assert open_at[0] <= 2
    assert open_at[-1] == 8


async def test_too_many_connections_is_believed() -> None:
    with SmtpServer(pipelining=True) as server:
        server.on("connect", lambda _: "421 4.7.0 too many connections" if server.open_now > 3 else None)
        async with sending(server.url, smtp_connections=16) as sender:
            outcomes = await asyncio.gather(*(sender.send(to()) for _ in range(200)))
    assert {outcome.state for outcome in outcomes} == {SENT}
    assert server.connections < 12, "not asked again and again"


async def test_so_many_a_minute_go_to_one_domain_and_the_rest_when_it_is_their_turn() -> None:
    with SmtpServer(pipelining=True) as server:
        async with sending(server.url, smtp_domain_rate_per_minute=60) as sender:
            ended = [await sender.send(to("p@trog.example", delivery_id=uuid4())) for _ in range(3)]
            other = await sender.send(to("ny@kommun.example"))
    assert [one.state for one in ended] == [SENT, DEFERRED, DEFERRED]
    assert (ended[1].counts, ended[1].phase) == (False, "wait")
    assert ended[1].retry_after is not None
    assert ended[2].retry_after is not None
    assert ended[1].retry_after < ended[2].retry_after
    assert other.state == SENT


async def test_a_greylisted_recipient_waits_five_minutes_and_nobody_else() -> None:
    with SmtpServer(pipelining=True) as server:
        server.on("RCPT", "450 4.7.1 Greylisted", address="ny@kommun.example", times=1)
        async with sending(server.url) as sender:
            ended = await sender.send(to("ny@kommun.example"))
            assert (await sender.send(to())).retry_after is None
            assert (await sender.send(to("ny@kommun.example"))).state == SENT
    assert ended.state == DEFERRED
    assert ended.retry_after is not None and ended.retry_after.total_seconds() == 300


async def test_an_idle_pipelined_connection_is_hung_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "IDLE_S", 0.05)
    with SmtpServer(pipelining=True) as server:
        async with sending(server.url) as sender:
            await sender.send(to())
            await eventually(lambda: server.open_now == 0)
            assert (await sender.send(to())).state == SENT


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_pipelined_over_tls_with_a_login(certificate_authority: Any, tmp_path: Any, security: Any) -> None:
    authority = str(certificate_authority.write(tmp_path / "authority.pem"))
    with SmtpServer(
        security=security, login=("budkavle", "hemlig"), authority=certificate_authority, pipelining=True
    ) as server:
        async with sending(server.url, smtp_ca_file=authority, smtp_connections=2) as sender:
            outcomes = await asyncio.gather(*(sender.send(to()) for _ in range(20)))
    assert {outcome.state for outcome in outcomes} == {SENT}
    assert {(mail.tls, mail.user) for mail in server.mails} == {(True, "budkavle")}
