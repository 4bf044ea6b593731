"""Bounces from a mailbox: IMAP (RFC 3501) or POP3 (RFC 1939), looked into every half minute.

A mail is removed only after its report has been committed, so that one is read twice rather than never. What is not
about a delivery of ours may be a person's: it stays, in IMAP marked as seen. The standard library's clients block, so
they work in a thread, one mail at a time; of each mail only the beginning is fetched where the protocol can, and kept
where it cannot. A mail that cannot be fetched or taken in holds up none behind it: it waits for the next visit.
"""

import asyncio
import imaplib
import poplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

import structlog

from distributor.bounces.applying import NotYet, Result
from distributor.bounces.intake import MOST_OCTETS, Intake
from distributor.bounces.mime import MOST_BYTES
from shared.tasks import pause

log = structlog.get_logger()

POLL_EVERY_S = 30.0
"""So that a complaint has ended the subscription within a minute."""
TIMEOUT_S = 30.0
AT_A_TIME = 200
"""Mails of one visit; the rest comes with the next one, which follows at once."""
MOST_FAILURES = 3
"""In a row; then it is the mailbox or the database that fails, not the mail."""
LONGEST_LINE = 100_000
SCHEMES = {"imap": 143, "imaps": 993, "pop3": 110, "pop3s": 995}


class Mailbox(Protocol):
    """What a visit can do. Keys are the server's own (UID, UIDL)."""

    def keys(self) -> list[str]: ...

    def fetch(self, key: str) -> bytes: ...

    def remove(self, key: str) -> None: ...

    def leave(self, key: str) -> None: ...

    def close(self) -> None: ...


class MailboxWorker:
    """The mailbox as a part of the service."""

    name = "bounce mailbox"

    def __init__(self, url: str, intake: Intake, poll_every_s: float = POLL_EVERY_S) -> None:
        self._url = urlsplit(url)
        self._intake = intake
        self._poll_every_s = poll_every_s
        self._left: set[str] = set()
        """POP3 has no marks: what was looked at and stays."""

    async def run(self, stop: asyncio.Event) -> None:
        """Look until `stop`."""
        while not stop.is_set():
            try:
                full = await self.visit(stop) == AT_A_TIME
            except (OSError, imaplib.IMAP4.error, poplib.error_proto, ssl.SSLError) as error:
                log.warning("bounce_mailbox_unreachable", error=type(error).__name__)
                full = False
            if not full:
                await pause(stop, self._poll_every_s)

    async def visit(self, stop: asyncio.Event) -> int:
        """Take in what waits; returns how many mails were looked at."""
        box = await asyncio.to_thread(open_mailbox, self._url)
        looked = failures = 0
        try:
            for key in await asyncio.to_thread(box.keys):
                if stop.is_set() or looked == AT_A_TIME or failures == MOST_FAILURES:
                    break
                if key not in self._left:
                    looked += 1
                    failures = 0 if await self._taken(box, key) else failures + 1
        finally:
            await asyncio.to_thread(box.close)
        return looked

    async def _taken(self, box: Mailbox, key: str) -> bool:
        """Whether it could be looked at; what could not is still there the next time."""
        try:
            await self._take(box, key)
        except NotYet:
            return True
        except (OSError, imaplib.IMAP4.abort):
            raise  # the connection is gone
        except Exception as error:  # noqa: BLE001 - whatever this mail does, those behind it are read
            log.warning("bounce_report_waits", error=type(error).__name__)
            return False
        return True

    async def _take(self, box: Mailbox, key: str) -> None:
        raw = await asyncio.to_thread(box.fetch, key)
        result = await self._intake.take(raw)
        if result is Result.NOT_OURS:
            self._left.add(key)
            await asyncio.to_thread(box.leave, key)
        else:
            await asyncio.to_thread(box.remove, key)


def open_mailbox(url: SplitResult) -> Mailbox:
    """Connect and log in."""
    return _Imap(url) if url.scheme.startswith("imap") else _Pop(url)


