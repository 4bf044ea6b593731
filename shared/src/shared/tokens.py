"""Links in mails: deterministic tokens that carry an opaque id and a generation, never an address.

A token names the key that signed it (`kid`), so that links survive key rotation for as long as the old key stays in
the list; retiring a key ends its links, and raising a subscriber's generation ends that person's. A token is bound to
its purpose: the one of a one-click link opens no preference page.

The layout is `<kid>.<payload>.<mac>`, each part base64url; the MAC is HMAC-SHA256 over purpose and payload, cut to
128 bits (RFC 2104, section 5).
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID

MAC_BYTES = 16
MAX_TOKEN_LENGTH = 200


class InvalidToken(Exception):
    """The token was not signed by us for this purpose, or its key has been retired."""


class Claim(NamedTuple):
    """What a token says."""

    subject: UUID
    generation: int
    extra: str = ""


class TokenSigner:
    """Signs with the newest key, verifies with all."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = {_kid(key): key.encode() for key in keys}
        self._newest = _kid(keys[0])

    def sign(self, purpose: str, claim: Claim) -> str:
        """The token for `claim`; the same claim always gives the same token."""
        payload = claim.subject.bytes + claim.generation.to_bytes(4, "big") + claim.extra.encode()
        mac = _mac(self._keys[self._newest], purpose, payload)
        return f"{self._newest}.{_encode(payload)}.{_encode(mac)}"

    def verify(self, purpose: str, token: str) -> Claim:
        """The claim, or `InvalidToken`, in a time that does not depend on what is wrong with the token's MAC."""
        kid, payload, mac = _split(token)
        key = self._keys.get(kid)
        expected = _mac(key or b"\0" * 32, purpose, payload)
        if not hmac.compare_digest(expected, mac) or key is None:
            raise InvalidToken
        try:
            return Claim(UUID(bytes=payload[:16]), int.from_bytes(payload[16:20], "big"), payload[20:].decode())
        except ValueError as error:
            raise InvalidToken from error


def _split(token: str) -> tuple[str, bytes, bytes]:
    parts = token.split(".") if len(token) <= MAX_TOKEN_LENGTH else []
    if len(parts) != 3:
        raise InvalidToken
    return parts[0], _decode(parts[1]), _decode(parts[2])


def _kid(key: str) -> str:
    return _encode(sha256(b"budkavle-kid:" + key.encode()).digest()[:4])


def _mac(key: bytes, purpose: str, payload: bytes) -> bytes:
    """Begun once for each purpose: to begin takes longer than the rest."""
    begun = _begun(key, purpose).copy()
    begun.update(payload)
    return begun.digest()[:MAC_BYTES]


@lru_cache
def _begun(key: bytes, purpose: str) -> hmac.HMAC:
    return hmac.new(key, purpose.encode() + b"\0", "sha256")


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (Base64Error, ValueError) as error:
        raise InvalidToken from error
    if _encode(raw) != text:  # one spelling for one token: base64 has loose variants
        raise InvalidToken
    return raw
