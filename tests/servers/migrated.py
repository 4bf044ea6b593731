"""Databases at a service's newest version, copied: its migrations run once a run and kind of database, not once a test.

The copies are the same as what the migrations build, which has tests of its own (`integration/migrations`).
"""

import contextlib
import shutil
from importlib.util import find_spec
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from shared import migrations
from tests.servers.postgres import create_database, plain
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
            login_for(service, url)
            migrations.upgrade(_folder(service), url)
            noted.write_text(make_url(url).database or "")
    return create_database(server_url, template=noted.read_text())


def login_for(service: str, url: str) -> None:
    """As `deploy/docker/postgres` has it: the service's own role reads and writes the rows of tables that another makes."""
    with contextlib.closing(psycopg.connect(plain(url), autocommit=True)) as connection:
        with contextlib.suppress(psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
            connection.execute(f"CREATE ROLE {service} LOGIN PASSWORD '{service}'".encode())
        for rights in ("SELECT, INSERT, UPDATE, DELETE ON TABLES", "USAGE ON SEQUENCES"):
            connection.execute(f"ALTER DEFAULT PRIVILEGES GRANT {rights} TO {service}".encode())


def login(service: str, url: str) -> str:
    """The same database as the service itself opens it."""
    return make_url(url).set(username=service, password=service).render_as_string(hide_password=False)


def _folder(service: str) -> Path:
    """Where its migrations are, without importing it."""
    spec = find_spec(service)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "migrations"
