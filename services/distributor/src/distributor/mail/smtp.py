"""The mail relay: a pool of kept connections, each leading its dialogues pipelined (`pipelining`) or one command at a
time (`unpipelined`), as the server can.

`transmit` sends one mail and says where its dialogue ended and with which words. It never raises for what the relay
does. Mails wait in one queue, first come, first served; a line that rests takes the next, and where the server
pipelines, a line that writes a mail's dot takes the next with it.

A connection is reused, most recently used first; it is closed after a refusal to stay (421), anything unintelligible,
`IDLE_S` of silence or `MAX_AGE_S`. A kept connection that turns out to be dead at MAIL, when nothing has been sent yet,
costs one fresh connection, not an attempt. There are never more than `connections` at once, and fewer at a start and
after a 421: see `slow_start`.
"""

import asyncio
import socket
import ssl
from collections import deque
from dataclasses import dataclass
from typing import cast

import aiosmtplib
import structlog

from distributor.mail.dialogue import ENOUGH, Announced, Composed, Ending, Line, Transaction, told
from distributor.mail.pipelining import PipelinedLine
from distributor.mail.relay_url import RelayUrl
from distributor.mail.replies import SERVICE_CLOSING, Phase, enhanced_status, greylisted, printable
from distributor.mail.slow_start import SlowStart
from distributor.mail.unpipelined import UnpipelinedLine

log = structlog.get_logger()

IDLE_S = 20.0
"""Well below a relay's own patience (Postfix: 300 s): we hang up first."""

MAX_AGE_S = 300.0
"""As Postfix's smtp_connection_reuse_time_limit: a relay behind a balancer gets its share again."""

LOG_EVERY_S = 60.0
"""A relay that is away is news once a minute, not once a mail."""


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """How to reach the relay; times in seconds. `ehlo_name` is looked up when empty."""

    url: RelayUrl
    connections: int
    timeout_s: float
    dot_timeout_s: float
    ca_file: str = ""
    ehlo_name: str = ""


