"""The three services as the standalone deployment knows them: how each is told, built and migrated."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import SecretStr

import content.app
import distributor.app
import subscriptions.app
from content.settings import ContentSettings
from distributor.settings import DistributorSettings
from shared import migrations
from shared.clock import Clock
from shared.service import Service
from shared.settings import Settings, load, refuse
from standalone.data_directory import DataDirectory
from standalone.settings import StandaloneSettings
from subscriptions.settings import SubscriptionsSettings


@dataclass(frozen=True, slots=True)
class Part:
    """One service, not yet built."""

    name: str
    settings: type[Settings]
    build: Callable[[Any, Clock], Service]

    @property
    def migrations(self) -> Path:
        return Path(str(files(self.name))) / "migrations"


PARTS = (
    Part("content", ContentSettings, content.app.build),
    Part("subscriptions", SubscriptionsSettings, subscriptions.app.build),
    Part("distributor", DistributorSettings, distributor.app.build),
)


def database_url(name: str, settings: StandaloneSettings) -> str:
    """Where the service called `name` keeps its data: the database that was named for it, else a file."""
    if settings.database_url:
        refuse(
            "BUDKAVLE_DATABASE_URL: is for one service alone; here each has its own, "
            "BUDKAVLE_CONTENT_DATABASE_URL, BUDKAVLE_SUBSCRIPTIONS_DATABASE_URL, BUDKAVLE_DISTRIBUTOR_DATABASE_URL"
        )
    return settings.named_database(name) or DataDirectory(settings.data_dir).database_url(name)


def migrate(part: Part, settings: StandaloneSettings) -> None:
    """Bring one service's database to the newest version."""
    migrations.upgrade(part.migrations, database_url(part.name, settings))


def told(part: Part, settings: StandaloneSettings, directory: DataDirectory, admin_key: str, **own: Any) -> Settings:
    """The settings of one service: the environment's, with what standalone decided for all three."""
    return load(
        part.settings,
        database_url=database_url(part.name, settings),
        broker_url=settings.broker_url,
        public_url=settings.public_url,
        secret_keys=settings.secret_keys or directory.secret_keys(),
        admin_key=SecretStr(admin_key),
        host=settings.host,
        port=settings.port,
        log_format=settings.log_format,
        **own,
    )
