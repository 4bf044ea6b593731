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
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

MIN_RSA_BITS = 2048
DIGEST_OCTETS = 32
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
NAMES = tuple(dict.fromkeys(SIGNED))
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

    @property
    def octets(self) -> int:
        """How long its signatures are."""
        return -(-self.key.key_size // 8) if isinstance(self.key, rsa.RSAPrivateKey) else 64

    def sign(self, digest: bytes) -> bytes:
        """The bare signature over a SHA-256 digest; the same for the same digest with both algorithms."""
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
        return self.key.sign(digest)  # RFC 8463, section 3: Ed25519 over the hash


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


class Draft(NamedTuple):
    """A DKIM-Signature field up to its signature, and the digest that is to be signed."""

    field: bytes
    digest: bytes


class DkimSigner:
    """Signs for one domain with one key of each kind."""

    def __init__(self, domain: str, keys: Sequence[SigningKey]) -> None:
        self._domain = domain
        self._keys = keys
        self._forms: dict[tuple[bytes, ...], tuple[_Form, ...]] = {}

    def sign(self, mail: bytes, at: datetime) -> bytes:
        """`mail` (CRLF, as it goes out) with its DKIM-Signature fields in front."""
        drafts = self.drafts(Canonical.of(mail), at)
        return signed(mail, drafts, [key.sign(draft.digest) for key, draft in zip(self._keys, drafts, strict=True)])

    def drafts(self, mail: Canonical, at: datetime) -> list[Draft]:
        """One for each key. All of a signature but the signing, which costs twenty times as much."""
        fields = mail.fields
        names = tuple(name for name in NAMES if name in fields)
        covered = b"".join(map(fields.__getitem__, names))
        when, body = b"%d" % int(at.timestamp()), b64encode(sha256(mail.body).digest())
        return [
            Draft(form.own.filled(when, body), sha256(covered + form.covered.filled(when, body)).digest())
            for form in self._of(names)
        ]

    def _of(self, names: tuple[bytes, ...]) -> "tuple[_Form, ...]":
        """Our mails have few different sets of header fields."""
        forms = self._forms.get(names)
        if forms is None:
            forms = self._forms[names] = tuple(self._form(key, names) for key in self._keys)
        return forms

    def _form(self, key: SigningKey, names: Sequence[bytes]) -> "_Form":
        listed = ":".join(name.decode() for name in SIGNED if name in names or name in ALWAYS_NAMED)
        before = f"v=1; a={key.algorithm}; c=relaxed/relaxed; d={self._domain}; s={key.selector};\r\n t="
        own = _Open(before.encode(), f";\r\n h={_folded(listed, ':')};\r\n bh=".encode(), b";\r\n b=")
        # RFC 6376, section 3.7: the field itself is hashed last, with an empty b= and without its final CRLF.
        covered = _Open(*(_squeezed(_unfolded(part)) for part in own))
        return _Form(own.named(b"DKIM-Signature: "), covered.named(b"dkim-signature:"))


class _Open(NamedTuple):
    """A signature's field with places for its time and the body's hash."""

    before: bytes
    between: bytes
    after: bytes

    def named(self, name: bytes) -> "_Open":
        return self._replace(before=name + self.before)

    def filled(self, when: bytes, body: bytes) -> bytes:
        return b"".join((self.before, when, self.between, body, self.after))


class _Form(NamedTuple):
    """The field as it goes out, and as it is covered itself."""

    own: _Open
    covered: _Open


def signed(mail: bytes, drafts: Sequence[Draft], signatures: Sequence[bytes]) -> bytes:
    """`mail` with the signatures of its drafts."""
    pairs = zip(drafts, signatures, strict=True)
    return b"".join((*(draft.field + _lines(b64encode(signature)) for draft, signature in pairs), mail))


def relaxed_body(body: bytes) -> bytes:
    """RFC 6376, section 3.4.4."""
    ended = relaxed_lines(body).rstrip(b"\r\n ")
    return ended + b"\r\n" if ended else b""


def relaxed_lines(body: bytes) -> bytes:
    """The same of a part of a body that begins a line."""
    body = _squeezed(body)
    return body.replace(b" \r\n", b"\r\n") if b" \r\n" in body else body


def relaxed_fields(head: bytes) -> dict[bytes, bytes]:
    """Each field's canonical form by its name (RFC 6376, section 3.4.2). We write no field twice."""
    fields = {}
    for line in _squeezed(_unfolded(head)).split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            lowered = name.strip().lower()
            fields[lowered] = b"%b:%b\r\n" % (lowered, value.strip())
    return fields


# Looking first is ten times as fast as substituting: our own mails seldom have anything to squeeze.


def _squeezed(text: bytes) -> bytes:
    return SPACES.sub(b" ", text) if b"  " in text or b"\t" in text else text


def _unfolded(head: bytes) -> bytes:
    return FOLDED.sub(b"", head) if b"\r\n " in head or b"\r\n\t" in head else head


def _folded(listed: str, separator: str) -> str:
    """Break a long list after separators; white space there means nothing (RFC 6376, section 3.2)."""
    lines, line = [], ""
    for part in listed.split(separator):
        if len(line) + len(part) > 60:
            lines.append(line)
            line = ""
        line += part + separator
    return "\r\n  ".join((*lines, line.removesuffix(separator)))


def _lines(signature: bytes) -> bytes:
    return b"\r\n  ".join(signature[start : start + 72] for start in range(0, len(signature), 72)) + b"\r\n"


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
