"""What people are found by: cut alike, whether it is kept or typed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subscriptions.office.models import WORD_LENGTH
from subscriptions.office.words import MOST_ASKED, asked_for, words_of


@pytest.mark.parametrize(
    ("name", "address", "words"),
    [
        ("Eva Ek", "eva.ek@kalmar.example", {"eva", "ek", "kalmar", "example"}),
        ("", "red+press@ot.example", {"red", "press", "ot", "example"}),
        (
            "O'Hara, Åsa-Lill",
            "x@xn--blbr-noae.example",
            {"o", "hara", "åsa", "lill", "x", "xn", "blbr", "noae", "blåbär", "example"},
        ),
        ("STRAẞE", "a@xn--x.example", {"strasse", "a", "xn", "x", "example"}),
    ],
)
def test_words(name: str, address: str, words: set[str]) -> None:
    assert words_of(name, address) == words


@given(st.text(max_size=200), st.emails())
def test_whoever_is_typed_in_full_is_found(name: str, address: str) -> None:
    kept = words_of(name, address)
    for typed in (name, address, name.upper()):
        asked = asked_for(typed)
        assert len(asked) <= MOST_ASKED
        assert all(any(word.startswith(begins) for word in kept) for begins in asked)
    assert all(0 < len(word) <= WORD_LENGTH for word in kept)
