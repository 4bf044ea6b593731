"""The documents, `docs/flow.md` before all, lead a newcomer to functions: each must be where they say."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FLOW = (ROOT / "docs/flow.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "deploy/README.md", *(ROOT / "docs").rglob("*.md")]
PLACES = sorted(
    {place for one in DOCUMENTS for place in re.findall(r"`([\w/-]+\.py):(\w+)`", one.read_text(encoding="utf-8"))}
)


def test_the_ten_steps_are_there() -> None:
    assert [row for row in range(1, 11) if f"| {row} |" not in FLOW] == []


@pytest.mark.parametrize(("file", "function"), PLACES)
def test_the_function_is_there(file: str, function: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert function in defined
