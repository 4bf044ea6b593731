"""Signs mails (DKIM): the relay's job where it does that, ours where it does not.

Relaxed/relaxed canonicalisation, RSA-SHA256, and Ed25519-SHA256 beside it where a key for it is given. The signed
fields name `From` once more than there are, so that nobody can add one; List-Unsubscribe and List-Unsubscribe-Post are
covered, as RFC 8058 asks. The signature's time is the mail's own, so that a repeat is byte-identical.

Keys come from files, `selector=/path/to/key.pem`, the first of each kind signs. To rotate, publish the new selector in
the DNS, put it first, and take the old one out of the DNS a week later.

Sources: RFC 6376, RFC 8463 (Ed25519), RFC 8301 (at least 1,024 bits; we ask for 2,048).
"""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Self

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

MIN_RSA_BITS = 2048
SELECTOR = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")
SIGNED = (
    b"from",
    b"from",  # once more than there are: a second From would break the signature
    b"to",
    b"subject",
    b"date",
    b"message-id",
    b"reply-to",
    b"in-reply-to",
    b"references",
    b"mime-version",
    b"content-type",
    b"content-language",
    b"auto-submitted",
    b"list-id",
    b"list-unsubscribe",
    b"list-unsubscribe-post",
)
ALWAYS_NAMED = frozenset({b"from", b"to", b"subject", b"reply-to"})
"""Named even where absent, so that none can be added on the way."""

SPACES = re.compile(rb"[ \t]+")
FOLDED = re.compile(rb"\r\n(?=[ \t])")


class InvalidKey(ValueError):
    """A signing key cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, and the selector under which the DNS has its other half."""

    selector: str
    key: PrivateKey

    @property
    def algorithm(self) -> str:
        return "rsa-sha256" if isinstance(self.key, rsa.RSAPrivateKey) else "ed25519-sha256"

    def sign(self, data: bytes) -> bytes:
        """The bare signature; the same for the same data with both algorithms."""
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return self.key.sign(sha256(data).digest())  # RFC 8463, section 3: Ed25519 over the hash


def parse_keys(setting: str) -> tuple[SigningKey, ...]:
    """Read `selector=path, selector=path`; raises InvalidKey."""
    keys = tuple(_read_key(part.strip()) for part in setting.split(",") if part.strip())
    first_of_kind = {key.algorithm: key for key in reversed(keys)}
    return tuple(key for key in keys if first_of_kind[key.algorithm] is key)


class Canonical(NamedTuple):
    """A mail as signatures cover it: header fields by name, and the body."""

    fields: Mapping[bytes, bytes]
    body: bytes

    @classmethod
    def of(cls, mail: bytes) -> Self:
        head, _, body = mail.partition(b"\r\n\r\n")
        return cls(relaxed_fields(head), relaxed_body(body))


class DkimSigner:
    """Signs for one domain with one key of each kind."""

    def __init__(self, domain: str, keys: Sequence[SigningKey]) -> None:
        self._domain = domain
        self._keys = keys

    def sign(self, mail: bytes, at: datetime, canonical: Canonical | None = None) -> bytes:
        """`mail` (CRLF, as it goes out) with its DKIM-Signature fields in front. May run in any thread. Whoever knows
        its canonical form saves us to find it, a third of a signature's time.
        """
        fields, body = canonical or Canonical.of(mail)
        body_hash = b64encode(sha256(body).digest()).decode()
        names = [name for name in SIGNED if name in fields or name in ALWAYS_NAMED]
        signed = b"".join(fields[name] for name in dict.fromkeys(names) if name in fields)
        return b"".join((*(self._field(key, names, signed, body_hash, at) for key in self._keys), mail))

    def _field(self, key: SigningKey, names: Sequence[bytes], signed: bytes, body_hash: str, at: datetime) -> bytes:
        listed = ":".join(name.decode() for name in names)
        value = (
            f"v=1; a={key.algorithm}; c=relaxed/relaxed; d={self._domain}; s={key.selector};\r\n"
            f" t={int(at.timestamp())};\r\n h={_folded(listed, ':')};\r\n bh={body_hash};\r\n b="
        )
        # RFC 6376, section 3.7: the field itself is hashed last, with an empty b= and without its final CRLF.
        own = b"dkim-signature:" + SPACES.sub(b" ", FOLDED.sub(b"", value.encode())).strip()
        signature = b64encode(key.sign(signed + own)).decode()
        return f"DKIM-Signature: {value}{_lines(signature)}\r\n".encode()


def relaxed_body(body: bytes) -> bytes:
    """RFC 6376, section 3.4.4."""
    ended = relaxed_lines(body).rstrip(b"\r\n ")
    return ended + b"\r\n" if ended else b""


def relaxed_lines(body: bytes) -> bytes:
    """The same of a part of a body that begins a line."""
    # Looking first is ten times as fast as substituting: our own mails seldom have anything to squeeze.
    if b"\t" in body or b"  " in body:
        body = SPACES.sub(b" ", body)
    if b" \r\n" in body:
        body = body.replace(b" \r\n", b"\r\n")
    return body


def relaxed_fields(head: bytes) -> dict[bytes, bytes]:
    """Each field's canonical form by its name (RFC 6376, section 3.4.2). We write no field twice."""
    fields = {}
    for line in FOLDED.sub(b"", head).split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            lowered = name.strip().lower()
            fields[lowered] = lowered + b":" + SPACES.sub(b" ", value).strip() + b"\r\n"
    return fields


def _folded(listed: str, separator: str) -> str:
    """Break a long list after separators; white space there means nothing (RFC 6376, section 3.2)."""
    lines, line = [], ""
    for part in listed.split(separator):
        if len(line) + len(part) > 60:
            lines.append(line)
            line = ""
        line += part + separator
    return "\r\n  ".join((*lines, line.removesuffix(separator)))


def _lines(signature: str) -> str:
    return "\r\n  ".join(signature[start : start + 72] for start in range(0, len(signature), 72))


def _read_key(part: str) -> SigningKey:
    selector, equals, path = part.partition("=")
    if not equals or not SELECTOR.fullmatch(selector):
        raise InvalidKey("must be like `selector=/path/to/private.pem`")
    try:
        key = serialization.load_pem_private_key(Path(path).read_bytes(), password=None)
    except OSError as error:
        raise InvalidKey(f"the key of selector {selector} cannot be read") from error
    except (ValueError, TypeError) as error:
        raise InvalidKey(f"the key of selector {selector} is no unencrypted PEM private key") from error
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= MIN_RSA_BITS:
        return SigningKey(selector, key)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return SigningKey(selector, key)
    raise InvalidKey(f"the key of selector {selector} must be RSA with {MIN_RSA_BITS} bits or more, or Ed25519")
