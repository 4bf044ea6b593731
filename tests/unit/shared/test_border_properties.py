"""Whatever a stranger sends: the border answers with a problem or lets it in, and never raises anything else."""

import json
from typing import Any

from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from shared import admission, strict_json
from shared.problems import Problem
from subscriptions.addresses import InvalidAddress, parse

PIECES = st.sampled_from(
    ['{"a":', "1", "}", "[", "]", '"', "\\ud800", "\\u0000", "NaN", "1e999", ",", " ", "å", "-", "9" * 30]
)
HEADERS = st.sampled_from(["host", "content-length", "transfer-encoding", "content-encoding", "accept", "x-y"])


@trials(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.lists(PIECES, max_size=20).map(lambda parts: "".join(parts).encode()))
def test_b1_any_bytes_are_json_with_one_meaning_or_a_problem(body: bytes) -> None:
    try:
        strict_json.check(body)
    except Problem as problem:
        assert problem.status in (400, 422)
        return
    if body:
        json.dumps(json.loads(body), allow_nan=False).encode()  # raises where it is none, or is more than one


@trials(max_examples=300, deadline=None)
@given(st.lists(st.tuples(HEADERS, st.binary(max_size=40)), max_size=8))
def test_b43_any_headers_are_let_in_or_refused(headers: list[tuple[str, bytes]]) -> None:
    scope: dict[str, Any] = {"path": "/api/x", "headers": [(name.encode(), value) for name, value in headers]}
    refused = admission.refusal(scope)
    assert refused is None or refused.status in (400, 406, 415)
    names = [name for name, _ in headers]
    if names.count("host") > 1 or {"content-length", "transfer-encoding"} <= set(names):
        assert refused is not None
        assert refused.status == 400


@trials(max_examples=300, deadline=None)
@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["a", "@", ".", "b.se", "ö", '"', "\r\n", "<", ",", " ", "xn--"]), max_size=12).map(
        "".join
    )
)
def test_b23_any_text_is_an_address_of_one_line_or_refused_with_a_reason(typed: str) -> None:
    try:
        address = parse(typed)
    except InvalidAddress as refused:
        assert refused.message
        assert refused.message_sv
        return
    assert address.text.isprintable()
    assert address.text.count("@") == 1
    assert address.text.rpartition("@")[2].isascii()
    assert parse(address.text) == address, "what we write is what we read"
