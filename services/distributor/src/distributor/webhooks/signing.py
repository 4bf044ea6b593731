"""Signs webhooks by the Standard Webhooks specification, and makes, checks and seals the secrets that sign.

A secret is `whsec_` and the base64 of 24 to 64 random bytes. It must be readable in order to sign, so it is stored
sealed (Fernet: AES-128-CBC and HMAC-SHA256) with a key derived from the installation's secret keys: the newest seals,
all open. A key may leave that list when every secret sealed under it has been rotated.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import binascii
import hmac
import secrets
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PREFIX = "whsec_"
MIN_BYTES, MAX_BYTES = 24, 64
PURPOSE = b"budkavle endpoint secrets v1"
"""Binds the derived key to this use: the same secret keys sign the links in mails."""


class InvalidSecret(ValueError):
    """The text is no Standard Webhooks secret; the message says why."""


class SecretUnreadable(Exception):
    """A stored secret was sealed under a key that is no longer in the installation's list."""


def new_secret() -> str:
    """A fresh secret of 256 bits."""
    return PREFIX + b64encode(secrets.token_bytes(32)).decode()


def key_of(secret: str) -> bytes:
    """The key inside a secret, or `InvalidSecret`."""
    if not secret.startswith(PREFIX):
        raise InvalidSecret(f"A secret begins with {PREFIX}.")
    try:
        key = b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidSecret("What follows the prefix must be base64.") from error
    if not MIN_BYTES <= len(key) <= MAX_BYTES:
        raise InvalidSecret(f"A secret has {MIN_BYTES} to {MAX_BYTES} bytes; this one has {len(key)}.")
    return key


def digest(secret: str) -> str:
    """What tells two secrets apart without telling either."""
    return sha256(key_of(secret)).hexdigest()


def signed_headers(message_id: str, at: datetime, body: bytes, active: Sequence[str]) -> dict[str, str]:
    """The three headers of the specification, with one signature for each active secret, newest first."""
    timestamp = str(int(at.timestamp()))
    content = f"{message_id}.{timestamp}.".encode() + body
    signatures = (b64encode(hmac.digest(key_of(secret), content, "sha256")).decode() for secret in active)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


class Seal:
    """Closes secrets for the database and opens them again."""

    def __init__(self, secret_keys: Sequence[str]) -> None:
        self._box = MultiFernet([Fernet(_derived(key)) for key in secret_keys])

    def close(self, secret: str) -> str:
        return self._box.encrypt(secret.encode()).decode()

    def open(self, sealed: str) -> str:
        """The secret, or `SecretUnreadable`."""
        try:
            return self._box.decrypt(sealed).decode()
        except InvalidToken as error:
            raise SecretUnreadable from error


def _derived(key: str) -> bytes:
    return urlsafe_b64encode(HKDF(SHA256(), 32, salt=None, info=PURPOSE).derive(key.encode()))
