"""docs/privacy.md says of every table what it holds of people: a table that is new fails this until it is named."""

import importlib
import re
from pathlib import Path

import pytest
from tests.integration.migrations.test_migrations import MODELS

from shared.database import plumbing

TEXT = (Path(__file__).parents[3] / "docs/privacy.md").read_text(encoding="utf-8")
EVERY = "each service's"


def named(service: str) -> set[str]:
    """The tables in the first column of the rows that begin with the service, or tell of each."""
    cells = re.findall(rf"^\| ({service}|{EVERY}) ([^|]+) \|", TEXT, re.MULTILINE)
    return {table for _, cell in cells for table in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize("service", MODELS)
def test_every_table_is_named(service: str) -> None:
    modules = [importlib.import_module(name) for name in MODELS[service]]
    tables = set(modules[0].Base.metadata.tables) | set(plumbing.tables)
    assert tables - named(service) == set(), "docs/privacy.md does not say what is in these"
    assert named(service) - tables == set(), "docs/privacy.md tells of what is no table"
