"""
The mail relay: a pool of kept connections, and the dialogue that always knows how far it came.

`transmit` puts one mail on one connection and says where the dialogue ended and with which words. It never raises for
what the relay does. Bytes are sent as they are given (CRLF lines); only dots are doubled (RFC 5321, section 4.5.2).

The dialogue is driven by hand over aiosmtplib's connection, because `sendmail` cannot tell a connection that broke at
DATA (surely not delivered) from one that broke after the final dot (perhaps delivered). The dot of a long mail is
written only when the system has taken all that goes before it.

A connection is reused, most recently used first; it is closed after a refusal to stay (421), anything unintelligible,
`IDLE_S` of silence or `MAX_AGE_S`. A kept connection that turns out to be dead at MAIL, when nothing has been sent yet,
costs one fresh connection, not an attempt. There are never more than `connections` at once.
"""

import asyncio
import socket
import ssl
from dataclasses import dataclass
from typing import Final

import aiosmtplib
import structlog
from aiosmtplib.protocol import SMTPProtocol

from distributor.mail.relay_url import RelayUrl
from distributor.mail.replies import SERVICE_CLOSING, Phase, printable

log = structlog.get_logger()

IDLE_S = 20.0
"""Well below a relay's own patience (Postfix: 300 s): we hang up first."""

MAX_AGE_S = 300.0
"""As Postfix's smtp_connection_reuse_time_limit: a relay behind a balancer gets its share again."""

ONE_WRITE = 65_536
"""Octets that go out with their dot in one write. A socket takes so much at once; see `_hand_over` for more."""

LOG_EVERY_S = 60.0
"""A relay that is away is news once a minute, not once a mail."""

EHLO_SIZE = "size"
GO_AHEAD = 354


@dataclass(frozen=True, slots=True)
class Composed:
    """A mail ready to go. `data` has CRLF lines and ends with one; `smtputf8` when an address is beyond ASCII."""

    mail_from: str
    recipient: str
    data: bytes
    message_id: str
    smtputf8: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """Where a dialogue ended. `code` is None when no usable answer came; `text` is then what happened instead.

    `local` names what we refused ourselves, without asking the relay: it will never be otherwise.
    """

    phase: Phase
    code: int | None
    text: str
    local: str = ""


