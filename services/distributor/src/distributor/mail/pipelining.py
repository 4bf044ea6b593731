"""The fast lane: several commands in one write, on servers that offer PIPELINING (RFC 2920).

aiosmtplib has opened the connection: greeting, EHLO, TLS and AUTH are behind us. From here on the transport speaks to
the protocol below, and a mail costs one round trip:

    we write                                the server answers
    MAIL a, RCPT a, DATA                    250, 250, 354
    text of a, dot, MAIL b, RCPT b, DATA    250 (a is sent), 250, 250, 354
    text of b, dot, …

DATA stays the last of its group, and a text may be the first of the next (RFC 2920, section 3.1). `_asked` holds what
was asked and not answered, in order, and answers come in that order: whatever happens to the line, each mail's ending
follows from where it stands in there.

    nothing of it was asked, or MAIL, RCPT or DATA unanswered     not sent
    MAIL, RCPT, DATA or the dot refused                           rejected, with the code of the first refusal
    its dot answered by a 2xx                                     sent
    its dot written, and no answer that can be understood         uncertain: one mail a line at most

A text is written only after its own 354, and 354 must be the last thing heard: an answer too many is never taken for
the one to the dot. Where the recipient was refused and DATA was answered by 354 all the same, a lone dot ends it, and
the refusal stands. Behind a dot that is slow in coming no other mail is made to wait.

A server that answers what was not asked, in words that are none, without end, with 503 to a proper group, or falls
silent amid one, has lost count: the line is cut, and the pool goes on one command at a time. Nothing here raises for
what a server does, and of its words only the three digits decide.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum, auto

from distributor.mail.dialogue import ENOUGH, GO_AHEAD, ONE_WRITE, Announced, Ending, Pool, Transaction
from distributor.mail.replies import BAD_COMMANDS, SERVICE_CLOSING, Phase, printable

MAX_REPLY_OCTETS = 65_536
"""Of one answer, all its lines together; a real one has a few hundred."""

SLOW_DOT_S = 1.0
"""A server that takes longer to say yes to a mail gets the next one when it has."""


CODES = {b"%d" % code: code for code in range(200, 600)}
"""By the three digits of an answer."""


class Asked(Enum):
    """What the server owes an answer to."""

    RSET = auto()
    MAIL = auto()
    RCPT = auto()
    DATA = auto()
    DOT = auto()
    LONE_DOT = auto()


MAIL, RCPT, DATA, DOT = Asked.MAIL, Asked.RCPT, Asked.DATA, Asked.DOT
PHASE_OF = {
    Asked.RSET: Phase.MAIL,
    Asked.MAIL: Phase.MAIL,
    Asked.RCPT: Phase.RCPT,
    Asked.DATA: Phase.DATA,
    Asked.DOT: Phase.DOT,
    Asked.LONE_DOT: Phase.DATA,
}


class PipelinedLine(asyncio.Protocol):
    """One connection; see `dialogue.Line`. Times in seconds, each for the next answer."""

    def __init__(self, pool: Pool, announced: Announced, *, timeout_s: float, dot_timeout_s: float) -> None:
        self._pool = pool
        self._announced = announced
        self._timeout_s = timeout_s
        self._dot_timeout_s = dot_timeout_s
        self._loop = asyncio.get_running_loop()
        self._asked: deque[tuple[Asked, Transaction]] = deque()
        self._long: Transaction | None = None  # its text is written, its dot waits until the system has taken all
        self._unfinished = False  # the server has an envelope open that needs RSET
        self._rest = b""
        self._lines: list[bytes] = []
        self._lines_octets = 0
        self._deadline = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._dot_at = 0.0
        self._carried = 0
        self._gone = self._paused = self._slow = False
        self.opened_at = self._loop.time()
        self._transport: asyncio.Transport

    def take_over(self, transport: asyncio.Transport) -> None:
        """Speak on `transport` from now on; it is open, and the server waits for MAIL."""
        self._transport = transport
        transport.set_protocol(self)

    def begin(self, transaction: Transaction) -> None:
        if opening := self._opening(transaction):
            self._transport.write(opening)
            self._await()
        else:
            self._loop.call_soon(self._pool.rests, self)

    def close(self) -> None:
        self._transport.write(b"QUIT\r\n")
        self._leave(self._transport.close)

    def abort(self) -> None:
        self._break("we hung up")

    # What the system tells

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        left, owed = len(lines), self._owed()
        for line in lines:
            left -= 1
            self._line(line, last=not left and not self._rest)
            if self._gone:
                return
        if self._owed() is not owed:  # a line that says more will follow is no answer, and earns no time
            self._await()
        if self._lines_octets + len(self._rest) > MAX_REPLY_OCTETS:
            self._break("unintelligible: an answer without end", strikes=ENOUGH)
        elif not self._asked and self._long is None:
            if self._rest or self._lines:
                self._break("unintelligible: an answer to nothing", strikes=ENOUGH)
            else:
                self._pool.rests(self)

    def connection_lost(self, error: Exception | None) -> None:
        # A server that hangs up on groups does so on the first; one lost line may be the network's doing.
        self._break(str(error or "Connection lost"), strikes=int(self._carried == 1 and self._amid_group()))

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if (waiting := self._long) is not None:
            self._long = None
            self._end_text(b"", waiting)
            self._await()

    # Answers

    def _line(self, line: bytes, *, last: bool) -> None:
        line = line.removesuffix(b"\r")
        code, mark = CODES.get(line[:3], 0), line[3:4]
        fit = code and mark in (b" ", b"-", b"")
        if not fit or (self._lines and self._lines[-1][:3] != line[:3]):
            self._break(f"unintelligible: {line[:200].decode(errors='replace')}", strikes=ENOUGH)
            return
        if mark == b"-":
            self._lines.append(line)
            self._lines_octets += len(line)
            if self._lines_octets > MAX_REPLY_OCTETS:
                self._break("unintelligible: an answer without end", strikes=ENOUGH)
            return
        text = line[4:]
        if self._lines:
            text = b"\n".join(each[4:] for each in (*self._lines, line))
            self._lines = []
            self._lines_octets = 0
        if not self._asked:
            self._unasked(code, text.decode(errors="replace"))
        elif code >= 300 or self._asked[0][0] in (DATA, DOT):
            self._heard(code, text.decode(errors="replace"), last=last)
        else:  # yes, and nobody asks for the words
            self._asked.popleft()

    def _heard(self, code: int, text: str, *, last: bool) -> None:
        """A refusal, the leave to write a text, or the end of a mail."""
        asked, transaction = self._asked[0]
        if 300 <= code < 400 and asked is not DATA:
            self._break(f"unintelligible: {code} to {asked.name}", strikes=ENOUGH)
            return
        self._asked.popleft()
        if code == SERVICE_CLOSING:
            transaction.end(Ending(PHASE_OF[asked], code, text))
            self._break(f"the server closed the connection: {code} {text}")
        elif asked is DATA:
            self._to_data(transaction, code, text, last=last)
        elif asked is DOT:
            self._slow = self._loop.time() - self._dot_at > SLOW_DOT_S
            transaction.end(Ending(Phase.DOT, code, text))
        elif asked is not Asked.LONE_DOT:
            transaction.end(Ending(PHASE_OF[asked], code, text))
            if asked is Asked.RSET:
                self._break(f"no new start: {code} {text}")

    def _to_data(self, transaction: Transaction, code: int, text: str, *, last: bool) -> None:
        refused_before = transaction.ended.done()
        if code != GO_AHEAD:
            self._unfinished = True
            transaction.end(Ending(Phase.DATA, code, text))
            if code in BAD_COMMANDS and not refused_before:
                self._break(f"{code} to a group in order", strikes=ENOUGH)
        elif not last:
            why = printable(f"unintelligible: more than one answer, first {code} {text}")
            transaction.end(Ending(Phase.DATA, None, why))
            self._break(why, strikes=ENOUGH)
        elif refused_before:
            self._unfinished = True
            self._asked.append((Asked.LONE_DOT, transaction))
            self._transport.write(b".\r\n")
        else:
            self._hand_over(transaction)

    def _unasked(self, code: int, text: str) -> None:
        if self._long is not None:
            self._long.end(Ending(Phase.DATA, code, text))  # it broke in; without its dot the mail is not sent
            self._break(f"refused before its end: {code} {text}")
        else:  # a goodbye is none of our doing, whatever else is
            self._break(f"unasked: {code} {text}", strikes=0 if code == SERVICE_CLOSING else ENOUGH)

    # Questions

    def _opening(self, transaction: Transaction) -> bytes:
        """The group that begins a mail, noted as asked; empty when this server will never take it."""
        mail = transaction.mail
        if (refusal := self._announced.refusal(mail)) is not None:
            transaction.end(refusal)
            return b""
        transaction.kept = self._carried > 0
        self._carried += 1
        group = b"%b\r\n%b\r\nDATA\r\n" % self._announced.envelope(mail)
        if self._unfinished:
            self._unfinished = False
            self._asked.append((Asked.RSET, transaction))
            group = b"RSET\r\n" + group
        self._asked += ((MAIL, transaction), (RCPT, transaction), (DATA, transaction))
        return group

    def _hand_over(self, transaction: Transaction) -> None:
        """Write the text. As long as its dot is unwritten, nothing was delivered."""
        wire = transaction.mail.wire
        if len(wire) <= ONE_WRITE:
            self._end_text(wire, transaction)
            return
        self._long = transaction
        self._transport.write(wire)
        if not self._paused and self._long is not None:
            self._long = None
            self._end_text(b"", transaction)

    def _end_text(self, wire: bytes, transaction: Transaction) -> None:
        self._asked.append((DOT, transaction))
        self._dot_at = self._loop.time()
        self._transport.write(b"".join((wire, b".\r\n", b"" if self._slow else self._next_opening())))

    def _next_opening(self) -> bytes:
        while (following := self._pool.following(self)) is not None:
            if opening := self._opening(following):
                return opening
        return b""

    # Time and the end

    def _await(self) -> None:
        """The next answer has its own time. One alarm is kept, and looks again when it was early."""
        dot = bool(self._asked) and self._asked[0][0] is DOT
        self._deadline = self._loop.time() + (self._dot_timeout_s if dot else self._timeout_s)
        if self._alarm is None or self._alarm.when() > self._deadline:
            self._ring_at_deadline()

    def _ring_at_deadline(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(self._deadline, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if not self._asked and self._long is None:
            return
        if self._loop.time() < self._deadline:
            self._ring_at_deadline()
        else:
            self._break("Timed out waiting for server response", strikes=ENOUGH if self._amid_group() else 0)

    def _break(self, why: str, *, strikes: int = 0) -> None:
        """Cut the line. Every mail on it ends where it stands."""
        if self._gone:
            return
        why = printable(why)
        if self._long is not None:
            self._long.end(Ending(Phase.DATA, None, why))
        for asked, transaction in self._asked:
            transaction.end(Ending(PHASE_OF[asked], None, why))
        self._leave(self._transport.abort, strikes=strikes)

    def _leave(self, hang_up: Callable[[], None], *, strikes: int = 0) -> None:
        self._gone = True
        if self._alarm is not None:
            self._alarm.cancel()
        hang_up()
        self._pool.over(self, strikes=strikes)

    def _owed(self) -> tuple[Asked, Transaction] | None:
        """What the server answers next."""
        return self._asked[0] if self._asked else None

    def _amid_group(self) -> bool:
        return bool(self._asked) and self._asked[0][0] in (RCPT, DATA)
