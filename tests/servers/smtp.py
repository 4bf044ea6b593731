"""A mail server that remembers all it saw and misbehaves on request.

It notes a message the moment its final dot arrives, before any answer, and again when the answer went out: what lies
between the two is the doubtful window. Every phase of the dialogue can be scripted: another reply, a dropped
connection, silence. It runs in a thread of its own; every method may be called from any thread.

    with SmtpServer() as server:
        server.on("RCPT", "550 5.1.1 No such user", address="borta@kommun.example")
        server.on("dot", DROP, nth=3)
        ...
        assert [mail.recipients for mail in server.accepted] == ...
"""

import asyncio
import enum
import inspect
import secrets
import ssl
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.servers.certificates import CertificateAuthority
from tests.servers.thread import ThreadedServer

Phase = Literal["connect", "MAIL", "RCPT", "DATA", "dot"]
Security = Literal["none", "starttls", "tls"]


class Fault(enum.Enum):
    """What a server can do instead of answering."""

    DROP = "drop"
    HANG = "hang"


DROP, HANG = Fault.DROP, Fault.HANG
Reply = str | Fault | None  # None: as if nothing had been scripted


@dataclass(frozen=True)
class Occasion:
    """One point in one dialogue. `number` counts this phase over the whole server, from 1."""

    phase: Phase
    number: int
    connection: int
    sender: str | None = None
    address: str | None = None
    recipients: tuple[str, ...] = ()
    content: bytes = b""


Script = Callable[[Occasion], Reply | Awaitable[Reply]]


