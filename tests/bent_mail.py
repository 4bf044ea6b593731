"""Real-shaped mails, bent: what gateways, broken programs and enemies make of a report, one small act after another."""

from base64 import encodebytes
from collections.abc import Callable
from random import Random

CHARSETS = (
    b"utf-8 utf-7 utf-16 utf-32 idna punycode rot13 hz iso-2022-kr iso-2022-jp big5 gbk koi8-r cp037 none".split()
)
ENCODINGS = [b"base64", b"quoted-printable", b"8bit", b"x-uuencode", b"BASE64 ", b'"base64"', b"7bit; x"]
POISON = [
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\x1b$B\x1b(B",
    b"\r",
    b"\n\n",
    b"+2AA-",
    b"=?utf-7?q?=2B2AA-?=",
    b"=?utf-16?b?2AA=?=",
    b"=?x?q?=?=",
    b"=?utf-8?b?4pi?=",
    b"=E2=80",
    "٥.١.١".encode(),
    "\u202e".encode(),
    b"-" * 5000,
    b"(" * 500,
    b"a@" * 500,
    b"<" * 2000,
    b'boundary="',
]
FIELDS = [
    b"Status: 5.1.1.1",
    b"Status: =?utf-7?q?5=2E1=2E1+2AA-?=",
    b"Reporting-MTA: dns; +2AA-\0",
    b"Content-Type: message/rfc822",
    b"Content-Type: multipart/report; boundary=x",
    b"Content-Type: message/delivery-status; charset=utf-7",
    b"Content-Type: message/feedback-report",
    b"Message-ID: +2AA-",
    b"Action",
    b"Final-Recipient: rfc822;",
    b"Feedback-Type: abuse",
]


def bent(raw: bytes, random: Random, most_acts: int = 6) -> bytes:
    """`raw` after one to `most_acts` acts."""
    for _ in range(random.randint(1, most_acts)):
        raw = random.choice(ACTS)(raw, random)
    return raw


def _lines(raw: bytes, random: Random) -> bytes:
    """One line gone, doubled, moved, cut or folded."""
    lines = raw.split(b"\n")
    at, to = random.randrange(len(lines)), random.randrange(len(lines))
    line = lines[at]
    cut = random.randrange(len(line) + 1)
    lines[at : at + 1] = random.choice([[], [line, line], [lines[to]], [line[:cut]], [line[:cut], b"\t" + line[cut:]]])
    return b"\n".join(lines)


def _bytes(raw: bytes, random: Random) -> bytes:
    at = random.randrange(len(raw) + 1)
    return raw[:at] + random.choice([*POISON, random.randbytes(4)]) + raw[at + random.randrange(4) :]


def _field(raw: bytes, random: Random) -> bytes:
    lines = raw.split(b"\n")
    lines.insert(random.randrange(len(lines)), random.choice(FIELDS))
    return b"\n".join(lines)


def _charset(raw: bytes, random: Random) -> bytes:
    name = random.choice(CHARSETS)
    return raw.replace(b"us-ascii", name).replace(b"utf-8", name)


def _encoding(raw: bytes, random: Random) -> bytes:
    return raw.replace(b"\n\n", b"\nContent-Transfer-Encoding: " + random.choice(ENCODINGS) + b"\n\n", 2)


def _parts(raw: bytes, random: Random) -> bytes:
    """Boundaries that are not there, not ended, or not the same."""
    before, after = random.choice([(b"--\n", b"\n"), (b"\n--", b"\n-"), (b"boundary=", b"x="), (b'="', b"=")])
    return raw.replace(before, after)


def _wrapped(raw: bytes, random: Random) -> bytes:
    if random.random() < 0.5:
        return b"Content-Type: message/rfc822\n\n" + raw
    return b"Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\n" + encodebytes(raw)


def _cut(raw: bytes, random: Random) -> bytes:
    at = random.randrange(len(raw) + 1)
    return random.choice([raw[:at], raw[at:]])


def _line_ends(raw: bytes, random: Random) -> bytes:
    return raw.replace(b"\n", random.choice([b"\r\n", b"\r", b"\n\n", b"\r\r\n", b"\n \n"]))


ACTS: list[Callable[[bytes, Random], bytes]] = [
    *(_lines, _lines, _bytes, _bytes, _field, _field),
    *(_charset, _encoding, _parts, _wrapped, _cut, _line_ends),
]
