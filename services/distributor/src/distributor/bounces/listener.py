"""A mail server for bounces alone: the relay hands on by LMTP (RFC 2033) or SMTP what comes to the bounce address.

Takes mail for the bounce address and for genuine return paths, nothing else, of any size: only the beginning is kept.
A report is accepted when it is committed, and not before; what cannot be written now is answered with 451 and comes
again. No login and no TLS: it listens where the relay is, on loopback or a private network.
"""

import asyncio
from typing import Any

import structlog
from aiosmtpd.smtp import SMTP, Envelope, Session, syntax

from distributor.bounces.applying import NotYet, Result
from distributor.bounces.intake import Intake
from distributor.bounces.mime import MOST_BYTES

log = structlog.get_logger()

MOST_CONNECTIONS = 20
"""As many as Postfix opens to one destination."""
LONGEST_LINE = 100_000
"""RFC 5321 says 1,000; what quotes somebody's mail does not keep to that. A longer line is cut."""
END_OF_LINE, END_OF_MAIL = b"\r\n", b".\r\n"
SILENCE_S = 60.0

TAKEN = {
    Result.APPLIED: "250 2.0.0 Ok: taken in",
    Result.ARRIVED: "250 2.0.0 Ok: arrived",
    Result.REPEATED: "250 2.0.0 Ok: known already",
    Result.NOT_OURS: "250 2.0.0 Ok: not about a delivery of ours",
}


class BounceListener:
    """The listener as a part of the service."""

    name = "bounce listener"

    def __init__(self, address: str, intake: Intake) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._intake = intake

    async def run(self, stop: asyncio.Event) -> None:
        """Listen until `stop`."""
        loop = asyncio.get_running_loop()
        handler = _Handler(self._intake)
        server = await loop.create_server(lambda: _Protocol(handler, loop), self._host.strip("[]"), self._port)
        async with server:
            await stop.wait()
        await handler.finish()


class _Protocol(SMTP):
    """Speaks both: LHLO begins LMTP, which is answered once for each recipient; EHLO begins SMTP."""

    line_length_limit = LONGEST_LINE

    def __init__(self, handler: "_Handler", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            handler,
            data_size_limit=None,
            enable_SMTPUTF8=True,
            hostname="localhost",
            timeout=SILENCE_S,
            loop=loop,
        )
        self.lmtp = False

    @syntax("LHLO hostname")
    async def smtp_LHLO(self, hostname: str) -> None:  # noqa: N802 - aiosmtpd's way of naming commands
        """LMTP's greeting."""
        self.lmtp = True
        await self.smtp_EHLO(hostname)

    @syntax("DATA")
    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802
        """As the library does it, but on the beginning of the mail."""
        whole = self._reader
        self._reader = _Beginning(whole)  # type: ignore[assignment]
        try:
            await super().smtp_DATA(arg)
        finally:
            self._reader = whole

    def connection_made(self, transport: Any) -> None:
        if len(self.event_handler.open) >= MOST_CONNECTIONS:
            transport.write(b"421 4.3.2 Too many connections\r\n")
            transport.close()
            return
        self.event_handler.open.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self in self.event_handler.open:
            self.event_handler.open.discard(self)
            super().connection_lost(error)


class _Beginning:
    """A mail's lines, until `MOST_BYTES` have come; of the rest the last alone. Nothing that is read is held."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._octets = 0

    async def readuntil(self, _separator: bytes) -> bytes:
        enough = self._octets > MOST_BYTES
        line = await self._line()
        while enough and line != END_OF_MAIL:
            line = await self._line()
        return line

    async def _line(self) -> bytes:
        beginning = b""
        while True:
            try:
                piece = await self._reader.readuntil(END_OF_LINE)
            except asyncio.LimitOverrunError as error:
                piece = await self._reader.read(error.consumed)
            self._octets += len(piece)
            beginning = beginning or piece
            if piece.endswith(END_OF_LINE):
                return _cut(beginning)


def _cut(line: bytes) -> bytes:
    whole = len(line) <= LONGEST_LINE and line.endswith(END_OF_LINE)
    return line if whole else line[: LONGEST_LINE - len(END_OF_LINE)] + END_OF_LINE


class _Handler:
    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._under_way: set[asyncio.Task[Any] | None] = set()
        self.open: set[_Protocol] = set()

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if not self._intake.paths.takes(address):
            return "550 5.1.1 No such address"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: _Protocol, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        task = asyncio.current_task()
        self._under_way.add(task)
        try:
            answer = await self._answer(envelope)
        finally:
            self._under_way.discard(task)
        return "\r\n".join([answer] * (len(envelope.rcpt_tos) if server.lmtp else 1))

    async def _answer(self, envelope: Envelope) -> str:
        content = envelope.content
        raw = content if isinstance(content, bytes) else (content or "").encode()
        try:
            return TAKEN[await self._intake.take(raw, [*envelope.rcpt_tos, envelope.mail_from or ""])]
        except NotYet:
            return "451 4.3.0 That delivery is still under way"
        except Exception as error:  # noqa: BLE001 - the relay keeps the report and offers it again
            log.warning("bounce_report_waits", error=type(error).__name__)
            return "451 4.3.0 Cannot be written now"

    async def finish(self) -> None:
        """Let what is being written be written."""
        waiting = [task for task in self._under_way if task is not None]
        if waiting:
            await asyncio.wait(waiting, timeout=5)
        for protocol in tuple(self.open):
            if protocol.transport is not None:
                protocol.transport.close()
