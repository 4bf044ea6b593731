"""The search for an erased person sees them in every dress that something of ours, or of those beside us, may put on."""

import base64
import gzip
import json
import zlib
from email.message import EmailMessage
from urllib.parse import quote, urlencode

import pytest
from tests.telling import Telling

ADDRESS = "Frida.Ekmosse@blåbär.example"
FRIDA = Telling("ekmosse", "blåbär")

DRESSES: dict[str, object] = {
    "as typed": ADDRESS,
    "lower-cased": ADDRESS.lower(),
    "upper-cased": ADDRESS.upper(),
    "bytes": ADDRESS.encode(),
    "domain alone": "blåbär.example",
    "latin-1": "blåbär.example".encode("latin-1"),
    "utf-16": ADDRESS.encode("utf-16-le"),
    "idna": "xn--blbr-noae.example",
    "json, escaped": json.dumps({"to": "blåbär.example"}),
    "json in json": json.dumps(json.dumps({"to": "x@blåbär.example"}, ensure_ascii=False)),
    "in a path": quote("blåbär.example"),
    "in a form": urlencode({"email": ADDRESS}),
    "hexadecimal": b"blob:" + ADDRESS.encode().hex().encode(),
    "hexadecimal, upper": ADDRESS.encode().hex().upper(),
    **{f"base64 after {before}": base64.b64encode(b"x" * before + ADDRESS.encode()) for before in range(3)},
    "base64url": base64.urlsafe_b64encode(b">>?" + ADDRESS.lower().encode()),
    "gzip": gzip.compress(f'{{"event":"x","to":"{ADDRESS}"}}\n'.encode()),
    "zlib": zlib.compress(ADDRESS.encode(), 1),
    "base64 in gzip": gzip.compress(base64.b64encode(b"ab" + ADDRESS.encode())),
    "a row": (1, None, ADDRESS),
}


@pytest.mark.parametrize("dress", DRESSES)
def test_it_is_seen(dress: str) -> None:
    assert FRIDA.tells(DRESSES[dress])


def test_a_mail_is_seen_through() -> None:
    mail = EmailMessage()
    mail["Subject"] = "Till blåbär"
    mail.set_content("Hej Frida Ekmosse på blåbär.example!\n", cte="base64")
    assert FRIDA.tells(bytes(mail))


def test_others_are_not_taken_for_her() -> None:
    for other in (b"", "frida@kalmar.example", zlib.compress(b"nobody"), b"\x78\x9c no zlib at all", None, 7):
        assert not FRIDA.tells(other)