class Connection:
    """One open connection, EHLO, TLS and AUTH behind it."""

    def __init__(self, client: aiosmtplib.SMTP, protocol: SMTPProtocol, settings: "RelaySettings") -> None:
        self._client = client
        self._protocol = protocol
        self._timeout_s = settings.timeout_s
        self._dot_timeout_s = settings.dot_timeout_s
        self._announces_size = EHLO_SIZE in client.esmtp_extensions
        self._speaks_utf8 = "smtputf8" in client.esmtp_extensions
        self._limit = _size_limit(client.esmtp_extensions.get(EHLO_SIZE, ""))
        self._fit = True
        self._mid_transaction = False
        self.opened_at = self.idle_since = asyncio.get_running_loop().time()

    @property
    def usable(self) -> bool:
        """Whether another mail may follow: nothing unintelligible was said and the line stands."""
        return self._fit and self._protocol.is_connected

    def expired(self, now: float) -> bool:
        return now - self.idle_since > IDLE_S or now - self.opened_at > MAX_AGE_S

    async def transmit(self, mail: Composed) -> Ending:
        """One transaction (RFC 5321, section 3.3)."""
        if (refusal := self._unfit(mail)) is not None:
            return refusal
        if self._mid_transaction:
            self._mid_transaction = False
            if (reset := await self._ask(Phase.MAIL, b"RSET")).code != 250:
                return self._spoilt(reset)
        for phase, command in self._envelope(mail):
            ending = await self._ask(phase, command)
            if ending.code is None or not _goes_on(phase, ending.code):
                return ending
            self._mid_transaction = True
        ending = await self._hand_over(mail.data)
        self._mid_transaction = ending.phase is not Phase.DOT
        return ending

    def close(self) -> None:
        """Say QUIT, if anybody listens, and hang up."""
        if self.usable:
            self._protocol.write(b"QUIT\r\n")
        self._client.close()

    def abort(self) -> None:
        """Hang up at once."""
        self._fit = False
        self._client.close()

    def _unfit(self, mail: Composed) -> Ending | None:
        if mail.smtputf8 and not self._speaks_utf8:
            text = "smtputf8_unsupported: the address is beyond ASCII and the relay does not speak SMTPUTF8 (RFC 6531)"
            return Ending(Phase.MAIL, None, text, local="5.6.7")
        if self._limit and len(mail.data) > self._limit:
            text = f"message_too_big: {len(mail.data)} octets, the relay takes {self._limit} (RFC 1870)"
            return Ending(Phase.MAIL, None, text, local="5.3.4")
        return None

    def _envelope(self, mail: Composed) -> tuple[tuple[Phase, bytes], ...]:
        options = b" SIZE=%d" % len(mail.data) if self._announces_size else b""
        if mail.smtputf8:
            options += b" SMTPUTF8"
        return (
            (Phase.MAIL, b"MAIL FROM:<" + mail.mail_from.encode() + b">" + options),
            (Phase.RCPT, b"RCPT TO:<" + mail.recipient.encode() + b">"),
            (Phase.DATA, b"DATA"),
        )

    async def _ask(self, phase: Phase, command: bytes) -> Ending:
        try:
            response = await self._protocol.execute_command(command, timeout=self._timeout_s)
        except (aiosmtplib.SMTPException, OSError) as error:
            return self._spoilt(Ending(phase, None, _told(error)))
        return self._heard(phase, response.code, response.message)

    async def _hand_over(self, data: bytes) -> Ending:
        """Send the mail and its dot. As long as the dot is unwritten, nothing was delivered."""
        wire = _stuffed(data)
        try:
            if len(wire) > ONE_WRITE:
                if (early := await self._ahead_of_dot(wire)) is not None:
                    return early
                wire = b""
            self._protocol.write(wire + b".\r\n")
        except (aiosmtplib.SMTPException, OSError) as error:
            return self._spoilt(Ending(Phase.DATA, None, _told(error)))
        try:
            response = await self._protocol.read_response(timeout=self._dot_timeout_s)
        except (aiosmtplib.SMTPException, OSError) as error:
            return self._spoilt(Ending(Phase.DOT, None, _told(error)))
        return self._heard(Phase.DOT, response.code, response.message)

    async def _ahead_of_dot(self, wire: bytes) -> Ending | None:
        """Write all but the dot, and wait until the system has taken it; an answer that comes too early ends it here.

        aiosmtplib's own DATA marks an answer as expected and drains in the same way.
        """
        protocol = self._protocol
        protocol._response_pending = True  # noqa: SLF001
        protocol.write(wire)
        await asyncio.wait_for(protocol._drain_helper(), self._timeout_s)  # noqa: SLF001
        waiter = protocol._response_waiter  # noqa: SLF001
        if waiter is None or not waiter.done():
            return None
        response = await protocol.read_response()
        return self._spoilt(self._heard(Phase.DATA, response.code, response.message))

    def _heard(self, phase: Phase, code: int, text: str) -> Ending:
        if self._protocol._buffer:  # noqa: SLF001 - it would be taken for the answer to the next command
            self._fit = False
            if phase is not Phase.DOT:
                return Ending(phase, None, printable(f"unintelligible: more than one answer, first {code} {text}"))
        if not 200 <= code < 600:  # aiosmtplib takes any number for a code
            return self._spoilt(Ending(phase, None, printable(f"unintelligible: {code} {text}")))
        ending = Ending(phase, code, text)
        return self._spoilt(ending) if code == SERVICE_CLOSING else ending

    def _spoilt(self, ending: Ending) -> Ending:
        self._fit = False
        return ending


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
        self._slots = asyncio.Semaphore(settings.connections)
        self._idle: list[Connection] = []
        self._tls = ssl.create_default_context(cafile=settings.ca_file or None)
        self._ehlo_name = settings.ehlo_name
        self._sweeping: asyncio.TimerHandle | None = None
        self._closed = False
        self._away = False
        self._logged_at = float("-inf")

    async def transmit(self, mail: Composed) -> Ending:
        """Send one mail and say how it ended."""
        async with self._slots:
            kept = self._take()
            if kept is not None:
                ending = await self._over(kept, mail)
                if not _was_stale(ending):
                    return ending
            fresh = await self._dial()
            return fresh if isinstance(fresh, Ending) else await self._over(fresh, mail)

    async def close(self) -> None:
        """Hang up on all connections; those in use follow as their dialogue ends."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        while self._idle:
            self._idle.pop().close()

    async def _over(self, connection: Connection, mail: Composed) -> Ending:
        try:
            ending = await connection.transmit(mail)
        except BaseException:
            connection.abort()
            raise
        self._keep(connection)
        return ending

    def _take(self) -> Connection | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and not connection.expired(now):
                return connection
            connection.close()
        return None

    def _keep(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        if self._closed or not connection.usable:
            connection.close()
            return
        self._idle.append(connection)
        if self._sweeping is None:
            self._sweeping = loop.call_later(IDLE_S, self._sweep)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        gone = [connection for connection in self._idle if not connection.usable or connection.expired(loop.time())]
        self._idle = [connection for connection in self._idle if connection not in gone]
        for connection in gone:
            connection.close()
        self._sweeping = loop.call_later(IDLE_S, self._sweep) if self._idle else None

    async def _dial(self) -> Connection | Ending:
        client = await self._client()
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await _open(client)
        except aiosmtplib.SMTPAuthenticationError as refused:
            return self._unreachable(Ending(Phase.AUTH, refused.code, refused.message))
        except aiosmtplib.SMTPResponseException as refused:
            code = refused.code if 200 <= refused.code < 600 else None
            return self._unreachable(Ending(Phase.CONNECT, code, refused.message))
        except (aiosmtplib.SMTPException, OSError) as error:
            return self._unreachable(Ending(Phase.CONNECT, None, _told(error)))
        except BaseException:
            client.close()
            raise
        self._reached()
        assert client.protocol is not None
        return Connection(client, client.protocol, self._settings)

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

    def _unreachable(self, ending: Ending) -> Ending:
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
        return ending

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


def _was_stale(ending: Ending) -> bool:
    """Whether a kept connection had died, or had carried all it may, before this mail was begun."""
    return ending.phase is Phase.MAIL and not ending.local and ending.code in (None, SERVICE_CLOSING)


def _goes_on(phase: Phase, code: int) -> bool:
    return code == GO_AHEAD if phase is Phase.DATA else 200 <= code < 300


def _stuffed(data: bytes) -> bytes:
    wire: Final = data.replace(b"\r\n.", b"\r\n..") if b"\r\n." in data else data
    return b"." + wire if wire.startswith(b".") else wire


def _size_limit(announced: str) -> int:
    return int(announced) if announced.isascii() and announced.isdigit() else 0


def _told(error: BaseException) -> str:
    return printable(str(error) or type(error).__name__)
