"""What can be attached, and what is said of a file that was looked through: the words of `examining` and `examiner`.

The service itself loads no decoder, and its examiner nothing of the service; both load this.
"""

from dataclasses import dataclass

PDF, JPEG, PNG = "application/pdf", "image/jpeg", "image/png"

MAX_PIXELS = 30_000_000
"""More than a page of a newspaper at 300 dots an inch has. A decoder takes four octets for each."""


class Refused(Exception):
    """The file is not taken. The message is a stable code."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What is kept of a file: its bytes and, of an image, its size in pixels."""

    content: bytes
    width: int | None = None
    height: int | None = None
