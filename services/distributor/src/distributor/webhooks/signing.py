"""Signs webhooks by the Standard Webhooks specification, and makes, checks and seals the secrets that sign.

A secret is `whsec_` and the base64 of 24 to 64 random bytes; it signs as `v1`, HMAC-SHA256. An endpoint may have an
Ed25519 key beside it, `whsk_` and the base64 of seed and public key, which signs the same content as `v1a`: whoever
has its public half (`whpk_`) can verify and cannot sign. Both must be readable in order to sign, so they are stored
sealed (Fernet: AES-128-CBC and HMAC-SHA256) with a key derived from the installation's secret keys: the newest seals,
all open. A key may leave that list when every secret sealed under it has been rotated. The values of an endpoint's own
headers are sealed likewise, and written anew likewise.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import binascii
import hmac
import secrets
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from hashlib import sha256

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from distributor.webhooks.models import Algorithm
from distributor.webhooks.own_headers import OwnHeaders

PREFIX = "whsec_"
PRIVATE_PREFIX, PUBLIC_PREFIX = "whsk_", "whpk_"
MIN_BYTES, MAX_BYTES = 24, 64
_SIGN = "[A-Za-z0-9+/]"
SECRET_PATTERN = rf"whsec_({_SIGN}{{4}}){{8,20}}({_SIGN}{{4}}({_SIGN}{{2}}==)?|{_SIGN}{{2}}==|{_SIGN}{{3}}=)?"
"""What a secret looks like: 24 to 64 bytes in groups of three."""
SEED_BYTES = 32
PURPOSE = b"budkavle endpoint secrets v1"
"""Binds the derived key to this use: the same secret keys sign the links in mails."""

KEPT_KEYS = 2048
"""Opened secrets, and as many endpoints' own headers, that are kept in memory: opening one costs as much as sending to
it."""

Signer = Callable[[bytes], str]
"""From the signed content to one signature with its version."""

SealedHeaders = tuple[tuple[str, str], ...]
"""An endpoint's own headers as they are stored: names, and values that are sealed."""


class InvalidSecret(ValueError):
    """The text is no Standard Webhooks secret; the message says why."""


class SecretUnreadable(Exception):
    """A stored secret was sealed under a key that is no longer in the installation's list."""


def new_secret(algorithm: Algorithm = Algorithm.HMAC) -> str:
    """A fresh secret of 256 bits."""
    if algorithm is Algorithm.HMAC:
        return PREFIX + b64encode(secrets.token_bytes(32)).decode()
    key = Ed25519PrivateKey.generate()
    raw = key.private_bytes_raw() + key.public_key().public_bytes_raw()
    return PRIVATE_PREFIX + b64encode(raw).decode()


def key_of(secret: str) -> bytes:
    """The key inside a `whsec_` secret, or `InvalidSecret`."""
    if not secret.startswith(PREFIX):
        raise InvalidSecret(f"A secret begins with {PREFIX}.")
    try:
        key = b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidSecret("What follows the prefix must be base64.") from error
    if not MIN_BYTES <= len(key) <= MAX_BYTES:
        raise InvalidSecret(f"A secret has {MIN_BYTES} to {MAX_BYTES} bytes; this one has {len(key)}.")
    return key


def algorithm_of(secret: str) -> Algorithm:
    """How a secret of ours signs."""
    return Algorithm.ED25519 if secret.startswith(PRIVATE_PREFIX) else Algorithm.HMAC


def public_key_of(secret: str) -> str | None:
    """What verifies a `whsk_` key's signatures, as `whpk_…`; there is none for a `whsec_` secret."""
    if algorithm_of(secret) is Algorithm.HMAC:
        return None
    return PUBLIC_PREFIX + b64encode(_private_key(secret).public_key().public_bytes_raw()).decode()


def digest(secret: str) -> str:
    """What tells two secrets apart without telling either."""
    hashed = key_of(secret) if algorithm_of(secret) is Algorithm.HMAC else secret.encode()
    return sha256(hashed).hexdigest()


def signer(secret: str) -> Signer:
    """Signs by `secret`, which is taken apart once."""
    if algorithm_of(secret) is Algorithm.ED25519:
        private = _private_key(secret)
        return lambda content: f"v1a,{b64encode(private.sign(content)).decode()}"
    key = key_of(secret)
    return lambda content: f"v1,{b64encode(hmac.digest(key, content, 'sha256')).decode()}"


def signed_headers(message_id: str, at: datetime, body: bytes, active: Sequence[Signer]) -> dict[str, str]:
    """The three headers of the specification, with one signature for each active secret, newest first."""
    timestamp = str(int(at.timestamp()))
    content = f"{message_id}.{timestamp}.".encode() + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(sign(content) for sign in active),
    }


class Seal:
    """Closes secrets for the database and opens them again."""

    def __init__(self, secret_keys: Sequence[str]) -> None:
        self._box = MultiFernet([Fernet(_derived(key)) for key in secret_keys])
        self._signers = lru_cache(KEPT_KEYS)(self._signer)
        self._own_headers = lru_cache(KEPT_KEYS)(self._opened)

    def close(self, secret: str) -> str:
        return self._box.encrypt(secret.encode()).decode()

    def open(self, sealed: str) -> str:
        """The secret, or `SecretUnreadable`."""
        try:
            return self._box.decrypt(sealed).decode()
        except InvalidToken as error:
            raise SecretUnreadable from error

    def signer(self, sealed: str) -> Signer:
        """What signs by a sealed secret, or `SecretUnreadable`."""
        return self._signers(sealed)

    def own_headers(self, sealed: SealedHeaders) -> OwnHeaders:
        """What an endpoint's own headers say, or `SecretUnreadable`."""
        return self._own_headers(sealed)

    def _signer(self, sealed: str) -> Signer:
        return signer(self.open(sealed))

    def _opened(self, sealed: SealedHeaders) -> OwnHeaders:
        return OwnHeaders.of({name: self.open(value) for name, value in sealed})


def _private_key(secret: str) -> Ed25519PrivateKey:
    raw = b64decode(secret.removeprefix(PRIVATE_PREFIX))
    return Ed25519PrivateKey.from_private_bytes(raw[:SEED_BYTES])


def _derived(key: str) -> bytes:
    return urlsafe_b64encode(HKDF(SHA256(), 32, salt=None, info=PURPOSE).derive(key.encode()))
