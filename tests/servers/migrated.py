"""Databases at a service's newest version, copied: its migrations run once a run and kind of database, not once a test.

The copies are the same as what the migrations build, which has tests of its own (`integration/migrations`).
"""

import shutil
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import make_url

from shared import migrations
from tests.servers.postgres import create_database
from tests.servers.run import locked, run_directory


def migrated_sqlite(service: str, directory: Path) -> str:
    """A new SQLite file of `service` in `directory`; gives its URL."""
    template = run_directory() / f"{service}.sqlite3"
    with locked(f"{service}-sqlite"):
        if not template.exists():
            unfinished = template.with_suffix(".new")
            migrations.upgrade(_folder(service), f"sqlite:///{unfinished}")
            unfinished.rename(template)
    return f"sqlite:///{shutil.copy(template, directory / template.name)}"


def migrated_postgres(service: str, server_url: str) -> str:
    """A new database of `service` on a server; gives its URL."""
    server = make_url(server_url)
    noted = run_directory() / f"{service}-{server.host}-{server.port}.template"
    with locked(noted.stem):
        if not noted.exists():
            url = create_database(server_url)
            migrations.upgrade(_folder(service), url)
            noted.write_text(make_url(url).database or "")
    return create_database(server_url, template=noted.read_text())


def _folder(service: str) -> Path:
    """Where its migrations are, without importing it."""
    spec = find_spec(service)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "migrations"
