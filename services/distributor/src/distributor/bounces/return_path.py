"""Where a delivery's bounce comes back to: a return path of its own (VERP), signed, so that a forged one does nothing.

`studs@forbundet.example` becomes `studs+<token>@forbundet.example`. The token is the key's id, the delivery's id and a
MAC (HMAC-SHA256 bound to this purpose, cut to 80 bits: it is only ever checked by us, one guess a mail) in base32, so
that it outlives servers that write addresses in lower or upper case. It is found wherever it stands: relays rewrite
return paths (SRS, BATV), and a report may quote it only in the mail that it returns.

Keys rotate as those of links do: signed with the newest, verified with all.
"""

import hmac
import re
from base64 import b32decode, b32encode
from collections.abc import Iterator, Sequence
from hashlib import sha256
from uuid import UUID

KID_BYTES = 4
ID_BYTES = 16
MAC_BYTES = 10
TOKEN_LENGTH = 48
"""Characters of base32 for the 30 bytes: no padding, so one spelling for one token."""
LONGEST_LOCAL_PART = 64
"""Octets: RFC 5321, section 4.5.3.1.1."""
TOKEN = re.compile(rf"(?<![A-Za-z2-7])[A-Za-z2-7]{{{TOKEN_LENGTH}}}(?![A-Za-z2-7])")
MOST_CANDIDATES = 50
PURPOSE = b"return-path\0"


class ReturnPaths:
    """Makes return paths under `address`, and knows its own again."""

    def __init__(self, address: str, keys: Sequence[str]) -> None:
        self._local, _, self._domain = address.rpartition("@")
        self._keys = {_kid(key): key.encode() for key in keys}
        self._newest = _kid(keys[0])

    def of(self, delivery_id: UUID) -> str:
        """The envelope sender of a delivery; the same on every repeat until the keys rotate."""
        token = self._newest + delivery_id.bytes + _mac(self._keys[self._newest], delivery_id.bytes)
        return f"{self._local}+{b32encode(token).decode().lower()}@{self._domain}"

    def delivery_in(self, text: str) -> UUID | None:
        """The delivery of the first genuine token in `text`."""
        return next((key for key in map(self._verified, _candidates(text)) if key is not None), None)

    def takes(self, recipient: str) -> bool:
        """Whether a mail to `recipient` is ours to read: the bare address, or one with a genuine token."""
        local, _, domain = recipient.rpartition("@")
        if domain.lower() != self._domain.lower():
            return False
        return local.lower() == self._local.lower() or self.delivery_in(local) is not None

    def _verified(self, token: str) -> UUID | None:
        raw = b32decode(token.upper())
        kid, payload, mac = raw[:KID_BYTES], raw[KID_BYTES:-MAC_BYTES], raw[-MAC_BYTES:]
        key = self._keys.get(kid)
        genuine = hmac.compare_digest(_mac(key or b"\0" * 32, payload), mac)
        return UUID(bytes=payload) if genuine and key is not None else None


def fits(address: str) -> bool:
    """Whether a token has room in the local part."""
    return len(address.rpartition("@")[0]) + 1 + TOKEN_LENGTH <= LONGEST_LOCAL_PART


def _candidates(text: str) -> Iterator[str]:
    for number, found in enumerate(TOKEN.finditer(text)):
        if number == MOST_CANDIDATES:
            return
        yield found[0]


def _kid(key: str) -> bytes:
    return sha256(b"budkavle-return-path:" + key.encode()).digest()[:KID_BYTES]


def _mac(key: bytes, payload: bytes) -> bytes:
    return hmac.digest(key, PURPOSE + payload, "sha256")[:MAC_BYTES]
