"""The faults of mail servers (F36 to F43), each by its number: a real worker, ledger and relay on both databases.

Nothing lost, nobody unexpected, repeats only where no sender could know better, counted from what the servers saw.
Waits are the product's own; the clock is moved. `make test` takes each case on one of the databases, `make soak` on both.
"""

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from tests.eventually import eventually
from tests.integration.distributor.conftest import Measured
from tests.integration.distributor.mail_room import (
    CONNECTIONS,
    DATABASES,
    LONGEST_JITTER,
    PIPELINE,
    MailRoom,
    MovedClock,
    addresses,
    capture_logs,
    check_balance,
    copies,
    opened,
    said,
    spread,
)
from tests.servers.postfix import SmtpSink
from tests.servers.run import claim_port
from tests.servers.smtp import Occasion, SmtpServer

from content.reach import audiences_reached
from distributor import delivery
from distributor.app import build
from distributor.breaker import EQUALS
from distributor.retry_policy import SCHEDULES, SILENT_AFTER_DOT
from distributor.settings import DistributorSettings
from shared.contracts.delivery import Channel
from shared.contracts.mail import Lane
from shared.contracts.news import ItemSnapshot

SCHEDULE = SCHEDULES[Channel.MAIL]
MINUTE = timedelta(minutes=1)
RELAY_NAME = "relay.forbundet.example"


on_sqlite_first = pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.soak)], indirect=True
)
on_sqlite, on_postgresql = (pytest.mark.parametrize("database_url", [one], indirect=True) for one in DATABASES)


