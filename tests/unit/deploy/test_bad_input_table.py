"""docs/bad-input.md has a row and a test by its number for each bad input, and names only tests that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_b\d+_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
}
TABLE = (ROOT / "docs/bad-input.md").read_text(encoding="utf-8")
ROWS = {int(number): row for number, row in re.findall(r"^\| B(\d+) (\|.*)$", TABLE, re.MULTILINE)}


@pytest.mark.parametrize("number", range(1, 45))
def test_each_bad_input_has_a_row_that_names_its_tests(number: int) -> None:
    named = re.findall(r"`(test_b\d+_\w+)`", ROWS[number])
    assert any(name.startswith(f"test_b{number}_") for name in named)


def test_the_tests_that_the_table_names_are_there() -> None:
    assert set(re.findall(r"`(test_b\d+_\w+)`", TABLE)) - TESTS == set()


def test_the_security_page_names_only_what_is_there() -> None:
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    every = {name for source in sources for name in re.findall(r"^(?:async )?def (test_\w+)", source, re.MULTILINE)}
    for name in re.findall(r"`(test_\w+)(?:_…)?`", page):
        assert name in every or any(known.startswith(f"{name}_") for known in every), name
