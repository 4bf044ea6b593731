"""An endpoint's own headers: which may be, and that none of those changes what else the request says."""

from typing import Any

import h11
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator
from pydantic import TypeAdapter, ValidationError

from distributor.webhooks import own_headers
from distributor.webhooks.client import request, taken_apart
from distributor.webhooks.own_headers import OF_THE_CONNECTION, OURS, OwnHeaders, name_fault, repeated, value_fault
from distributor.webhooks.schemas import Headers

TARGET = taken_apart("https://intranat.example:8443/hook?a=1")
SIGNED = {"webhook-id": "d-1", "webhook-timestamp": "1", "webhook-signature": "v1,x", "Content-Type": "text/x"}
BODY = b'{"title":"x"}'
SAID_ONCE = ["host", "user-agent", "accept", "accept-encoding", *map(str.lower, SIGNED), "content-length"]
TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

NAMES = st.one_of(
    st.text(TOKEN, min_size=1, max_size=64),
    st.sampled_from((*OURS, *OF_THE_CONNECTION, "content-length", "webhook-id", "proxy-authorization")),
    st.sampled_from(("Authorization", "X-Api-Key", "Cookie", ":authority", "Content_Length", "Transfer-Encoding ")),
    st.text(max_size=20),
)
VALUES = st.one_of(
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=60),
    st.text("ab \t\r\n\0:;,\"'\x7f\x85\u2028å", max_size=12),
    st.sampled_from(("chunked", "close", "a\r\nContent-Length: 0", "a\r\n\r\nGET / HTTP/1.1", "a\n b")),
)
SCHEMA: dict[str, Any] = TypeAdapter(Headers).json_schema()


def accepted(headers: dict[str, str]) -> bool:
    """What the API decides."""
    try:
        TypeAdapter(Headers).validate_python(headers)
    except ValidationError:
        return False
    return repeated(headers) is None


def heard(said: bytes) -> tuple[h11.Request, bytes, h11.Connection]:
    """A request as another library's server reads it."""
    server, body = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024), b""
    server.receive_data(said)
    asked = server.next_event()
    assert isinstance(asked, h11.Request)
    while isinstance(event := server.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    return asked, body, server


@given(st.dictionaries(NAMES, VALUES, max_size=9))
@example({"Authorization": "Bearer a.b-c", "X-Api-Key": "k" * 2000})
@example({"TE_": "trailers", "Content": "-Length: 0"})
def test_b33_no_accepted_header_changes_what_else_is_said(offered: dict[str, str]) -> None:
    headers: dict[str, str] = {}
    for name, value in offered.items():
        if accepted({**headers, name: value}):
            headers[name] = value
    asked, body, server = heard(request(TARGET, SIGNED, BODY, OwnHeaders.of(headers)))
    assert (asked.method, asked.target, body) == (b"POST", b"/hook?a=1", BODY)
    assert server.trailing_data == (b"", False)
    assert server.their_state is h11.DONE  # neither closed nor changed to another protocol
    arrived = [(name.decode(), value.decode()) for name, value in asked.headers]
    own = [(name, value) for name, value in arrived if name not in SAID_ONCE]
    assert own == [(name.lower(), value) for name, value in headers.items()]
    assert sorted(name for name, _ in arrived if name in SAID_ONCE) == sorted(SAID_ONCE)
    assert dict(arrived)["host"] == "intranat.example:8443"
    assert dict(arrived)["content-length"] == str(len(BODY))


@given(st.dictionaries(NAMES, VALUES, max_size=7))
@example(dict.fromkeys("abcde", "x"))
@example(dict.fromkeys("abcdef", "x"))
@example({"Content-": "x"})
@example({"a" * 64: "x", "b": "y" * 2000})
@example({"a" * 65: "x"})
@example({"a": "y" * 2001})
@example({"a\n": "x", "b": "x\n"})
def test_b33_the_schema_says_the_same_rules(headers: dict[str, str]) -> None:
    """All but one: JSON Schema cannot say that a name stands there once, whatever its case."""
    assume(repeated(headers) is None)
    assert Draft202012Validator(SCHEMA).is_valid(headers) == accepted(headers)


@pytest.mark.parametrize(
    "name", [*OURS, *OF_THE_CONNECTION, "content-length", "content-encoding", "proxy-authorization"]
)
def test_b33_what_is_ours_is_refused_in_every_spelling(name: str) -> None:
    for spelt in (name, name.upper(), name.title(), name.replace("-", "_"), name.title().replace("-", "_")):
        fault = name_fault(spelt)
        assert fault is not None
        assert fault.code == "header_not_allowed"
        assert not accepted({spelt: "x"})


@pytest.mark.parametrize("name", ["", " ", "a b", "a:", ":authority", "å", "a\r\n", "a\nb", "a\0", "a(b)", "a" * 65])
def test_b33_what_is_no_name(name: str) -> None:
    assert name_fault(name) == own_headers.BAD_NAME
    assert not accepted({name: "x"})


@pytest.mark.parametrize("value", ["", " ", " a", "a\t", "a\r\nb: c", "a\r", "\na", "a\0", "å", "a\x7f", "a" * 2001])
def test_b33_what_is_no_value(value: str) -> None:
    assert value_fault(value) == own_headers.BAD_VALUE
    assert not accepted({"X-Api-Key": value})


@pytest.mark.parametrize("names", [("X-Api-Key", "x-api-key"), ("a", "b", "A"), ("X-Api-Key", "X_Api_Key")])
def test_b33_a_name_in_other_case_is_the_same_name(names: tuple[str, ...]) -> None:
    assert repeated(names) == names[-1]
    assert repeated(names[:-1]) is None


def test_what_an_answer_repeats_is_blotted_out() -> None:
    own = OwnHeaders.of({"Authorization": "Bearer hemligt-(1)", "X-Tenant": "nybro", "X-Short": "1"})
    assert own.blotted(b"<p>Bearer hemligt-(1), nybro, 1</p>") == b"<p>[own header], [own header], 1</p>"
    assert own.blotted(b"token hemligt-(1) is unknown; Bearer expected") == (
        b"token [own header] is unknown; Bearer expected"
    )
    assert own.blotted(b"") == b""
    assert OwnHeaders.of({"X-Short": "1"}).blotted(b"1 2 3") == b"1 2 3"
    assert "hemligt" not in repr(own)
