"""The SMTP server that takes every mail and passes none on: what stands in for a mail server until one is named.

It listens on loopback alone, on a port that the system picks, in the process's own loop.
"""

import asyncio
import socket
from typing import Any

import structlog
from aiosmtpd.smtp import SMTP, Envelope, Session

from standalone.mailbox.store import CaughtMail, MailStore

log = structlog.get_logger()

SIZE_LIMIT = 10_000_000
"""Bytes of one mail. Ours are a tenth of a megabyte at most; a text that passes all limits elsewhere fits."""


class _Handler:
    def __init__(self, store: MailStore) -> None:
        self._store = store

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        content = envelope.content
        source = content if isinstance(content, bytes) else (content or "").encode()
        try:
            await self._store.keep(CaughtMail(tuple(envelope.rcpt_tos), source))
        except Exception as error:  # noqa: BLE001 - the sender keeps the mail and tries again
            log.warning("mail_not_caught", error=type(error).__name__)
            return "451 4.3.0 The mail could not be stored"
        return f"250 2.0.0 Ok: caught {len(source)} bytes"


class MailCatcher:
    """An SMTP server on a free loopback port."""

    def __init__(self, store: MailStore) -> None:
        self._store = store
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """What a sender is told. TLS would guard nothing here: the mail never leaves the process."""
        return f"smtp://127.0.0.1:{self._socket.getsockname()[1]}?starttls=never"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        handler = _Handler(self._store)

        def protocol() -> Any:
            return SMTP(handler, data_size_limit=SIZE_LIMIT, enable_SMTPUTF8=True, hostname="localhost", loop=loop)

        self._server = await loop.create_server(protocol, sock=self._socket)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._socket.close()
