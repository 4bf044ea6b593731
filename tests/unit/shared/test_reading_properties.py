"""What else a stranger hands us: keys, cookies, cursors, correlation ids. Whatever it is, only the true one opens."""

import asyncio
from datetime import UTC, datetime
from hashlib import sha256
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st
from starlette.requests import Request

from shared import keys, paging
from shared.clock import FixedClock
from shared.correlation import accepted
from shared.problems import Problem
from shared.tokens import Claim, InvalidToken, TokenSigner
from shared.web.visits import CLEAN, Visits

AT = datetime(2026, 11, 29, 8, 0, tzinfo=UTC)
ID, SECRET = "0123456789ab", "s" * 43
KEY = f"bk_{ID}_{SECRET}"
ROW = SimpleNamespace(
    id=ID, secret_sha256=sha256(SECRET.encode()).hexdigest(), scopes="read", revoked_at=None, expires_at=None
)

ANYTHING = st.text(st.characters(codec="latin-1"), max_size=60)


def request(**headers: str) -> Request:
    state = SimpleNamespace(clock=FixedClock(AT))
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw, "app": SimpleNamespace(state=state)})


class OneKey:
    """A database that knows one key."""

    async def execute(self, query: Any) -> Any:
        found = ROW if query.compile().params == {"id_1": ID} else None
        return SimpleNamespace(first=lambda: found)


async def _opens(header: str) -> bool:
    credentials = await keys.bearer(request(authorization=header))
    session: Any = OneKey()
    return credentials is not None and await keys.verify(session, credentials.credentials, AT) is not None


PARTS = st.sampled_from(
    ["Bearer ", "bearer ", "Basic ", "bk", "_", ID, SECRET, SECRET[:-1], KEY, " ", ",", "\0", "\xe5", "="]
)


@trials(max_examples=80, deadline=None)
@given(ANYTHING | st.lists(PARTS, max_size=7).map("".join))
def test_b15_no_other_header_than_the_key_opens(header: str) -> None:
    scheme, _, rest = header.partition(" ")
    assert asyncio.run(_opens(header)) == (scheme.lower() == "bearer" and rest.strip() == KEY)


VISITS = Visits("https://site.example", TokenSigner(["k" * 40]))
MINE, ANOTHERS = Claim(UUID(int=1), 1), Claim(UUID(int=2), 1)
NAME = VISITS.cookie_name("preferences")


def cookie(purpose: str, claim: Claim, began_at: datetime = AT) -> str:
    return VISITS.signer.sign(f"visit:{purpose}", claim._replace(extra=f"{int(began_at.timestamp()):x}:"))


TRUE = f"{NAME}={cookie('preferences', MINE)}"
PLANTED = [
    cookie("preferences", ANOTHERS), f"{NAME[7:]}={cookie('preferences', ANOTHERS)}", f"{NAME}={cookie('data', ANOTHERS)}",
    f"{NAME}={VISITS.signer.sign('preferences', ANOTHERS)}", f"{NAME}={cookie('preferences', ANOTHERS)[:-1]}",
    f"{NAME}={cookie('preferences', ANOTHERS, datetime(2026, 11, 28, 8, 0, tzinfo=UTC))}",
    f"{NAME.upper()}={cookie('preferences', ANOTHERS)}", f'{NAME}="\\073', "=", ";;", '"',
]  # fmt: skip


@trials(max_examples=80, deadline=None)
@given(st.lists(ANYTHING | st.sampled_from([TRUE, *PLANTED]), max_size=5).map("; ".join))
def test_b30_no_cookie_but_ours_shows_whose_page_it_is(header: str) -> None:
    try:
        token = VISITS.token(request(cookie=header), "preferences", CLEAN)
    except InvalidToken:
        return
    assert VISITS.signer.verify("preferences", token) == MINE


@trials(max_examples=80, deadline=None)
@given(st.uuids(), st.text(max_size=30) | st.text("AQgw_-019zZ", min_size=21, max_size=23))
def test_b16_a_cursor_has_one_spelling_and_anything_else_is_refused(key: UUID, typed: str) -> None:
    assert paging.decode(paging.encode(key)) == key
    try:
        found = paging.decode(typed)
    except Problem as problem:
        assert [(fault.pointer, fault.code) for fault in problem.errors] == [("?cursor", "invalid_cursor")]
    else:
        assert found is not None
        assert paging.encode(found) == typed


@trials(max_examples=80, deadline=None)
@given(
    ANYTHING | st.text("aZ09._-\n", max_size=140),
    ANYTHING | st.from_regex("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\n?"),
)
def test_b18_a_callers_ids_are_words_of_a_log_line_or_are_replaced(correlation_id: str, traceparent: str) -> None:
    taken = accepted(correlation_id, traceparent)
    assert all(letter.isascii() and (letter.isalnum() or letter in "._-") for letter in taken.correlation_id)
    assert 0 < len(taken.correlation_id) <= 128
    assert taken.traceparent is None or (taken.traceparent == traceparent and "\n" not in traceparent)


@pytest.mark.soak
@trials(max_examples=20_000, deadline=None)
@given(st.text(st.characters(codec="latin-1"), max_size=300))
def test_b15_no_header_of_any_length_opens(header: str) -> None:
    assert not asyncio.run(_opens(header))
