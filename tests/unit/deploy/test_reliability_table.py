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


@pytest.mark.parametrize("fault", range(36, 52))
def test_each_fault_of_groups_e_and_f_has_a_test_and_a_row(fault: int) -> None:
    assert any(name.startswith(f"test_f{fault}_") for name in TESTS)
    assert f"| F{fault} |" in TABLE


def test_the_tests_that_the_table_names_are_there() -> None:
    named = set(re.findall(r"`(test_f\d+_\w+)`", TABLE))
    assert named
    assert named <= TESTS
