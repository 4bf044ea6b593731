"""The moments at which faults strike: certain bytes on one of a service's links, for the n-th time.

The bytes are those of the protocols themselves, so the product needs no hooks: PostgreSQL's simple queries and their
answers, AMQP 0-9-1 methods (class and number), SMTP's words, HTTP's status line. `of(n)` gives the n-th: sweeping n
goes through every crash point there is.
"""

from dataclasses import dataclass, replace
from typing import Literal

from tests.servers.proxy import Direction

Link = Literal["database", "broker", "mail", "intranet"]


@dataclass(frozen=True)
class Moment:
    """Before these bytes pass (or `after`) for the n-th time."""

    name: str
    link: Link
    pattern: bytes
    direction: Direction = "there"
    after: bool = False
    nth: int = 1

    def of(self, nth: int) -> "Moment":
        return replace(self, nth=nth)

    def __str__(self) -> str:
        return f"{self.name} {self.nth}"


def _method(number: int) -> bytes:
    """A method of AMQP's class 60 (basic), as it stands in a frame."""
    return bytes((0, 60, 0, number))


BEFORE_COMMIT = Moment("before the commit", "database", b"COMMIT\0")
AFTER_COMMIT = Moment("after the commit", "database", b"COMMIT\0", "back")

BEFORE_PUBLISH = Moment("before the publication", "broker", _method(40))
BEFORE_CONFIRM = Moment("before the confirm", "broker", _method(80), "back")
BEFORE_ACK = Moment("before the acknowledgement", "broker", _method(80))
AFTER_ACK = Moment("after the acknowledgement", "broker", _method(80), after=True)
ON_DELIVERY = Moment("on a message's delivery", "broker", _method(60), "back")

ON_MAIL = Moment("at MAIL", "mail", b"MAIL FROM:")
ON_RCPT = Moment("at RCPT", "mail", b"RCPT TO:")
ON_DATA = Moment("at DATA", "mail", b"DATA\r\n")
IN_TEXT = Moment("amid the text", "mail", b"Content-Transfer-Encoding:")
ON_DOT = Moment("at the final dot", "mail", b"\r\n.\r\n")
ON_250 = Moment("before the 250 of the dot", "mail", b"250 2.0.0 Ok: queued", "back")

BEFORE_REQUEST = Moment("before a webhook", "intranet", b"POST /")
IN_HEADERS = Moment("amid a webhook's headers", "intranet", b"webhook-signature")
IN_BODY = Moment("amid a webhook's body", "intranet", b'"body_html"')
BEFORE_ANSWER = Moment("before a webhook's answer", "intranet", b"HTTP/1.1 2", "back")
IN_ANSWER = Moment("amid a webhook's answer", "intranet", b"HTTP/1.1 2", "back", after=True)

MOMENTS = {str(value): value for value in tuple(vars().values()) if isinstance(value, Moment)}
"""Each for the first time."""