@dataclass
class ReceivedMail:
    """One message whose final dot came. `answered_at` and `reply` stay None if no answer was given."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    received_at: datetime
    queue_id: str
    connection: int
    tls: bool
    user: str | None
    answered_at: datetime | None = None
    reply: str | None = None

    @property
    def accepted(self) -> bool:
        return self.reply is not None and self.reply.startswith("2")


@dataclass
class _Rule:
    phase: Phase
    reply: Reply | Script
    address: str | None
    nth: int | None
    times: int | None
    seen: int = field(default=0)

    def matches(self, occasion: Occasion) -> bool:
        """Counts the occasions that fit; `nth` picks one of these, `times` the first ones."""
        who = {occasion.address, occasion.sender, *occasion.recipients}
        if occasion.phase != self.phase or (self.address is not None and self.address not in who):
            return False
        self.seen += 1
        if self.nth is not None:
            return self.seen == self.nth
        return self.times is None or self.seen <= self.times


class SmtpServer(ThreadedServer):
    """An SMTP server on loopback. `login` makes AUTH required; `security` says how TLS comes in."""

    def __init__(
        self,
        *,
        security: Security = "none",
        login: tuple[str, str] | None = None,
        authority: CertificateAuthority | None = None,
        tls_context: ssl.SSLContext | None = None,
        pipelining: bool = False,
        smtputf8: bool = True,
        size_limit: int = 33_554_432,
        port: int = 0,
    ) -> None:
        super().__init__()
        self.security = security
        self.login = login
        self.authority = authority or CertificateAuthority()
        self.port = port
        self.pipelining = pipelining
        self.smtputf8 = smtputf8
        self.size_limit = size_limit
        self.connections = 0  # ever opened
        self.open_now = 0
        self.most_open = 0
        self._tls = tls_context or (None if security == "none" else self.authority.server_context())
        self._lock = threading.Lock()
        self._mails: list[ReceivedMail] = []
        self._rules: list[_Rule] = []
        self._counts: Counter[Phase] = Counter()
        self._dialogues: set[_Dialogue] = set()
        self._listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """In the words of BUDKAVLE_SMTP_URL."""
        login = "" if self.login is None else ":".join(self.login) + "@"
        scheme = "smtps" if self.security == "tls" else "smtp"
        return f"{scheme}://{login}{self.host}:{self.port}" + (
            "?starttls=required" if self.security == "starttls" else ""
        )

    @property
    def mails(self) -> list[ReceivedMail]:
        """Every message whose final dot came, in that order, whatever was answered."""
        with self._lock:
            return list(self._mails)

    @property
    def accepted(self) -> list[ReceivedMail]:
        """Those that were answered with 250."""
        return [mail for mail in self.mails if mail.accepted]

    def to(self, address: str) -> list[ReceivedMail]:
        return [mail for mail in self.mails if address in mail.recipients]

    def on(
        self,
        phase: Phase,
        reply: Reply | Script,
        *,
        address: str | None = None,
        nth: int | None = None,
        times: int | None = None,
    ) -> None:
        """At that phase, for that address (sender or recipient; default all), at its n-th occurrence only or the
        first so many (default always), reply so. A function is asked each time, and may be async. The first
        rule that matches and does not give None decides."""
        with self._lock:
            self._rules.append(_Rule(phase, reply, address, nth, times))

    def behave(self) -> None:
        """Forget all scripts."""
        with self._lock:
            self._rules.clear()

    async def _open(self) -> None:
        implicit = self._tls if self.security == "tls" else None
        self._listener = await self._loop.create_server(
            lambda: _Dialogue(self), self.host, self.port, ssl=implicit, backlog=512
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._listener is not None
        self._listener.close()
        for dialogue in list(self._dialogues):
            dialogue.abort()
        await self._listener.wait_closed()

    async def _decide(self, occasion: Occasion) -> Reply:
        with self._lock:
            replies = [rule.reply for rule in self._rules if rule.matches(occasion)]
        for reply in replies:
            answer = reply(occasion) if callable(reply) else reply
            if inspect.isawaitable(answer):
                answer = await answer
            if answer is not None:
                return answer
        return None

    def _count(self, phase: Phase) -> int:
        with self._lock:
            self._counts[phase] += 1
            return self._counts[phase]

    def _note(self, mail: ReceivedMail) -> None:
        with self._lock:
            self._mails.append(mail)

    def _opened(self, dialogue: "_Dialogue") -> int:
        self._dialogues.add(dialogue)
        self.connections += 1
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        return self.connections

    def _closed(self, dialogue: "_Dialogue") -> None:
        if dialogue in self._dialogues:
            self._dialogues.remove(dialogue)
            self.open_now -= 1


class _Dialogue(SMTP):
    """One connection: aiosmtpd's protocol, with a question to the script before each of its answers."""

    def __init__(self, server: SmtpServer) -> None:
        self._server = server
        self._number = 0
        self._unanswered: ReceivedMail | None = None
        starttls = server.security == "starttls"
        super().__init__(
            self,
            hostname="mx.budkavle.example",
            ident="Budkavle test server",
            data_size_limit=server.size_limit,
            enable_SMTPUTF8=server.smtputf8,
            tls_context=server._tls if starttls else None,
            require_starttls=starttls,
            auth_require_tls=starttls,
            authenticator=self._authenticate_user,
            loop=server._loop,
        )
        # Not by its parameter: aiosmtpd does not see the TLS that was there before its first byte, and warns.
        self._auth_required = server.login is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self._number:  # again after STARTTLS
            self._number = self._server._opened(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._server._closed(self)
        super().connection_lost(error)

    def abort(self) -> None:
        for transport in (self.transport, self._original_transport):
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()

    async def _handle_client(self) -> None:
        # After STARTTLS aiosmtpd comes here no second time: one connection, one greeting.
        try:
            reply = await self._scripted("connect")
        except asyncio.CancelledError:  # the client gave up; aiosmtpd closes only what it was reading from
            self.abort()
            raise
        if reply is None:
            await super()._handle_client()
            return
        await self.push(reply)
        if self.transport is not None:
            self.transport.close()

    async def smtp_DATA(self, arg: str) -> None:
        if (reply := await self._scripted("DATA")) is not None:
            await self.push(reply)
            return
        await super().smtp_DATA(arg)

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        if self._server.pipelining:
            responses.insert(1, "250-PIPELINING")
        responses.insert(1, "250-ENHANCEDSTATUSCODES")
        return responses

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if (reply := await self._scripted("MAIL", address=address)) is not None:
            return reply
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 Ok"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if (reply := await self._scripted("RCPT", address=address)) is not None:
            return reply
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        mail = self._received(session, envelope)
        self._server._note(mail)
        self._unanswered = mail
        reply = await self._scripted("dot", content=mail.content)
        return reply if reply is not None else f"250 2.0.0 Ok: queued as {mail.queue_id}"

    def _received(self, session: Session, envelope: Envelope) -> ReceivedMail:
        content = envelope.original_content
        assert isinstance(content, bytes)
        return ReceivedMail(
            sender=envelope.mail_from or "",
            recipients=tuple(envelope.rcpt_tos),
            content=content,
            received_at=datetime.now(UTC),
            queue_id=secrets.token_hex(5).upper(),
            connection=self._number,
            tls=session.ssl is not None or self._server.security == "tls",
            user=self._user(session),
        )

    def _user(self, session: Session) -> str | None:
        data = session.auth_data
        return data.login.decode() if isinstance(data, LoginPassword) else None

    async def push(self, status: Any) -> None:
        await super().push(status)
        if (mail := self._unanswered) is not None:
            mail.answered_at = datetime.now(UTC)
            mail.reply = status if isinstance(status, str) else status.decode()
            self._unanswered = None

    async def _scripted(self, phase: Phase, address: str | None = None, content: bytes = b"") -> str | None:
        """The scripted reply, or None. Does not return if the script drops the connection or falls silent:
        the connection's end cancels the dialogue."""
        envelope = self.envelope
        occasion = Occasion(
            phase,
            self._server._count(phase),
            self._number,
            sender=envelope.mail_from if envelope else None,
            address=address,
            recipients=tuple(envelope.rcpt_tos) if envelope else (),
            content=content,
        )
        reply = await self._server._decide(occasion)
        if isinstance(reply, Fault):
            if reply is DROP:
                self.abort()
            await asyncio.Event().wait()
            raise AssertionError("silence is for ever")
        return reply

    def _authenticate_user(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        login = self._server.login
        known = login is not None and isinstance(data, LoginPassword)
        if known and login is not None and (data.login.decode(), data.password.decode()) == login:
            return AuthResult(success=True, auth_data=data)
        return AuthResult(success=False, handled=False)
