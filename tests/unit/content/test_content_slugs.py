"""Addresses made from titles."""

from datetime import date
from uuid import uuid4

import pytest

from content.slugs import candidates, slug_of


@pytest.mark.parametrize(
    ("title", "slug"),
    [
        ("Åtta av tio – i arbete!", "atta-av-tio-i-arbete"),
        ("Västervik & Öland: 100 % fler", "vastervik-oland-100-fler"),
        ("Möte hos Citroën, café Æon", "mote-hos-citroen-cafe-aeon"),
        ("  ../../etc/passwd?x=1#y ", "etc-passwd-x-1-y"),
        ("👍", ""),
        ("ord " * 40, "-".join(["ord"] * 20)),
        ("x" * 100, "x" * 80),
    ],
)
def test_a_slug_is_made_of_plain_words(title, slug):
    assert slug_of(title) == slug


def test_the_last_candidate_is_the_items_own():
    one, two = (list(candidates("👍", date(2026, 11, 22), uuid4())) for _ in range(2))
    assert one[:2] == two[:2] == ["nyhet", "nyhet-2026-11-22"]
    assert one[2] != two[2]
