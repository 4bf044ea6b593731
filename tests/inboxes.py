"""What lies in the recipients' inboxes: the mails that a sink took, read as a mailbox provider would read them."""

import hashlib
import re
from dataclasses import dataclass
from email import policy
from email.headerregistry import HeaderRegistry
from email.message import EmailMessage
from email.parser import BytesParser
from functools import cached_property, lru_cache
from pathlib import Path

from tests.servers.sink import SinkProcess

POLICY = policy.default.clone(header_factory=lru_cache(maxsize=50_000)(HeaderRegistry()))
"""The standard library parses a header each time it is looked at, which takes most of the time of reading a mail; the same
words mean the same in thousands of mails."""


@dataclass(frozen=True)
class Mail:
    """One message with its envelope. Two copies of it are two of these."""

    to: str
    message_id: str
    sha256: str
    content: bytes
    dot_at: float
    answered_at: float | None

    @cached_property
    def message(self) -> EmailMessage:
        parsed = BytesParser(policy=POLICY).parsebytes(self.content)
        assert isinstance(parsed, EmailMessage)
        return parsed

    def header(self, name: str) -> str:
        return str(self.message[name] or "")

    @cached_property
    def item(self) -> str:
        """Its id, found without parsing: there are thousands of mails."""
        found = re.search(rb"^X-Budkavle-Item: (\S+)\r$", self.content, re.MULTILINE)
        return found[1].decode() if found else ""

    @cached_property
    def revision(self) -> int:
        found = re.search(rb"^X-Budkavle-Revision: (\d+)\r$", self.content, re.MULTILINE)
        return int(found[1]) if found else 0

    @cached_property
    def parts(self) -> list[tuple[str, str]]:
        """Type and text, with plain line ends, of each part."""
        return [
            (part.get_content_type(), part.get_content().replace("\r\n", "\n")) for part in self.message.iter_parts()
        ]

    def part(self, kind: str) -> str:
        """The text of its `plain` or `html` part."""
        return next(text for type_, text in self.parts if type_ == f"text/{kind}")


class Inboxes:
    """A sink that stores what it takes. `mails` are all that it saw the final dot of."""

    def __init__(self, directory: Path, *options: str) -> None:
        self._store = directory / "mails"
        self._store.mkdir(parents=True, exist_ok=True)
        self.sink = SinkProcess(directory, "--store", str(self._store), *options)
        self._contents: dict[str, bytes] = {}
        self._files: set[Path] = set()
        self._mails: list[Mail] = []

    @property
    def port(self) -> int:
        return self.sink.port

    def start(self) -> None:
        self.sink.start()

    def stop(self) -> None:
        self.sink.stop()

    @property
    def mails(self) -> list[Mail]:
        lines = self.sink.mails
        if any(line.sha256 not in self._contents for line in lines[len(self._mails) :]):
            self._read_files({line.sha256 for line in lines})
        self._mails += [
            Mail(
                line.rcpt[0],
                line.message_id or "",
                line.sha256,
                self._contents[line.sha256],
                line.dot_at,
                line.answered_at,
            )
            for line in lines[len(self._mails) :]
        ]
        return list(self._mails)

    @property
    def count(self) -> int:
        return len(self.sink.mails)

    def of(self, item: str) -> list[Mail]:
        return [mail for mail in self.mails if mail.item == item]

    def _read_files(self, logged: set[str]) -> None:
        """A file that is not logged yet may be half written: it is read again the next time."""
        for file in set(self._store.glob("*.eml")) - self._files:
            content = file.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            if digest in logged:
                self._contents[digest] = content
                self._files.add(file)