class _Imap:
    def __init__(self, url: SplitResult) -> None:
        host, port = url.hostname or "", url.port or SCHEMES[url.scheme]
        if url.scheme == "imaps":
            context = ssl.create_default_context()
            self._server: imaplib.IMAP4 = imaplib.IMAP4_SSL(host, port, ssl_context=context, timeout=TIMEOUT_S)
        else:
            self._server = imaplib.IMAP4(host, port, timeout=TIMEOUT_S)
        self._server.login(unquote(url.username or ""), unquote(url.password or ""))
        folder = unquote(url.path.strip("/")) or "INBOX"
        _done(self._server.select('"' + folder.replace('"', "") + '"'))

    def keys(self) -> list[str]:
        found = _done(self._server.uid("SEARCH", "UNSEEN", "UNDELETED"))
        return found[0].decode().split() if found and found[0] else []

    def fetch(self, key: str) -> bytes:
        parts = _done(self._server.uid("FETCH", key, f"(BODY.PEEK[]<0.{MOST_BYTES}>)"))
        body: bytes = next((part[1] for part in parts if isinstance(part, tuple)), b"")
        return body

    def remove(self, key: str) -> None:
        _done(self._server.uid("STORE", key, "+FLAGS.SILENT", r"(\Deleted)"))

    def leave(self, key: str) -> None:
        _done(self._server.uid("STORE", key, "+FLAGS.SILENT", r"(\Seen)"))

    def close(self) -> None:
        with _unless_gone():
            self._server.expunge()
            self._server.logout()


def _done(answer: tuple[str, list[Any]]) -> list[Any]:
    status, data = answer
    if status != "OK":
        raise imaplib.IMAP4.error(status)
    return data


class _Pop:
    def __init__(self, url: SplitResult) -> None:
        host, port = url.hostname or "", url.port or SCHEMES[url.scheme]
        if url.scheme == "pop3s":
            context = ssl.create_default_context()
            self._server: poplib.POP3 = _PatientTls(host, port, context=context, timeout=TIMEOUT_S)
        else:
            self._server = _Patient(host, port, timeout=TIMEOUT_S)
        self._server.user(unquote(url.username or ""))
        self._server.pass_(unquote(url.password or ""))
        self._numbers: dict[str, int] = {}

    def keys(self) -> list[str]:
        lines = [line.decode("ascii", "replace").split(None, 1) for line in self._server.uidl()[1]]
        self._numbers = {key: int(number) for number, key in lines}
        return list(self._numbers)

    def fetch(self, key: str) -> bytes:
        return b"\n".join(self._server.retr(self._numbers[key])[1])

    def remove(self, key: str) -> None:
        self._server.dele(self._numbers[key])

    def leave(self, key: str) -> None:
        """Nothing to do: it stays where it is."""

    def close(self) -> None:
        """QUIT is what makes POP3 remove; after a lost connection everything is still there."""
        with _unless_gone():
            self._server.quit()


class _Bounded:
    """The library refuses lines beyond 2,048 octets, and one such mail would block the mailbox for ever.

    Here a long line is cut, and what is beyond `MOST_OCTETS` is read and dropped.
    """

    file: Any

    def _getline(self) -> tuple[bytes, int]:
        line = rest = self.file.readline(LONGEST_LINE)
        octets = len(line)
        while rest and not rest.endswith(b"\n"):
            rest = self.file.readline(LONGEST_LINE)
            octets += len(rest)
        if not rest:
            raise poplib.error_proto("-ERR EOF")
        return line.rstrip(b"\r\n"), octets

    def _getlongresp(self) -> tuple[bytes, list[bytes], int]:
        answer = self._getresp()  # type: ignore[attr-defined]
        lines, octets = [], 0
        while (line := self._getline()[0]) != b".":
            line = line.removeprefix(b".")
            octets += len(line) + 2
            if octets <= MOST_OCTETS:
                lines.append(line)
        return answer, lines, octets


class _Patient(_Bounded, poplib.POP3):
    pass


class _PatientTls(_Bounded, poplib.POP3_SSL):
    pass


@contextmanager
def _unless_gone() -> Iterator[None]:
    try:
        yield
    except (OSError, imaplib.IMAP4.error, poplib.error_proto):
        return
