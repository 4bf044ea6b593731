"""What the standalone deployment is told, and where it keeps what nobody told it.

Everything has a default: `budkavle up` needs no setting at all. A database or a broker of one's own may be named
(`BUDKAVLE_CONTENT_DATABASE_URL` and its sisters, `BUDKAVLE_BROKER_URL`): that is the way out of one file a service.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import NoDecode, SettingsConfigDict

from content.settings import ContentSettings
from distributor.settings import DistributorSettings
from shared.settings import OrganisationSettings
from subscriptions.settings import SubscriptionsSettings

SERVICES = ("content", "subscriptions", "distributor")
NOT_OURS = ("database_url", "retry_scale", "webhook_allow_loopback")
"""Settings of the services that are not for standalone, or for tests alone."""


class StandaloneSettings(OrganisationSettings):
    """Settings of the whole; each service's own are read beside them, from the same environment."""

    # What is empty here is decided at start (the site's address, the files), and so passes for a default.
    model_config = SettingsConfigDict(validate_default=False)

    # Listening to the world is a choice: with the mail catcher on, everybody's mail can be read here.
    host: str = Field(default="127.0.0.1", description="where to listen; 0.0.0.0 for other machines too")
    public_url: str = Field(default="", description="http://localhost:PORT when empty")
    database_url: str = Field(default="", description="not for standalone: three services need three databases")
    broker_url: str = Field(default="", description="the embedded bus in the data directory when empty")
    secret_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(default=(), description="made once when empty")
    log_format: str = Field(default="console", pattern="^(json|console)$", description="json or console")

    data_dir: Path = Field(default=Path("budkavle-data"), description="where everything is kept")
    content_database_url: str = Field(default="", description="a file in the data directory when empty")
    subscriptions_database_url: str = Field(default="", description="a file in the data directory when empty")
    distributor_database_url: str = Field(default="", description="a file in the data directory when empty")
    erased_file: Path | None = Field(
        default=None, description="the list of the erased; in the data directory when empty"
    )
    smtp_url: SecretStr | None = Field(default=None, description="without it, mail is caught and shown at /mailbox")
    mailbox_limit: int = Field(default=5_000, ge=1, description="the newest so many caught mails are kept")
    mailbox_remote: bool = Field(default=False, description="show /mailbox to other machines too")

    def origin(self) -> str:
        """Where readers reach the site, without a slash at the end."""
        return self.public_url or f"http://localhost:{self.port}"

    def named_database(self, service: str) -> str:
        """The database that was named for `service`, or an empty string."""
        url: str = getattr(self, f"{service}_database_url")
        return url


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as a person reads of it."""

    name: str
    default: str
    meaning: str


def listed() -> Iterator[Setting]:
    """Everything that standalone reads from the environment, the whole's own first."""
    services = (ContentSettings, SubscriptionsSettings, DistributorSettings)
    fields = dict(item for kind in (*services, StandaloneSettings) for item in kind.model_fields.items())
    own = [name for name in fields if name in StandaloneSettings.model_fields]
    for name in [*own, *(name for name in fields if name not in own)]:
        if name in NOT_OURS:
            continue
        default = fields[name].default
        plain = default.get_secret_value() if isinstance(default, SecretStr) else default
        shown = "" if plain is None or plain == () else str(plain)
        yield Setting(f"BUDKAVLE_{name.upper()}", shown, fields[name].description or "")
