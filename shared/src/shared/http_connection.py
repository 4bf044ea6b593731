"""One HTTP/1.1 connection: uvicorn's, that waits only so long for a slow client and takes no folded header.

Uvicorn ends a connection that is idle between two requests, and waits for ever for whoever has begun one. Here a head
must be whole within the time, a body must come on at a modem's speed at least, and an answer must be read. Who is
slower is cut off: nothing of what it sent was acted on, for no request is handed on before its head is whole, and no
body is used before its end.
"""

import asyncio
import re
from enum import Enum, auto

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from shared.http import SECURITY_HEADERS
from shared.problems import Problem, response

TICKS = 10
"""So many looks a limit: the cut comes between nine tenths of it and the whole."""
OCTETS_PER_S = 1_000
FOLDED = re.compile(rb"\n[ \t]")
END_OF_HEAD = re.compile(rb"\n\r?\n")


class Owes(Enum):
    """What a connection waits for from its client."""

    NOTHING = auto()
    HEAD = auto()
    BODY = auto()
    READING = auto()


class Connection(H11Protocol):
    """Uvicorn's protocol, with a watch over it. `limit_s` is set by a subclass (`patient`)."""

    limit_s = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head = b""
        self._octets = self._resumed = 0
        self._owed: object = None
        self._since = self.loop.time()
        self._watch = self.loop.call_later(self.limit_s / TICKS, self._look)

    def data_received(self, data: bytes) -> None:
        self._octets += len(data)
        if self.conn.their_state is h11.IDLE:
            self._head += data
            if FOLDED.search(END_OF_HEAD.split(self._head, 1)[0]):
                self.send_400_response("A header is folded over two lines.")
                return
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._head = b""

    def resume_writing(self) -> None:
        self._resumed += 1
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """A problem like every other error."""
        answer = response(Problem(400, "malformed_request", msg))
        answer.headers.update(SECURITY_HEADERS)
        headers = [*answer.raw_headers, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _look(self) -> None:
        now, owed = self.loop.time(), self._owes()
        key = (owed, id(self.cycle), self._resumed)
        is_wanted = owed is Owes.BODY and not self.cycle.response_complete
        moves = is_wanted and self._octets >= OCTETS_PER_S * self.limit_s
        if key != self._owed or moves or owed is Owes.NOTHING:
            self._owed, self._since, self._octets = key, (self._since if self._owed is None else now), 0
        elif now - self._since >= self.limit_s * (1 - 1 / TICKS):
            self.transport.abort()
            return
        self._watch = self.loop.call_later(self.limit_s / TICKS, self._look)

    def _owes(self) -> Owes:
        if self.transport.is_closing() or self.flow.write_paused:
            return Owes.READING
        if self.conn.their_state is h11.SEND_BODY:
            return Owes.NOTHING if self.flow.read_paused else Owes.BODY
        is_new = self.cycle is None
        return Owes.HEAD if self.conn.their_state is h11.IDLE and (is_new or self._head) else Owes.NOTHING


def patient(limit_s: float) -> type[Connection]:
    """The protocol, waiting so long for each thing that a client owes."""
    return type("PatientConnection", (Connection,), {"limit_s": limit_s})
