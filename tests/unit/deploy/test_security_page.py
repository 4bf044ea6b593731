"""docs/security.md has one row for each requirement of OWASP ASVS 5.0.0, levels 1 and 2."""

import re
from collections import Counter
from pathlib import Path

PAGE = (Path(__file__).parents[3] / "docs/security.md").read_text(encoding="utf-8")
HIGHEST = """
1.1.2 1.2.9 1.3.11 1.4.3 1.5.2 2.1.3 2.2.3 2.3.4 2.4.1 3.2.2 3.3.4 3.4.6 3.5.5 3.7.2 4.1.3 4.2.1 4.3.2 4.4.4 5.1.1 5.2.3
5.3.2 5.4.3 6.1.3 6.2.12 6.3.4 6.4.4 7.1.3 7.2.4 7.3.2 7.4.5 7.5.2 7.6.2 8.1.2 8.2.3 8.3.1 8.4.1 9.1.3 9.2.4 11.1.2
11.2.3 11.3.3 11.4.4 11.5.1 11.6.1 12.1.3 12.2.2 12.3.4 13.1.1 13.2.5 13.3.2 13.4.5 14.1.2 14.2.4 14.3.3 15.1.3 15.2.3
15.3.7 16.1.1 16.2.5 16.3.4 16.4.3 16.5.3
"""
"""The last of these levels in each section; above it are those of level 3. Sections 6.5 to 6.8, V10 and V17 are named whole."""


def counted(first: str, last: str) -> list[str]:
    section, _, number = first.rpartition(".")
    return [f"{section}.{one}" for one in range(int(number), int(last.rpartition(".")[2]) + 1)]


def test_each_requirement_has_one_row() -> None:
    wanted = {one for last in HIGHEST.split() for one in counted(f"{last.rpartition('.')[0]}.1", last)}
    cells = " ".join(re.findall(r"^\| (\d+\.\d[^|]*)\|", PAGE, re.MULTILINE))
    named = [
        one
        for first, last in re.findall(r"(\d+\.\d+\.\d+)(?:–(\d+\.\d+\.\d+))?", cells)
        for one in counted(first, last or first)
    ]
    assert Counter(named) == Counter(wanted)
