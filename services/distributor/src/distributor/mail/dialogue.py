"""The words of a mail dialogue that both ways of leading it share: one command at a time, and pipelined.

Which bytes a mail becomes, what the server announced, and how a dialogue can end. No network here.
"""

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Self

from distributor.mail.dkim import Canonical
from distributor.mail.replies import Phase, printable

ONE_WRITE = 65_536
"""Octets that go out with their dot in one write. A socket takes so much at once; of more, the dot waits its turn."""

GO_AHEAD = 354

ENOUGH = 3
"""So many strikes, and a server that announced pipelining is asked one command at a time."""


class Composed(NamedTuple):
    """A mail ready to go. `data` has CRLF lines and ends with one; `smtputf8` when an address is beyond ASCII;
    `dotless` when it is known that no line begins with a dot: to look for one takes longer than to compose the mail.
    `canonical` is what a signature covers, of a mail that is to be signed.
    """

    mail_from: str
    recipient: str
    data: bytes
    message_id: str
    smtputf8: bool = False
    dotless: bool = False
    canonical: Canonical | None = None

    @property
    def wire(self) -> bytes:
        """`data` as DATA wants it, without the final dot."""
        return self.data if self.dotless else stuffed(self.data)


class Ending(NamedTuple):
    """Where a dialogue ended. `code` is None when no usable answer came; `text` is then what happened instead.

    `local` names what we refused ourselves, without asking the relay: it will never be otherwise.
    """

    phase: Phase
    code: int | None
    text: str
    local: str = ""

    @property
    def sent(self) -> bool:
        return self.phase is Phase.DOT and self.code is not None and 200 <= self.code < 300


@dataclass(frozen=True, slots=True)
class Announced:
    """What the server said it can do (EHLO). `size_limit` is 0 when it named none."""

    size: bool = False
    size_limit: int = 0
    smtputf8: bool = False
    pipelining: bool = False

    @classmethod
    def in_reply(cls, extensions: dict[str, str]) -> Self:
        limit = extensions.get("size", "")
        return cls(
            size="size" in extensions,
            size_limit=int(limit) if limit.isascii() and limit.isdigit() else 0,
            smtputf8="smtputf8" in extensions,
            pipelining="pipelining" in extensions,
        )

    def refusal(self, mail: Composed) -> Ending | None:
        """Why this server will never take the mail, as far as its announcement tells."""
        if mail.smtputf8 and not self.smtputf8:
            text = "smtputf8_unsupported: the address is beyond ASCII and the relay does not speak SMTPUTF8 (RFC 6531)"
            return Ending(Phase.MAIL, None, text, local="5.6.7")
        if self.size_limit and len(mail.data) > self.size_limit:
            text = f"message_too_big: {len(mail.data)} octets, the relay takes {self.size_limit} (RFC 1870)"
            return Ending(Phase.MAIL, None, text, local="5.3.4")
        return None

    def envelope(self, mail: Composed) -> tuple[bytes, bytes]:
        """MAIL and RCPT, without their line ends."""
        options = f" SIZE={len(mail.data)}" if self.size else ""
        if mail.smtputf8:
            options += " SMTPUTF8"
        return f"MAIL FROM:<{mail.mail_from}>{options}".encode(), f"RCPT TO:<{mail.recipient}>".encode()


@dataclass(slots=True, eq=False)
class Transaction:
    """One mail on its way through the relay, and the place where its ending will stand.

    `kept` says that the connection that carried it had carried others; `fresh` asks for one that has not.
    """

    mail: Composed
    ended: "asyncio.Future[Ending]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    line: "Line | None" = None
    kept: bool = False
    fresh: bool = False

    def end(self, ending: Ending) -> None:
        """The first ending is the one that counts."""
        if not self.ended.done():
            self.ended.set_result(ending)


class Line(Protocol):
    """One open connection. It tells its pool when it rests and, once, when it is over; then it never speaks again."""

    opened_at: float

    def begin(self, transaction: Transaction) -> None:
        """Carry a mail; only while the line rests."""

    def close(self) -> None:
        """Say QUIT, if anybody listens, and hang up; only while the line rests."""

    def abort(self) -> None:
        """Hang up at once. What was under way ends as if the server had hung up."""


class Pool(Protocol):
    """What a line asks of those who own it."""

    def following(self, line: Line) -> Transaction | None:
        """A mail that may go behind the one whose dot is being written, if one waits."""

    def rests(self, line: Line) -> None:
        """The line may carry another mail, or be closed."""

    def over(self, line: Line, *, strikes: int) -> None:
        """The line is gone. `strikes`, out of `ENOUGH`, say how surely the server cannot take commands in groups."""


def stuffed(data: bytes) -> bytes:
    """Dots doubled at the beginning of lines (RFC 5321, section 4.5.2)."""
    wire = data.replace(b"\r\n.", b"\r\n..") if b"\r\n." in data else data
    return b"." + wire if wire.startswith(b".") else wire


def told(error: BaseException) -> str:
    """An error's words, fit for the ledger."""
    return printable(str(error) or type(error).__name__)
