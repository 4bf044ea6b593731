"""Every warning, error and notice that the code can log stands in the runbook, and nothing else does."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
RUNBOOK = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
SOURCES = [*ROOT.glob("services/*/src/**/*.py"), *ROOT.glob("shared/src/**/*.py"), *ROOT.glob("deploy/*/src/**/*.py")]


def logged() -> set[str]:
    events: set[str] = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"info", "warning", "error", "exception"}
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
                and node.args
            ):
                assert isinstance(node.args[0], ast.Constant), f"{source}: the event's name is not static"
                events.add(str(node.args[0].value))
    return events


def test_the_runbook_names_every_event() -> None:
    assert sorted(event for event in logged() if f"`{event}`" not in RUNBOOK) == []


def test_the_runbook_names_no_event_that_is_gone() -> None:
    tables = RUNBOOK.split("## Questions")[0]
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", tables)) - {"correlation_id"}
    assert sorted(named - logged()) == []
