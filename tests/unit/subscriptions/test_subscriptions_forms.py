"""Forms as browsers and mail providers post them, and as nobody should: read back the same, or as nothing."""

import asyncio
from time import monotonic
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import httpx2
import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st
from starlette.requests import Request

from shared.problems import Problem
from subscriptions.web.office.door import within
from subscriptions.web.posting import MAX_FIELDS, read_form, texts

SITE = "https://site.example/kansli"
FIELDS = st.lists(
    st.tuples(
        st.sampled_from(["topics", "address", "List-Unsubscribe"]), st.text(st.characters(codec="utf-8"), max_size=30)
    ),
    max_size=8,
)
KINDS = st.sampled_from([
    "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "multipart/form-data", "text/plain", "",
    "multipart/form-data; boundary=", "application/x-www-form-urlencoded; charset=utf-16", "multipart/mixed; boundary=x",
    *(f"multipart/form-data; boundary=x; charset={codec}" for codec in ("unicode_escape", "punycode", "undefined", "utf-16")),
])  # fmt: skip
PLACES = [
    "/", "//", "\\", "kansli", "..", ".", "evil.example", ":", "@", "?", "#", "\t", "\r\n", "%2f", "https", "[", "\u2100",
]  # fmt: skip
PIECES = st.sampled_from([
    b"--x", b"--", b"\r\n", b'Content-Disposition: form-data; name="topics"', b'; filename="a"', b"a=b", b"&", b"%", b"%ff", b"\0",
    b"Content-Transfer-Encoding: base64", b"charset", b"\\ud800", b"_charset_=utf-7", b"a" * 300,
])  # fmt: skip


def posted(body: bytes, kind: str) -> Request:
    parts = iter([body[:7], body[7:]])

    async def receive() -> dict[str, Any]:
        part = next(parts, None)
        return {"type": "http.request", "body": part or b"", "more_body": part is not None}

    return Request({"type": "http", "app": None, "headers": [(b"content-type", kind.encode())]}, receive)


@trials(max_examples=60, deadline=None)
@given(FIELDS)
def test_b21_what_is_posted_in_either_form_is_read_back(fields: list[tuple[str, str]]) -> None:
    multipart = httpx2.Request("POST", SITE, files=[(name, (None, value)) for name, value in fields])
    kind = multipart.headers.get("content-type", "multipart/form-data; boundary=x")
    for body, said in ((urlencode(fields).encode(), "application/x-www-form-urlencoded"), (multipart.read(), kind)):
        assert asyncio.run(read_form(posted(body, said))).multi_items() == fields


@pytest.mark.parametrize(
    "codec",
    ["unicode_escape", "raw-unicode-escape", "punycode", "idna", "undefined", "utf-7", "utf-16", "none-of-these", '"'],
)
def test_b27_a_form_is_utf_8_whatever_it_says_of_itself(codec: str) -> None:
    fields = [("address", "\\ud800 åäö"), ("topics", "xn--" + "a" * 50_000)]
    multipart = httpx2.Request("POST", SITE, files=[(name, (None, value)) for name, value in fields])
    said = f"{multipart.headers['content-type']}; charset={codec}"
    began = monotonic()
    assert asyncio.run(read_form(posted(multipart.read(), said))).multi_items() == fields
    assert monotonic() - began < 0.2  # some codecs took seconds


@pytest.mark.parametrize("asked", ["//[", "http://[::1", "/kansli]//[", "//\u2100", "http://\u2100/kansli"])
def test_b30_an_address_that_cannot_be_read_leads_to_the_first_page(asked: str) -> None:
    assert within(asked) == "/kansli"


@trials(max_examples=120, deadline=None)
@given(st.binary(max_size=200) | st.lists(PIECES, max_size=20).map(b"".join), KINDS)
def test_b27_any_bytes_are_a_form_of_texts_or_none(body: bytes, kind: str) -> None:
    try:
        form = asyncio.run(read_form(posted(body, kind)))
    except Problem as problem:
        assert problem.status == 413
        return
    assert len(form.multi_items()) <= max(MAX_FIELDS, len(body))
    for name in form:
        assert all("\0" not in text and len(text.encode()) <= 3 * len(body) for text in texts(form, name))


@trials(max_examples=150, deadline=None)
@given(st.text(max_size=30) | st.lists(st.sampled_from(PLACES), max_size=8).map("".join))
def test_b30_wherever_one_asks_to_be_led_it_is_within_the_office(asked: str) -> None:
    led = urlsplit(urljoin(SITE, within(asked)))
    assert (led.scheme, led.netloc) == ("https", "site.example")
    assert (led.path + "/").startswith("/kansli/")
