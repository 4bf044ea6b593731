"""The reader's language, from whatever a browser or a robot sends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.news import Locale
from shared.translations import preferred


@pytest.mark.parametrize(
    ("header", "locale"),
    [
        (None, "sv"),
        ("", "sv"),
        ("*", "sv"),
        ("sv", "sv"),
        ("en", "en"),
        ("en-GB,en;q=0.8,sv;q=0.5", "en"),
        ("sv-SE,sv;q=0.9,en;q=0.8", "sv"),
        ("en, sv", "en"),
        ("sv, en", "sv"),
        ("de, en;q=0.7", "en"),
        ("de-DE, fi", "sv"),
        ("en;q=0, sv;q=0.1", "sv"),
        ("en;q=0", "sv"),
        ("en; q=0.2, sv; q=0.9", "sv"),
        ("EN-us", "en"),
        ("enm, sv;q=0.5", "sv"),
        ("en;q=many, sv;q=0.1", "sv"),
        ("en;q=nan, sv;q=0.1", "sv"),
    ],
)
def test_the_readers_wish_decides_and_swedish_where_there_is_none(header: str | None, locale: str) -> None:
    assert preferred(header) is Locale(locale)


@given(st.text(max_size=200))
def test_no_header_crashes_it(header: str) -> None:
    assert preferred(header) in Locale