@pytest.fixture
async def mail(database_url: str) -> AsyncIterator[MailRoom]:
    async with opened(database_url) as room:
        yield room


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[SmtpSink]:
    """Not started: what it shall do wrong is the test's to say."""
    made = SmtpSink(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause of a channel that is refused lasts a tenth of a second."""
    monkeypatch.setattr(delivery, "REFUSED_FIRST_S", 0.1)
    monkeypatch.setattr(delivery, "REFUSED_LONGEST_S", 0.1)
    monkeypatch.setattr(delivery, "PAUSE_LONGEST_S", 0.1)
    monkeypatch.setattr(delivery, "PAUSE_FIRST_S", 0.1)


# F36: nobody there


@pytest.fixture
def no_names(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The name server fails (SERVFAIL) for the relay's name, until the fixture's value is called."""
    asked, mended = socket.getaddrinfo, []

    def failing(host: Any, *rest: Any, **more: Any) -> Any:
        if host == RELAY_NAME and not mended:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return asked("127.0.0.1" if host == RELAY_NAME else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", failing)
    return lambda: mended.append(True)


@pytest.mark.parametrize(
    ("database_url", "way", "scale", "people"),
    spread(("refused", 0.02, 100), ("servfail", 0.02, 100), rare=[("refused", 1.0, 10_000)]),
    indirect=["database_url"],
)
async def test_f36_a_relay_that_is_away_costs_nobody_a_try(
    mail: MailRoom,
    no_names: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    measured: Measured,
    way: str,
    scale: float,
    people: int,
) -> None:
    """Ten minutes (quick: two, at fifty times the speed), then the first mail within the longest pause, a minute."""
    assert delivery.PAUSE_LONGEST_S <= 60
    monkeypatch.setattr(delivery, "PAUSE_FIRST_S", delivery.PAUSE_FIRST_S * scale)
    monkeypatch.setattr(delivery, "PAUSE_LONGEST_S", delivery.PAUSE_LONGEST_S * scale)
    everybody, port = addresses(people), claim_port()
    server = SmtpServer(port=port, pipelining=True)
    url = f"smtp://{RELAY_NAME if way == 'servfail' else '127.0.0.1'}:{port}?starttls=never"
    with capture_logs() as logs:
        async with mail.sending(url, retry_scale=scale):
            await mail.publish(everybody)
            away_s = 600 if scale == 1 else 120
            began = time.monotonic()
            await eventually(lambda: time.monotonic() - began > away_s * scale, within=away_s * scale + 5)
            assert {row.attempts for row in await mail.room.rows()} == {0}
            no_names()
            with server:
                back = time.monotonic()
                await eventually(lambda: server.mails, within=60)
                first_s = (time.monotonic() - back) / scale
                await mail.until("sent", everybody, within=max(120, people / 20))
    measured(f"F36 {way}: seconds of its clock from the relay's return to the first mail", round(first_s, 1))
    assert first_s <= 60
    assert said(logs, "mail_relay_unreachable")[0]["log_level"] == "error"
    assert {row.attempts for row in await mail.room.rows()} == {1}
    assert await mail.told_bounces() == 0
    check_balance(copies(server), everybody)


# F37: "service not available"


@pytest.mark.parametrize(
    ("database_url", "at"), spread("CONNECT", "MAIL", "DATA", rare=["EHLO", "RCPT"]), indirect=["database_url"]
)
async def test_f37_421_is_waited_out(mail: MailRoom, sink: SmtpSink, quick_pauses: None, at: str) -> None:
    everybody = addresses(40)
    sink.start("-Q", at)
    async with mail.sending(sink.url):
        await mail.publish(everybody)
        await eventually(delivery.paused.labels(Channel.MAIL)._value.get, within=20)
        assert not {"bounced", "failed", "uncertain"} & set((await mail.states()).values())
        sink.start()
        await mail.until("sent", everybody, passing=MINUTE)
    rows = await mail.room.rows()
    in_vain = sum(row.attempts - 1 for row in rows)
    assert in_vain == 0 if at in ("CONNECT", "EHLO", "MAIL") else in_vain < EQUALS + CONNECTIONS * PIPELINE
    assert await mail.told_bounces() == 0
    check_balance(copies(sink), everybody)


@pytest.mark.parametrize(("database_url", "every"), spread(7, 1), indirect=["database_url"])
async def test_f37_421_after_some_mails_costs_a_connection_and_no_try(mail: MailRoom, every: int) -> None:
    everybody = addresses(60)
    carried: dict[int, int] = {}

    def enough(at: Occasion) -> str | None:
        carried[at.connection] = carried.get(at.connection, 0) + 1
        return "421 4.7.0 Enough for one session" if carried[at.connection] > every else None

    with SmtpServer(pipelining=True) as server:
        server.on("MAIL", enough)
        async with mail.sending(server.url):
            await mail.publish(everybody)
            await mail.until("sent", everybody)
    assert {row.attempts for row in await mail.room.rows()} == {1}
    check_balance(copies(server), everybody)


# F38: greylisting


class Greylist:
    """Defers whom it has not known for so long, as `postgrey` does; and nobody of another domain."""

    def __init__(self, clock: MovedClock, window: timedelta, reply: str) -> None:
        self._clock = clock
        self._window = window
        self._reply = reply
        self._known: dict[str, Any] = {}
        self.asked: list[str] = []

    def __call__(self, at: Occasion) -> str | None:
        address = at.address or ""
        if not address.endswith("@gra.example"):
            return None
        self.asked.append(address)
        now = self._clock.now()
        return self._reply if now - self._known.setdefault(address, now) < self._window else None


@pytest.mark.parametrize(
    ("database_url", "reply", "window", "tries"),
    spread(
        ("450 4.2.0 Greylisted, see http://postgrey.schweikert.ch/help", 5 * MINUTE, 2),
        ("451 4.7.1 Greylisting in action", 20 * MINUTE, 4),
        rare=[("451 4.3.2 Please come back later", MINUTE, 2), ("450 4.7.1 Come back in five minutes", 5 * MINUTE, 2)],
    ),
    indirect=["database_url"],
)
async def test_f38_greylisted_mail_arrives_with_the_first_try_after_the_window(
    mail: MailRoom, window: timedelta, reply: str, tries: int
) -> None:
    strangers, others = addresses(3, "gra.example"), addresses(20)
    with SmtpServer(pipelining=True) as server:
        greylist = Greylist(mail.clock, window, reply)
        server.on("RCPT", greylist)
        async with mail.sending(server.url):
            await mail.publish([*strangers, *others])
            await mail.until("sent", others)
            for number in range(1, tries):
                await mail.until("deferred", strangers)
                assert len(greylist.asked) == number * len(strangers)
                due = max(row.next_attempt_at for row in await mail.room.rows(state="deferred"))
                await mail.go_on(due - mail.clock.now())
                asked = (number + 1) * len(strangers)
                await eventually(lambda asked=asked: len(greylist.asked) == asked)
            await mail.until("sent", strangers)
    assert len(greylist.asked) == tries * len(strangers)
    assert await mail.told_bounces() == 0
    check_balance(copies(server), [*strangers, *others])


# F39: put off for three days


@on_sqlite_first
async def test_f39_a_mail_put_off_each_time_is_tried_by_the_schedule_and_ends_as_a_temporary_failure(
    mail: MailRoom, measured: Measured
) -> None:
    put_off = {
        "data@full.example": ("DATA", "451 4.3.0 Local error"),
        "dot@full.example": ("dot", "451 4.3.2 Try later"),
        "box@full.example": ("RCPT", "452 4.2.2 Mailbox full"),
        "disk@full.example": ("dot", "452 4.3.1 Insufficient system storage"),
    }
    others = addresses(10)
    with SmtpServer(pipelining=True) as server:
        for address, (phase, reply) in put_off.items():
            server.on(phase, reply, address=address)
        async with mail.sending(server.url):
            item = await mail.publish([*put_off, *others])
            await mail.until("sent", others)
            for tries, wait in enumerate(SCHEDULE, start=1):
                await mail.until("deferred", put_off)
                waiting = await mail.room.rows(state="deferred")
                assert {row.attempts for row in waiting} == {tries}
                waits = [row.next_attempt_at - row.changed_at for row in waiting]
                assert all(wait <= each <= wait * LONGEST_JITTER for each in waits)
                assert {row["status"] for row in await shown(mail, item, state="deferred")} == {"sending"}
                await mail.go_on(max(row.next_attempt_at for row in waiting) - mail.clock.now())
                await mail.until_tried(tries + 1, put_off)
            await mail.until("failed", put_off)
    measured("F39: hours from the first try to the last", round(mail.clock.ahead / timedelta(hours=1), 1))
    assert mail.clock.ahead >= timedelta(hours=72)
    given_up = await shown(mail, item, state="failed")
    assert [(row["status"], row["ended_reason"], row["attempts"]) for row in given_up] == [
        ("temporary-failure", "retries_exhausted", len(SCHEDULE) + 1)
    ] * len(put_off)
    ((reach,),) = [audiences_reached(told.deliveries, []) for told in await mail.progress(item)]
    assert (reach.sent, reach.failed, reach.given_up, reach.planned) == (10, 4, 4, 14)
    assert await mail.told_bounces() == 0
    assert {mail.recipients[0] for mail in server.accepted} == set(others)


async def shown(mail: MailRoom, item: ItemSnapshot, **filters: str) -> list[Any]:
    """What the ledger's API says of an item."""
    service = build(mail.room.settings.model_copy(update={"admin_key": SecretStr("a" * 40)}))
    transport, headers = httpx2.ASGITransport(app=service.app), {"Authorization": "Bearer " + "a" * 40}
    async with httpx2.AsyncClient(transport=transport, base_url="http://x", headers=headers) as api:
        answer = await api.get("/api/distributor/v1/deliveries", params={"item": str(item.item_id), **filters})
    await service.database.dispose()
    assert answer.status_code == 200
    return list(answer.json()["data"])


# F40: a recipient is refused for good


@on_sqlite
async def test_f40_a_refused_recipient_gets_one_try_and_is_told_of_once(mail: MailRoom, sink: SmtpSink) -> None:
    gone = addresses(30, "borta.example")
    sink.start("-f", "RCPT", "-B", "550 5.1.1 User unknown")
    async with mail.sending(sink.url):
        await mail.publish(gone)
        await mail.until("bounced", gone)
        await mail.go_on(timedelta(days=4))
        sink.start()
        others = addresses(5)
        await mail.publish(others)
        await mail.until("sent", others)
    assert {row.attempts for row in await mail.room.rows()} == {1}
    assert await mail.told_bounces() == len(gone)
    check_balance(copies(sink), others)


@on_postgresql
async def test_f40_one_recipient_s_refusal_is_no_other_s(mail: MailRoom) -> None:
    gone, others = addresses(7, "borta.example"), addresses(40)
    with SmtpServer(pipelining=True) as server:
        for address in gone:
            server.on("RCPT", "550 5.1.1 No such user", address=address)
        async with mail.sending(server.url):
            await mail.publish([address for pair in itertools.zip_longest(others, gone) for address in pair if address])
            await mail.until("sent", others)
            await mail.until("bounced", gone)
    assert await mail.told_bounces() == len(gone)
    check_balance(copies(server), others)


# F41: everybody is refused


@pytest.mark.parametrize(
    ("database_url", "switches", "code"),
    spread(
        (("-f", "RCPT", "-B", "554 5.7.1 Service unavailable; Client host blocked using zen.spamhaus.org"), 554),
        (("-f", ".", "-B", "554 Transaction failed"), 554),
        (("-q", "DATA"), None),
        rare=[
            (("-f", "RCPT", "-B", "550 5.7.26 Unauthenticated sender"), 550),
            (("-f", "RCPT", "-B", "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"), 553),
            (("-f", "RCPT", "-B", "550 5.2.0 Message rejected due to DMARC"), 550),
            (("-f", "MAIL", "-B", "550 5.7.1 Sender rejected"), 550),
            (("-f", "CONNECT", "-B", "554 5.7.1 Blocked"), 554),
            (("-f", "DATA"), 500),
            (("-r", "."), 450),
            (("-q", "RCPT"), None),
        ],
    ),
    indirect=["database_url"],
)
async def test_f41_a_refusal_of_everybody_pauses_the_channel_and_suppresses_nobody(
    mail: MailRoom,
    sink: SmtpSink,
    quick_pauses: None,
    measured: Measured,
    switches: tuple[str, ...],
    code: int | None,
) -> None:
    everybody = addresses(60)
    sink.start(*switches)
    began = time.monotonic()
    with capture_logs() as logs:
        async with mail.sending(sink.url):
            await mail.publish(everybody)
            await eventually(lambda: said(logs, "channel_refused"), within=30)
            alarm_s = time.monotonic() - began
            assert delivery.paused.labels(Channel.MAIL)._value.get() == 1
            assert not {"bounced", "failed", "uncertain", "sent"} & set((await mail.states()).values())
            sink.stop()
            sink.forget()  # texts whose dot was refused
            sink.start()
            await mail.until("sent", everybody, passing=MINUTE)
    alarm = said(logs, "channel_refused")[0]
    assert (alarm["log_level"], alarm["code"]) == ("error", code)
    measured(f"F41 {code}: seconds to the alarm", round(alarm_s, 2))
    assert alarm_s <= 60
    assert sum(row.attempts - 1 for row in await mail.room.rows()) < EQUALS + CONNECTIONS * PIPELINE
    assert await mail.told_bounces() == 0
    assert said(logs, "channel_resumed")
    check_balance(copies(sink), everybody)


@on_sqlite
async def test_f41_a_wrong_password_pauses_the_channel(mail: MailRoom, quick_pauses: None) -> None:
    everybody = addresses(30)
    with SmtpServer(login=("budkavle", "ny"), pipelining=True) as server, capture_logs() as logs:
        async with mail.sending(server.url.replace(":ny@", ":gammal@")):
            await mail.publish(everybody)
            await eventually(lambda: said(logs, "channel_refused"), within=30)
            assert {row.attempts for row in await mail.room.rows()} == {0}
            server.login = ("budkavle", "gammal")
            await mail.until("sent", everybody, passing=MINUTE)
    assert said(logs, "channel_refused")[0]["code"] == 535
    assert await mail.told_bounces() == 0
    check_balance(copies(server), everybody)


# F42: hung up before the final dot


@contextlib.asynccontextmanager
async def reset_amid_the_text(port: int) -> AsyncIterator[list[int]]:
    """Answers 354, reads a little of the text, and resets the connection. Gives a list that grows by one each time."""
    resets: list[int] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 reset.example\r\n")
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                writer.write(b"354 go on\r\n" if line.startswith(b"DATA") else b"250 Ok\r\n")
                if line.startswith(b"DATA"):
                    await reader.readexactly(10)
                    linger = b"\x01\0\0\0\0\0\0\0"
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    resets.append(1)
                    break
        writer.transport.abort()

    server = await asyncio.start_server(talk, "127.0.0.1", port)
    try:
        yield resets
    finally:
        server.close()


@pytest.mark.parametrize(
    ("database_url", "switches"),
    spread((("-q", "DATA"),), (("-A", "0"),), rare=[(("-q", "RCPT"),), (("-q", "MAIL"),)]),
    indirect=["database_url"],
)
async def test_f42_a_mail_hung_up_on_before_its_dot_goes_out_once(
    mail: MailRoom, sink: SmtpSink, quick_pauses: None, switches: tuple[str, ...]
) -> None:
    everybody = addresses(30)
    sink.start(*switches)
    async with mail.sending(sink.url):
        await mail.publish(everybody)
        await eventually(delivery.paused.labels(Channel.MAIL)._value.get, within=20)
        # -A hangs up on a text that it leaves unread: where the reset overtakes its 550, the dot has left unanswered.
        doubtful = {"uncertain"} if "-A" in switches else set()
        assert set((await mail.states()).values()) <= {"planned", "leased", "deferred", *doubtful}
        sink.forget()  # -A leaves pieces of texts that it never read to their end
        sink.start()
        await mail.until("sent", everybody, passing=MINUTE)
    check_balance(copies(sink), everybody)


@on_postgresql
async def test_f42_a_connection_reset_amid_the_text_loses_nothing(
    mail: MailRoom, free_port: int, quick_pauses: None
) -> None:
    """A short text has left with its dot, so it is in doubt; the server that never saw the dot gets it once."""
    everybody = addresses(30)
    async with mail.sending(f"smtp://127.0.0.1:{free_port}"):
        async with reset_amid_the_text(free_port):
            await mail.publish(everybody)
            await eventually(delivery.paused.labels(Channel.MAIL)._value.get, within=20)
            states = set((await mail.states()).values())
        assert states <= {"planned", "leased", "deferred", "uncertain"}
        with SmtpServer(port=free_port) as server:
            await mail.until("sent", everybody, passing=MINUTE)
    check_balance(copies(server), everybody)


# F43: hung up, or silent, between the final dot and its answer


@pytest.mark.parametrize(
    ("database_url", "switches", "short"),
    spread((("-q", "."), {}), (("-p", "-W", ".:3"), {"smtp_dot_timeout_s": 1})),
    indirect=["database_url"],
)
async def test_f43_a_doubtful_mail_is_repeated_once_ten_minutes_later_the_same_to_the_byte(
    mail: MailRoom, sink: SmtpSink, switches: tuple[str, ...], short: dict[str, Any]
) -> None:
    everybody = addresses(6)
    sink.start(*switches)
    async with mail.sending(sink.url, **short):
        await mail.publish(everybody)

        async def tried() -> dict[str, str] | None:
            states = await mail.states()
            return states if set(states.values()) <= {"uncertain", "deferred"} else None

        doubtful = [address for address, state in (await eventually(tried, within=30)).items() if state == "uncertain"]
        assert {mail.to for mail in copies(sink)} == set(doubtful), "what never began is not in doubt"
        sink.start()
        await mail.go_on(SILENT_AFTER_DOT - MINUTE)
        await mail.until("sent", set(everybody) - set(doubtful))
        await mail.until("uncertain", doubtful)
        await mail.go_on(SILENT_AFTER_DOT * LONGEST_JITTER)
        await mail.until("sent", doubtful)
    assert check_balance(copies(sink), everybody, each_at_most=2) == len(doubtful) > 0
    assert sum(row.repeats for row in await mail.room.rows()) == len(doubtful)


@on_postgresql
async def test_f43_a_server_that_hangs_up_on_every_dot_gets_ten_mails_and_then_one_a_pause(
    mail: MailRoom, sink: SmtpSink, quick_pauses: None, measured: Measured
) -> None:
    everybody = addresses(60)
    sink.start("-q", ".")
    with capture_logs() as logs:
        async with mail.sending(sink.url):
            await mail.publish(everybody)
            await eventually(lambda: said(logs, "channel_refused"), within=20)
            sink.start()
            await mail.until("sent", everybody, passing=MINUTE)
    repeats = check_balance(copies(sink), everybody, each_at_most=2)
    measured("F43: of 60 mails, in doubt and repeated", repeats)
    assert EQUALS <= repeats < EQUALS + CONNECTIONS * PIPELINE + len(said(logs, "channel_refused"))


@pytest.mark.parametrize(
    ("database_url", "policy", "digest_repeated"),
    spread(("hold:news", True), ("hold", False)),
    indirect=["database_url"],
)
async def test_f43_doubtful_mail_is_held_where_the_operator_says_so(
    mail: MailRoom, sink: SmtpSink, policy: str, digest_repeated: bool
) -> None:
    news, digest = addresses(3, "nyhet.example"), addresses(3, "brev.example")
    sink.start("-q", ".")
    async with mail.sending(sink.url, uncertain=policy):
        item = await mail.publish(news)
        await mail.publish(digest, lane=Lane.DIGEST)
        await mail.until("uncertain", [*news, *digest])
        assert {row["state"] for row in await shown(mail, item)} == {"uncertain"}
        sink.start()
        await mail.go_on(timedelta(days=4))
        others = addresses(3, "region.example")
        await mail.publish(others)
        await mail.until("sent", [*others, *(digest if digest_repeated else [])])
    held = await mail.room.rows(state="uncertain")
    assert {row.ended_reason for row in held} == {"held"}
    assert {row.address for row in held} == set(news if digest_repeated else [*news, *digest])
    repeats = check_balance(copies(sink), [*news, *digest, *others], each_at_most=2)
    assert repeats == (len(digest) if digest_repeated else 0)


def test_f43_a_server_has_ten_minutes_to_answer_the_final_dot() -> None:
    """RFC 5321, section 4.5.3.2.6."""
    assert DistributorSettings.model_fields["smtp_dot_timeout_s"].default >= 600
