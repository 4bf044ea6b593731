"""MIME, as much of it as a report needs, within bounds that no sender can move.

The standard library's parser is faithful, recursive, and takes seconds for what a hostile mail can hold. This one cuts
first: `MOST_BYTES` of the beginning, at most `MOST_PARTS` parts, `DEEPEST` levels, `LONGEST_HEADER` octets a header. It
never raises. What it does not understand it hands on as text, since a broken report is still a report.
"""

import re
from binascii import Error as EncodingError
from binascii import a2b_base64, a2b_qp
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.errors import HeaderParseError
from email.header import decode_header

MOST_BYTES = 160_000
"""What a server has to say stands before the mail that it returns; the longest real report seen has 60 kB."""
MOST_PARTS = 40
DEEPEST = 8
LONGEST_HEADER = 40_000
"""Exchange Online writes 20 kB of its own."""
LONGEST_FIELD = 2_000

FIELD = re.compile(r"^([!-9;-~]{1,76})[ \t]*:[ \t]?(.*)$")
BOUNDARY = re.compile(r"""boundary\s*=\s*(?:"([^"\r\n]{1,200})"|([^\s;"]{1,200}))""", re.IGNORECASE)
CHARSET = re.compile(r"""charset\s*=\s*["']?([\w.:-]{1,40})""", re.IGNORECASE)
KNOWN_CHARSETS = re.compile(r"utf|iso|windows|cp\d|koi|big5|gb|hz|euc|shift|sjis|ks_c|tis|latin|us-ascii|ascii|mac")
"""Python knows codecs that are no charsets, and some of those take quadratic time (punycode)."""
NO_TEXT = re.compile("[\\0\\ud800-\\udfff]")
"""What a database refuses as text: NUL, and halves of pairs, which UTF-7 can write. No report may wait for ever."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BLANK_LINES = re.compile(rb"(?:[ \t]*\n)+")
"""Before the first header: mailboxes and exports put them there, and a header must not be taken for a body."""
UNIVERSAL = {"", "us-ascii", "ascii", "unknown-8bit", "unknown", "x-unknown", "default", "iso-8859-1", "latin1"}
"""Charsets that are named when nobody knows: UTF-8 is tried first."""


@dataclass(frozen=True, slots=True)
class Part:
    """A leaf, or a message within the message. `path` says what it lies in, outermost first."""

    headers: "Headers"
    kind: str
    body: bytes
    path: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The body in characters, whatever its encodings claim."""
        return decoded(self.body, self.headers)


@dataclass(frozen=True, slots=True)
class Headers:
    """Fields in order; asked for in any case, decoded (RFC 2047)."""

    fields: tuple[tuple[str, str], ...] = field(default=())

    def get(self, name: str) -> str:
        """The first field of that name, or nothing."""
        return next((value for key, value in self.fields if key == name), "")

    def all(self, *names: str) -> Iterator[str]:
        """All fields of any of these names."""
        return (value for key, value in self.fields if key in names)


def parts_of(raw: bytes) -> tuple[Headers, list[Part]]:
    """The top headers and the leaves, in order. Messages within are leaves; `inner` opens one."""
    source = raw[:MOST_BYTES].replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\0", b"")
    headers, body = split(_from_the_first_line(source))
    return headers, _leaves(headers, body)


def _from_the_first_line(source: bytes) -> bytes:
    source = source.removeprefix(BYTE_ORDER_MARK)
    blank = BLANK_LINES.match(source)
    return source[blank.end() :] if blank else source


def inner(part: Part) -> tuple[Headers, list[Part]]:
    """What a message/rfc822 part holds."""
    headers, body = split(_from_the_first_line(_unpacked(part.body, part.headers)))
    return headers, _leaves(headers, body)


