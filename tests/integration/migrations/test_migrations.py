"""The migrations build what the models say, on both databases, and running them twice changes nothing."""

import importlib
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from shared import migrations
from shared.database import plumbing, sync_url

MODELS = {
    "content": ("content.models", "content.attachments.models"),
    "subscriptions": (
        "subscriptions.models",
        "subscriptions.rolls.models",
        "subscriptions.desks.models",
        "subscriptions.tasks.models",
        "subscriptions.groups.models",
        "subscriptions.office.models",
        "subscriptions.imports.models",
        "subscriptions.weeding_log",
    ),
    "distributor": ("distributor.models", "distributor.bounces.models", "distributor.webhooks.models"),
}


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/service.sqlite3"
    url: str = request.getfixturevalue("postgres_database")()
    return url


@pytest.mark.parametrize("service", MODELS)
def test_migrations_agree_with_models(service: str, empty_database: str) -> None:
    modules = [importlib.import_module(name) for name in MODELS[service]]
    folder = Path(importlib.import_module(service).__file__ or "").parent / "migrations"
    migrations.upgrade(folder, empty_database)
    migrations.upgrade(folder, empty_database)
    engine = create_engine(sync_url(empty_database))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = [
            difference
            for difference in compare_metadata(context, [modules[0].Base.metadata, plumbing])
            if not (isinstance(difference, tuple) and difference[0] == "remove_table")
        ]
    engine.dispose()
    assert differences == []
