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
from shared.settings import Settings, load
from standalone.data_directory import DataDirectory
from standalone.databases import database_url
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