def _leaves(headers: Headers, body: bytes) -> list[Part]:
    leaves: list[Part] = []
    waiting = [(headers, body, ())]
    seen = 0
    while waiting and seen < MOST_PARTS:
        seen += 1
        own, content, path = waiting.pop()
        kind = _kind(own)
        boundary = _boundary(own)
        children = _children(content, boundary) if boundary and len(path) < DEEPEST else []
        if kind.startswith("multipart/") and children:
            waiting += [(*split(child), (*path, kind)) for child in reversed(children)]  # type: ignore[misc]
        else:
            leaves.append(Part(own, "text/plain" if kind.startswith("multipart/") else kind, content, path))
    return leaves


def split(source: bytes) -> tuple[Headers, bytes]:
    """Headers and body. Without an empty line, or with no header at the top, everything is body."""
    if source.startswith(b"\n"):
        return Headers(), source[1:]
    first = source.split(b"\n", 1)[0]
    if not FIELD.match(_in_charset(first, "")) and not first.startswith(b"From "):
        return Headers(), source
    head, _, body = source.partition(b"\n\n")
    return parse_fields(_in_charset(head[:LONGEST_HEADER], "")), body


def parse_fields(text: str) -> Headers:
    """Header-like lines; anything else between them is passed over."""
    fields: list[tuple[str, list[str]]] = []
    for line in text.split("\n"):
        found = FIELD.match(line)
        if found:
            fields.append((found[1].lower(), [found[2]]))
        elif line[:1] in {" ", "\t"} and fields:
            fields[-1][1].append(line.strip())
    return Headers(tuple((name, unfolded(values)) for name, values in fields))


def unfolded(values: list[str]) -> str:
    """One field's value in characters."""
    value = " ".join(values)[:LONGEST_FIELD].strip()
    if "=?" not in value:
        return value
    try:
        return "".join(
            piece if isinstance(piece, str) else _in_charset(piece, charset or "ascii")
            for piece, charset in decode_header(value)
        )
    except (HeaderParseError, ValueError, LookupError):
        return value


def decoded(body: bytes, headers: Headers) -> str:
    """A body in characters."""
    charset = CHARSET.search(headers.get("content-type"))
    return _in_charset(_unpacked(body, headers), charset[1] if charset else "")


def _unpacked(body: bytes, headers: Headers) -> bytes:
    encoding = headers.get("content-transfer-encoding").lower().strip()
    try:
        if encoding == "base64":
            return a2b_base64(body)
        if encoding == "quoted-printable":
            return a2b_qp(body)
    except (EncodingError, ValueError):
        return body
    return body


def _in_charset(data: bytes, charset: str) -> str:
    name = charset.lower()
    strange = name in UNIVERSAL or not KNOWN_CHARSETS.match(name)
    tries: tuple[str, ...] = ("utf-8", "cp1252") if strange else (name, "utf-8")
    if strange and b"\x1b$" in data:  # ISO-2022-JP is seven bits, and often does not say what it is
        tries = ("iso-2022-jp", *tries)
    for attempt in tries:
        try:
            return NO_TEXT.sub("", data.decode(attempt))
        except (UnicodeError, LookupError, ValueError):
            continue
    return NO_TEXT.sub("", data.decode("latin-1"))


def _kind(headers: Headers) -> str:
    kind = headers.get("content-type").split(";", 1)[0].strip().lower()
    return kind if "/" in kind else "text/plain"


def _boundary(headers: Headers) -> bytes:
    found = BOUNDARY.search(headers.get("content-type"))
    return (found[1] or found[2]).encode("utf-8", "replace") if found else b""


def _children(body: bytes, boundary: bytes) -> list[bytes]:
    """The bodies between boundary lines; a missing end is forgiven."""
    pieces = re.split(rb"(?:^|\n)--" + re.escape(boundary) + rb"(--)?[ \t]*(?=\n|$)", body, maxsplit=MOST_PARTS)
    children: list[bytes] = []
    for at in range(1, len(pieces) - 1, 2):
        if pieces[at] == b"--":
            break
        children.append(pieces[at + 1].removeprefix(b"\n"))
    return children
