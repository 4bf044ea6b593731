"""docs/reliability.md names tests that are there, and no fault of its groups is without one by its number."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_f\d+_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
}
TABLE = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")


NOT_COVERED = {int(number) for number in re.findall(r"^- F(\d+)[,:]", TABLE, re.MULTILINE)}
"""What the last section of the document owns up to."""


@pytest.mark.parametrize("fault", range(1, 59))
def test_each_fault_has_a_test_and_a_row_or_is_owned_up_to(fault: int) -> None:
    tested = any(re.search(rf"_f{fault}_", name) for name in TESTS)
    assert tested == (f"| F{fault} |" in TABLE)
    assert tested or fault in NOT_COVERED


def test_the_tests_that_the_table_names_are_there() -> None:
    named = set(re.findall(r"`(test_f\d+_\w+)`", TABLE))
    assert named
    assert named <= TESTS


def test_the_files_that_the_documents_name_are_there() -> None:
    for document in ("reliability", "bad-input", "security"):
        page = (ROOT / f"docs/{document}.md").read_text(encoding="utf-8")
        for path in re.findall(r"`(tests/[\w/]+\.py)`", page):
            assert (ROOT / path).exists(), (document, path)
