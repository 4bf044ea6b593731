"""Whether bytes tell of somebody, in whatever dress: as programs write them, send them, log them or keep them."""

import base64
import json
import quopri
import zlib
from collections.abc import Iterable
from urllib.parse import quote

LOOKED_INTO = 4
"""A dress in a dress in a dress: more than that nobody has ever sewn."""


class Telling:
    """`words` are parts of an address or a name that nothing else holds."""

    def __init__(self, *words: str) -> None:
        plain = {form for word in words for form in (word, word.lower(), word.upper(), word.title())}
        self._plain = {needle.lower() for word in plain for needle in _written(word)}
        self._exact = {needle for word in plain for needle in _in_base64(word)}

    def tells(self, value: object) -> bool:
        """Of a cell, a message, a line, a page of a file."""
        raw = value if isinstance(value, bytes) else str(value).encode(errors="replace")
        return self._is_in(raw, LOOKED_INTO)

    def _is_in(self, raw: bytes, deep: int) -> bool:
        lowered = raw.lower()
        if any(needle in lowered for needle in self._plain) or any(needle in raw for needle in self._exact):
            return True
        return deep > 0 and any(self._is_in(inner, deep - 1) for inner in _unpacked(raw))


def _written(word: str) -> Iterable[bytes]:
    """As text in its encodings, in JSON, in an address line, in a mail, in a domain, in hexadecimal."""
    encoded = word.encode()
    yield encoded
    yield word.encode("utf-16-le")
    yield word.encode("latin-1", errors="replace")
    yield json.dumps(word)[1:-1].encode()
    yield quote(word).encode()
    yield quopri.encodestring(encoded)
    yield encoded.hex().encode()
    if not word.isascii():
        yield word.lower().encode("idna")


def _in_base64(word: str) -> Iterable[bytes]:
    """At each of the three places at which a word may begin in it; without the letters that its neighbours share."""
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + word.encode())
        core = coded[(before * 8 + 5) // 6 : (before + len(word.encode())) * 8 // 6]
        yield core
        yield core.replace(b"+", b"-").replace(b"/", b"_")


def _unpacked(raw: bytes) -> Iterable[bytes]:
    """What is compressed, from its beginning: zlib's own frame, or gzip's."""
    if raw[:2] in (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b"):
        try:
            yield zlib.decompressobj(wbits=47).decompress(raw)
        except zlib.error:
            return
