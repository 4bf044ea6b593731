"""A process that signs and does nothing else: `signing` starts it and speaks to it on its standard input, a socket.

    in      each key: its length in four octets, and itself (PKCS #8, DER); four octets of zero
    in      a mail's SHA-256 digests, one for each key
    out     as many signatures, in the same order

It ends when the socket does, and hears no signal that ends a whole group: see `signing`.
"""

import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import cycle
from typing import BinaryIO

from cryptography.hazmat.primitives.serialization import load_der_private_key

from distributor.mail.dkim import DIGEST_OCTETS, PrivateKey, SigningKey

TOGETHER = 4
"""Signatures that are answered with at once: a millisecond of work."""


def main() -> None:
    """Sign until nobody asks any more."""
    with suppress(ConnectionError), socket.socket(fileno=0) as line, line.makefile("rb") as asked:
        keys = [SigningKey("", key) for key in _keys(asked)]
        mail = DIGEST_OCTETS * len(keys)
        while ready := len(asked.peek()):
            digests = asked.read(mail * max(1, min(ready // mail, TOGETHER)))
            line.sendall(b"".join(_signatures(keys, digests)))


def _signatures(keys: Sequence[SigningKey], digests: bytes) -> Iterator[bytes]:
    starts = range(0, len(digests) - DIGEST_OCTETS + 1, DIGEST_OCTETS)  # less than a digest: nobody asks any more
    for start, key in zip(starts, cycle(keys), strict=False):
        yield key.sign(digests[start : start + DIGEST_OCTETS])


def _keys(asked: BinaryIO) -> Iterator[PrivateKey]:
    while octets := int.from_bytes(asked.read(4)):
        yield load_der_private_key(asked.read(octets), password=None)  # type: ignore[misc]


if __name__ == "__main__":
    main()