class SmtpRelay:
    """All connections to the relay. Use it from one event loop; `close` it at the end."""

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings
        self._waiting: deque[Transaction] = deque()
        self._carrying: dict[Line, None] = {}
        self._resting: dict[Line, float] = {}  # since when, the most recent last
        self._dials: set[asyncio.Task[None]] = set()
        self._places = SlowStart(settings.connections)
        self._strikes = 0
        self._tls = ssl.create_default_context(cafile=settings.ca_file or None)
        self._ehlo_name = settings.ehlo_name
        self._sweeping: asyncio.TimerHandle | None = None
        self._closed = False
        self._away = False
        self._logged_at = float("-inf")

    async def transmit(self, mail: Composed) -> Ending:
        """Send one mail and say how it ended."""
        transaction = Transaction(mail)
        ending = await self._carried(transaction)
        if transaction.kept and _was_stale(ending):
            self._places.ease()
            ending = await self._carried(Transaction(mail, fresh=True))
        return ending

    async def close(self) -> None:
        """Hang up on all connections; those in use follow as their dialogue ends."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for line in list(self._resting):
            line.close()

    async def _carried(self, transaction: Transaction) -> Ending:
        if transaction.fresh:
            self._waiting.appendleft(transaction)
        else:
            self._waiting.append(transaction)
        self._match()
        try:
            ending = await transaction.ended
        except asyncio.CancelledError:
            self._give_up(transaction)
            raise
        if ending.sent:
            self._strikes = 0
            self._places.accepted()
            self._match()
        elif _is_greylisted(ending):
            self._places.accepted()
            self._match()
        elif ending.code == SERVICE_CLOSING and not (transaction.kept and _was_stale(ending)):
            self._places.back_away()
        return ending

    def _give_up(self, transaction: Transaction) -> None:
        """Nobody waits for this mail any more: it must not go out, or not be answered for by a line that goes on."""
        if transaction in self._waiting:
            self._waiting.remove(transaction)
        elif (line := transaction.line) is not None:
            line.abort()

    # Who carries what

    def _match(self) -> None:
        """Give what waits to lines that rest, or to new ones."""
        while self._waiting:
            fresh = self._waiting[0].fresh
            if self._resting and (fresh or self._stale()):
                next(reversed(self._resting)).close()
            elif self._resting:
                self._begin(next(reversed(self._resting)), self._waiting.popleft())
            elif self._open < self.connections_allowed:
                self._dial(self._waiting.popleft())
            else:
                return

    @property
    def _open(self) -> int:
        return len(self._carrying) + len(self._resting) + len(self._dials)

    @property
    def connections_allowed(self) -> int:
        """How many connections the relay is asked to bear at the moment."""
        if not self._open:
            self._places.begin()
        return self._places.allowed

    def _stale(self) -> bool:
        line = next(reversed(self._resting))
        return _expired(line, self._resting[line])

    def _begin(self, line: Line, transaction: Transaction) -> None:
        self._resting.pop(line, None)
        self._carrying[line] = None
        transaction.line = line
        line.begin(transaction)

    # What lines tell: see `dialogue.Pool`

    def following(self, line: Line) -> Transaction | None:
        if not self._waiting or self._waiting[0].fresh or self._closed or _expired(line):
            return None
        transaction = self._waiting.popleft()
        transaction.line = line
        return transaction

    def rests(self, line: Line) -> None:
        self._carrying.pop(line, None)
        self._resting[line] = asyncio.get_running_loop().time()
        if self._closed or self._open > self._places.allowed:
            line.close()
        self._match()
        if self._resting and self._sweeping is None and not self._closed:
            self._sweeping = asyncio.get_running_loop().call_later(IDLE_S, self._sweep)

    def over(self, line: Line, *, strikes: int) -> None:
        self._carrying.pop(line, None)
        self._resting.pop(line, None)
        if strikes and self._strikes < ENOUGH <= self._strikes + strikes:
            log.warning("mail_relay_cannot_pipeline", host=self._settings.url.host, port=self._settings.url.port)
        if self._strikes < ENOUGH:
            self._strikes += strikes
        # Not now: whoever reports the end may be in the middle of something.
        asyncio.get_running_loop().call_soon(self._match)

    def _sweep(self) -> None:
        for line in [line for line, since in self._resting.items() if _expired(line, since)]:
            line.close()
        loop = asyncio.get_running_loop()
        self._sweeping = loop.call_later(IDLE_S, self._sweep) if self._resting else None

    # New lines

    def _dial(self, transaction: Transaction) -> None:
        dial = asyncio.create_task(self._dialled(transaction))
        self._dials.add(dial)

    async def _dialled(self, transaction: Transaction) -> None:
        task = asyncio.current_task()
        assert task is not None
        line: Line | Ending
        try:
            line = await self._new_line()
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            line = Ending(Phase.CONNECT, None, told(error))
        finally:
            self._dials.discard(task)
        if isinstance(line, Ending):
            self._unreachable(line, transaction)
        elif transaction.ended.done():  # its sender was cancelled meanwhile
            self.rests(line)
        else:
            self._begin(line, transaction)

    async def _new_line(self) -> Line | Ending:
        client = await self._client()
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await _open(client)
        except aiosmtplib.SMTPAuthenticationError as refused:
            return Ending(Phase.AUTH, refused.code, refused.message)
        except aiosmtplib.SMTPResponseException as refused:
            code = refused.code if 200 <= refused.code < 600 else None
            return Ending(Phase.CONNECT, code, refused.message)
        except (aiosmtplib.SMTPException, OSError) as error:
            return Ending(Phase.CONNECT, None, told(error))
        except BaseException:
            client.close()
            raise
        self._reached()
        return self._line_over(client)

    def _line_over(self, client: aiosmtplib.SMTP) -> Line:
        announced = Announced.in_reply(client.esmtp_extensions)
        times = {"timeout_s": self._settings.timeout_s, "dot_timeout_s": self._settings.dot_timeout_s}
        assert client.protocol is not None
        left_over = bool(client.protocol._buffer)  # noqa: SLF001 - it would be taken for the answer to MAIL
        if left_over or not announced.pipelining or self._strikes >= ENOUGH:
            return UnpipelinedLine(self, announced, client, **times)
        line = PipelinedLine(self, announced, **times)
        line.take_over(cast(asyncio.Transport, client.transport))
        return line

    async def _client(self) -> aiosmtplib.SMTP:
        url = self._settings.url
        if not self._ehlo_name:
            self._ehlo_name = await asyncio.to_thread(socket.getfqdn)
        return aiosmtplib.SMTP(
            hostname=url.host,
            port=url.port,
            username=url.user or None,
            password=url.password or None,
            local_hostname=self._ehlo_name,
            timeout=self._settings.timeout_s,
            use_tls=url.implicit_tls,
            start_tls=url.starttls,
            tls_context=self._tls,
        )

    def _unreachable(self, ending: Ending, transaction: Transaction) -> None:
        """No new line. Those who wait are told, unless lines that are open will come round to them."""
        if (self._carrying or self._resting) and not transaction.fresh:
            self._places.back_away()
            self._waiting.appendleft(transaction)
            self._match()
            return
        transaction.end(ending)
        while self._waiting and not (self._carrying or self._resting):
            self._waiting.popleft().end(ending)
        self._tell(ending)

    def _tell(self, ending: Ending) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now
            log.error(
                "mail_relay_unreachable",
                host=self._settings.url.host,
                port=self._settings.url.port,
                phase=str(ending.phase),
                code=ending.code,
                reply=printable(ending.text)[:300],
            )
        self._away = True

    def _reached(self) -> None:
        if self._away:
            self._away = False
            self._logged_at = float("-inf")
            log.info("mail_relay_reached_again", host=self._settings.url.host, port=self._settings.url.port)


async def _open(client: aiosmtplib.SMTP) -> None:
    """Connect, with TLS and AUTH as told, and leave the relay's extensions known."""
    try:
        await client.connect()
        if client.last_ehlo_response is None:
            try:
                await client.ehlo()
            except aiosmtplib.SMTPHeloError as refused:
                if refused.code == SERVICE_CLOSING:
                    raise
                await client.helo()
        assert client.transport is not None
        client.transport.set_write_buffer_limits(high=0)  # type: ignore[attr-defined]
    except BaseException:
        client.close()
        raise


def _expired(line: Line, resting_since: float | None = None) -> bool:
    now = asyncio.get_running_loop().time()
    idle = resting_since is not None and now - resting_since > IDLE_S
    return idle or now - line.opened_at > MAX_AGE_S


def _is_greylisted(ending: Ending) -> bool:
    """The relay has nothing against us but that this recipient's domain does not know us yet: it bears what it has."""
    enhanced = enhanced_status(ending.text) if ending.code is not None else ""
    return greylisted(ending.phase, ending.code, enhanced, ending.text)


def _was_stale(ending: Ending) -> bool:
    """Whether a kept connection had died, or had carried all it may, before this mail was begun."""
    return ending.phase is Phase.MAIL and not ending.local and ending.code in (None, SERVICE_CLOSING)


__all__ = ("Composed", "Ending", "RelaySettings", "SmtpRelay")
