"""A migration that dies half-way leaves nothing behind, and an old database is told by name, on both databases."""

import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from shared import migrations
from shared.database import sync_url
from shared.settings import EXIT_CONFIG

FOLDER = Path(str(files("content"))) / "migrations"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'half.sqlite3'}"
    create: Callable[[], str] = request.getfixturevalue("postgres_database")
    return create()


def tables(url: str) -> set[str]:
    engine = create_engine(sync_url(url))
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def dying(tmp_path: Path) -> Path:
    """The real migrations, but the first one dies when it has made its tables."""
    folder = tmp_path / "migrations"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (first,) = (folder / "versions").glob("0001_*.py")
    module = "\n\n_whole = upgrade\n\n\ndef upgrade():\n    _whole()\n    raise InterruptedError\n"
    first.write_text(first.read_text(encoding="utf-8") + module, encoding="utf-8")
    return folder


def test_a_start_that_died_in_a_migration_can_be_repeated(database_url: str, tmp_path: Path) -> None:
    with pytest.raises(InterruptedError):
        migrations.upgrade(dying(tmp_path), database_url)
    assert tables(database_url) <= {"alembic_version"}
    migrations.upgrade(FOLDER, database_url)
    assert {"items", "outbox", "alembic_version"} <= tables(database_url)
    migrations.upgrade(FOLDER, database_url)


@pytest.mark.parametrize(
    ("change", "lacking"),
    [
        ("ALTER TABLE items RENAME COLUMN slug TO was_slug", "items.slug"),
        ("DROP TABLE outbox", "the table outbox"),
    ],
)
def test_a_database_of_before_the_first_release_is_refused_in_one_line(
    database_url: str, change: str, lacking: str, capsys: pytest.CaptureFixture[str]
) -> None:
    migrations.upgrade(FOLDER, database_url)
    engine = create_engine(sync_url(database_url))
    with engine.begin() as connection:
        connection.execute(text(change))
    engine.dispose()
    with pytest.raises(SystemExit) as ended:
        migrations.upgrade(FOLDER, database_url)
    assert ended.value.code == EXIT_CONFIG
    (line,) = capsys.readouterr().err.splitlines()
    assert f"was made by a version before the first release, and lacks {lacking};" in line
    assert "name a new database" in line
