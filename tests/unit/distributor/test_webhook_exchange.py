"""The border to the parser of answers: whatever a server says, in whatever pieces, ends in an answer or in none."""

from collections.abc import Iterable

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributor.webhooks.exchange import MAX_READ, AnswerReader, Broken

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).map(lambda word: f"x-{word}".encode())
VALUE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40).map(str.encode)
HEADERS = st.lists(st.tuples(TOKEN, VALUE), max_size=8)
STATUS = st.integers(200, 599).filter(lambda status: status not in (204, 304))
BODY = st.binary(max_size=3000)
CUTS = st.lists(st.integers(1, 400), max_size=40)
INTERIM = st.lists(st.sampled_from((100, 102, 103)), max_size=3)


def pieces(said: bytes, cuts: Iterable[int]) -> Iterable[bytes]:
    """`said`, cut into pieces of these sizes; the rest comes at once."""
    for cut in cuts:
        if said[:cut]:
            yield said[:cut]
        said = said[cut:]
    if said:
        yield said


def written(
    status: int, headers: list[tuple[bytes, bytes]], body: bytes, *, chunked: bool, interim: list[int]
) -> bytes:
    """An answer as another library writes it."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    while not isinstance(server.next_event(), h11.EndOfMessage):
        pass
    length = (b"transfer-encoding", b"chunked") if chunked else (b"content-length", str(len(body)).encode())
    events: list[h11.Event] = [h11.InformationalResponse(status_code=code, headers=[]) for code in interim]
    events.append(h11.Response(status_code=status, headers=[*headers, length]))
    events += [h11.Data(data=body[at : at + 700]) for at in range(0, len(body), 700)]
    events.append(h11.EndOfMessage())
    return b"".join(server.send(event) or b"" for event in events)


@given(
    st.lists(st.tuples(STATUS, HEADERS, BODY, st.booleans(), INTERIM, st.none() | st.integers(0, 10**6)), max_size=3),
    CUTS,
)
def test_answers_are_read_however_they_are_cut(answers: list[tuple], cuts: list[int]) -> None:  # type: ignore[type-arg]
    reader = AnswerReader()
    for status, headers, body, chunked, interim, wait in answers:
        asked = [] if wait is None else [(b"Retry-After", str(wait).encode())]
        said = written(status, headers + asked, body, chunked=chunked, interim=interim)
        reader.expect()
        ended = [reader.feed(piece) for piece in pieces(said, cuts)]
        assert ended.index(True) == len(ended) - 1
        assert (reader.status, reader.body, reader.whole, reader.reusable) == (status, body, True, True)
        assert reader.retry_after == (None if wait is None else str(wait).encode())


@given(STATUS, BODY, BODY.filter(bool), st.booleans())
def test_what_comes_behind_an_answer_ends_the_line(status: int, body: bytes, more: bytes, chunked: bool) -> None:
    said = written(status, [], body, chunked=chunked, interim=[])
    reader = AnswerReader()
    reader.expect()
    assert reader.feed(said + more)
    assert (reader.status, reader.body) == (status, body)
    assert not reader.reusable or not more.strip(b"\r\n")


@given(STATUS, BODY.filter(bool), st.integers(0, 2999))
def test_a_part_of_an_answer_gives_its_status_and_the_part(status: int, body: bytes, come: int) -> None:
    said = written(status, [], body, chunked=False, interim=[])
    head = len(said) - len(body)
    reader = AnswerReader()
    reader.expect()
    assert not reader.feed(said[: head - 1])
    assert reader.status == 0
    come = min(come, len(body) - 1)
    assert not reader.feed(said[head - 1 : head + come])
    assert (reader.status, reader.body, reader.reusable) == (status, body[:come], False)


MALFORMED = st.one_of(
    st.binary(max_size=4000),
    st.tuples(STATUS, HEADERS, BODY, st.booleans(), st.lists(st.tuples(st.integers(0, 500), st.binary(max_size=3))))
    .map(lambda of: (written(of[0], of[1], of[2], chunked=of[3], interim=[]), of[4]))
    .map(lambda of: spoilt(*of)),
)


def spoilt(said: bytes, faults: list[tuple[int, bytes]]) -> bytes:
    for at, fault in faults:
        said = said[:at] + fault + said[at + 1 :]
    return said


@given(MALFORMED, CUTS, st.integers(1, 200))
def test_nothing_that_a_server_says_is_too_much(said: bytes, cuts: list[int], times: int) -> None:
    """Any octets, any number of times, in any pieces: an end, at most `MAX_READ` of body, and no other error."""
    reader = AnswerReader()
    reader.expect()
    fed = 0
    for piece in pieces(said * times, cuts):
        fed += len(piece)
        try:
            if reader.feed(piece):
                assert 200 <= reader.status <= 999
                break
        except Broken:
            assert not reader.status
            assert not reader.reusable
            break
    else:
        assert fed < MAX_READ
    assert len(reader.body) <= MAX_READ


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000,
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000,
        b"HTTP/1.1 200 " + b"O" * 100_000,
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000,
    ],
    ids=["interim", "headers", "reason", "value"],
)
@pytest.mark.parametrize("size", [1, 1000, 1_000_000])
def test_what_never_comes_to_a_status_is_left_after_64_kb(said: bytes, size: int) -> None:
    reader = AnswerReader()
    reader.expect()
    fed = 0
    with pytest.raises(Broken, match="no end"):
        for at in range(0, len(said), size):
            fed += size
            reader.feed(said[at : at + size])
    assert fed - size < MAX_READ


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nOK!",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nOK",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nOK",
        b"HTTP/1.1 200 OK\r\nx : y\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x00",
        b"HTTP/3.0 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
    ],
)
def test_what_could_be_read_in_two_ways_is_no_answer(said: bytes) -> None:
    reader = AnswerReader()
    reader.expect()
    with pytest.raises(Broken):
        reader.feed(said)
    assert reader.status == 0


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nOK\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\nOK",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOKOK\r\n0\r\n\r\n",
    ],
)
def test_a_body_that_breaks_off_takes_nothing_from_its_status(said: bytes) -> None:
    reader = AnswerReader()
    reader.expect()
    assert reader.feed(said)
    assert (reader.status, reader.reusable) == (200, False)


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    ],
)
def test_a_server_that_will_hang_up_is_not_used_again(said: bytes) -> None:
    reader = AnswerReader()
    reader.expect()
    assert reader.feed(said)
    assert (reader.status, reader.whole, reader.reusable) == (200, True, False)


def test_an_interim_answers_wish_is_not_the_answers() -> None:
    reader = AnswerReader()
    reader.expect()
    said = b"HTTP/1.1 103 Early Hints\r\nRetry-After: 7\r\n\r\nHTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
    assert reader.feed(said)
    assert (reader.status, reader.retry_after) == (503, None)
