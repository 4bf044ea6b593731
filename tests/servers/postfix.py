"""Postfix's `smtp-sink`: a mail server of other hands, with switches for most of what a mail server can do wrong.

    sink = SmtpSink(directory)
    sink.start("-q", ".")        # hang up after the final dot, before any answer
    ...
    sink.start()                 # the same port, mended
    assert [mail.recipients for mail in sink.mails] == ...

`smtp-sink(1)` has the switches. It notes every mail whose text it read, whatever it answered. Found on the machine, or
installed with Postfix on Debian as root; its daemons are not started.
"""

import contextlib
import hashlib
import os
import re
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from tests.servers.finding import ServerUnavailable, can_install, install
from tests.servers.process import ServerProcess
from tests.servers.run import claim_port

SYSTEM_DIRECTORIES = "/usr/sbin:/usr/local/sbin:/usr/libexec/postfix"
RECIPIENT = re.compile(rb"^X-Rcpt-Args: <([^>]*)>", re.MULTILINE)
OWN_HEADERS = re.compile(rb"\AX-.*?^Received: [^\n]*\n(?:[ \t][^\n]*\n)*", re.MULTILINE | re.DOTALL)
MESSAGE_ID = re.compile(rb"^Message-ID:\s*(\S+)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class DumpedMail:
    """One transaction whose text came, complete or not. `content` has plain line ends."""

    recipients: tuple[str, ...]
    message_id: str
    content: bytes
    sha256: str


def smtp_sink_path() -> str:
    """Raises ServerUnavailable."""
    if (found := _found()) is None and can_install():
        install("postfix")
        found = _found()
    if found is None:
        raise ServerUnavailable(
            "The tests need smtp-sink, which is part of Postfix: install postfix (make test as root on Debian does)."
        )
    return found


def _found() -> str | None:
    return shutil.which("smtp-sink") or shutil.which("smtp-sink", path=SYSTEM_DIRECTORIES)


class SmtpSink:
    """An smtp-sink on a port of its own, which it keeps however often it is started."""

    def __init__(self, directory: Path) -> None:
        self.port = claim_port()
        self.url = f"smtp://127.0.0.1:{self.port}"
        self._directory = directory / f"smtp-sink-{self.port}"
        self._directory.mkdir()
        self._directory.chmod(0o777)  # as root it gives its rights away, and must
        self._process: ServerProcess | None = None

    def start(self, *switches: str) -> None:
        """Start it, with these switches only; one that runs is ended first."""
        self.stop()
        user = ("-u", "nobody") if os.geteuid() == 0 else ()
        command = [smtp_sink_path(), *user, "-d", "mail.", *switches, f"127.0.0.1:{self.port}", "200"]
        self._process = ServerProcess(command, self._directory / "log", cwd=self._directory)
        self._process.start(self._listens, within=20)

    def stop(self) -> None:
        """Twice does no harm."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    @property
    def mails(self) -> list[DumpedMail]:
        """Every mail whose text came, over all starts."""
        files = sorted(self._directory.glob("mail.*"), key=lambda file: file.stat().st_mtime_ns)
        read = [_read(file.read_bytes()) for file in files]
        return [mail for mail in read if mail.message_id]  # it opens a file at MAIL

    def forget(self) -> None:
        """As if no mail had come."""
        for file in self._directory.glob("mail.*"):
            file.unlink()

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


def _read(dump: bytes) -> DumpedMail:
    content = OWN_HEADERS.sub(b"", dump, count=1)
    found = MESSAGE_ID.search(content)
    return DumpedMail(
        tuple(address.decode() for address in RECIPIENT.findall(dump)),
        found[1].decode() if found else "",
        content,
        hashlib.sha256(content).hexdigest(),
    )
