"""One connection to a receiver: a request goes out, and an answer is read that is bounded in time and size.

llhttp (by httptools) takes the answer's bytes apart, strictly; what is here decides how much it is given, and what
stands when a server stops halfway, says too much, or says what is no HTTP:

    nothing that is a final status (2xx to 5xx) yet        there is no answer: `Broken`, or `TimeoutError`
    a final status, and a body that goes on, breaks, drips the status stands, with what came of the body
    more than `MAX_READ` octets, interim answers included  the line is hung up; a status that came before stands
    octets that nobody asked for                           the line is hung up

A line that ends in any way but a whole answer is never used again.
"""

import asyncio
from collections.abc import Callable

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

MAX_READ = 64 * 1024
"""Octets of one answer: headers and interim answers (1xx), of which a server may send any number, included."""

REPLY_S = 5.0
"""How long the body of an answer is waited for: the status, which decides, is known by then."""

FIRST_FINAL = 200
RETRY_AFTER = b"retry-after"


class Broken(Exception):
    """No answer came that we understand; the message says what came instead."""


class AnswerReader:
    """Reads one answer after the other from octets as they come; no network here.

    `status` is 0 until a final one is known. `whole`: the answer has ended. `reusable`: another may follow it.
    """

    def __init__(self) -> None:
        self._parser: HttpResponseParser = HttpResponseParser(self)
        self._left = 0
        self._pieces: list[bytes] = []
        self.status = 0
        self.retry_after: bytes | None = None
        self.whole = True
        self.reusable = True

    @property
    def body(self) -> bytes:
        """The first octets of the answer's body, as they came."""
        return b"".join(self._pieces)

    def expect(self) -> None:
        """An answer is asked for."""
        self._left = MAX_READ
        self._pieces = []
        self.status = 0
        self.retry_after = None
        self.whole = self.reusable = False

    def feed(self, data: bytes) -> bool:
        """Take octets in; whether the answer needs no more. Raises `Broken` where there will be none."""
        given = data if len(data) <= self._left else data[: self._left]
        self._left -= len(given)
        try:
            self._parser.feed_data(given)
        except HttpParserUpgrade as error:
            raise Broken("the server changed to another protocol") from error
        except HttpParserError as error:
            self.reusable = False
            if not self.status:
                raise Broken(f"the answer is no HTTP that we understand ({error})") from error
            return True
        if self._left == 0 and not self.whole:
            if not self.status:
                raise Broken("the answer has no end")
            return True
        return self.whole

    # What the parser tells

    def on_message_begin(self) -> None:
        if self.whole:
            raise Broken("an answer to nothing")  # ends the parsing; the answer before it stands
        self.retry_after = None

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status and len(name) == len(RETRY_AFTER) and name.lower() == RETRY_AFTER:
            self.retry_after = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= FIRST_FINAL:
            self.status = status

    def on_body(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        if self.status:
            self.whole = True
            self.reusable = self._parser.should_keep_alive()


class Line(asyncio.Protocol):
    """One connection. It tells `over`, once, when it is gone; one alarm is kept, and looks again when it was early."""

    def __init__(self, over: Callable[["Line"], None]) -> None:
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._reader = AnswerReader()
        self._answered: asyncio.Future[AnswerReader] | None = None
        self._deadline = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._gone = False
        self._transport: asyncio.Transport
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Done when the system has let go of the connection."""

    @property
    def reusable(self) -> bool:
        """Whether another request may go out: the answer before it was whole, and so was what we said."""
        return self._reader.reusable and not self._gone and not self._transport.get_write_buffer_size()

    def ask(self, request: bytes, deadline: float) -> "asyncio.Future[AnswerReader]":
        """Send `request`; the answer, before the loop's time is `deadline`. It holds until the next is asked for."""
        self._answered = self._loop.create_future()
        if self._gone:
            self._answered.set_exception(Broken("the connection was closed without an answer"))
            return self._answered
        self._reader.expect()
        self._ring_by(deadline)
        self._transport.write(request)
        return self._answered

    def rest(self, until: float) -> None:
        """Nothing is asked; hang up at `until`."""
        self._ring_by(until)

    def hang_up(self) -> None:
        """At once. Whoever waits has the status, if there is one."""
        self._leave(Broken("we hung up"))

    # What the system tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._answered is None or self._answered.done():
            self.hang_up()
            return
        try:
            enough = self._reader.feed(data)
        except Broken as error:
            self._leave(error)
            return
        if not enough:
            if self._reader.status:
                self._ring_by(min(self._deadline, self._loop.time() + REPLY_S))
        elif self._reader.reusable:
            self._answered.set_result(self._reader)
        else:
            self.hang_up()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(None)
        self._leave(Broken(f"the connection broke off: {error}" if error else "the connection was closed unanswered"))

    # Time and the end

    def _ring_by(self, deadline: float) -> None:
        self._deadline = deadline
        if self._alarm is None or self._alarm.when() > deadline:
            self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(self._deadline, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._loop.time() < self._deadline:
            self._set_alarm()
        else:
            self._leave(TimeoutError("no answer in time"))

    def _leave(self, why: Exception) -> None:
        if self._gone:
            return
        self._gone = True
        if self._alarm is not None:
            self._alarm.cancel()
        self._transport.abort()
        if self._answered is not None and not self._answered.done():
            if self._reader.status:
                self._answered.set_result(self._reader)
            else:
                self._answered.set_exception(why)
        self._over(self)
