"""Settings from the environment (prefix `BUDKAVLE_`), read once at start.

A secret may lie in a file instead: with `BUDKAVLE_SECRETS_DIR=/run/secrets`, the file `budkavle_smtp_url` there is
`BUDKAVLE_SMTP_URL`. A wrong value stops the start with one line that names the variable and the mend.
"""

import os
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

S = TypeVar("S", bound="Settings")

EXIT_CONFIG = 78
"""EX_CONFIG of sysexits.h: the settings are wrong, starting again will not help."""

PREFIX = "BUDKAVLE_"
ALIKE = 0.93
"""How alike a wrong name must be to pass for a slip: a letter or two, not another service's setting."""

MIN_SECRET_LENGTH = 32
"""Characters of a signing key: 32 hex digits are the 128 bits below which HMAC-SHA256 is worth less than it says."""


class Settings(BaseSettings):
    """What every service is told."""

    model_config = SettingsConfigDict(env_prefix="BUDKAVLE_", extra="ignore", frozen=True)

    database_url: str = Field(description="postgresql://… or sqlite:///…; each service its own")
    broker_url: str = Field(description="amqp(s)://… or embedded:/path/to/bus.sqlite3")
    public_url: str = Field(default="http://localhost:8080", description="where readers reach the site")
    secret_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(description="comma between; the first signs")
    admin_key: SecretStr | None = Field(default=None, description="accepted as the first admin key")
    requests_per_key: int = Field(
        default=100, ge=0, description="API calls a second with one key, five times that at once; 0 is no limit"
    )
    leave_s: float = Field(
        default=0, ge=0, le=30, description="told to stop: so long not ready and still answering, for a balancer"
    )
    log_format: str = Field(default="json", pattern="^(json|console)$", description="json or console")
    log_level: str = Field(
        default="info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error"
    )
    host: str = Field(default="0.0.0.0", description="where to listen")  # noqa: S104 - a container's all interfaces
    port: int = Field(default=8080, ge=0, le=65535, description="where to answer HTTP")
    trusted_proxies: str = Field(default="", description="addresses whose X-Forwarded-* headers are believed")
    instance: str = Field(default="", description="name of this replica in leases and logs; drawn when empty")

    @field_validator("secret_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("secret_keys")
    @classmethod
    def _strong_keys(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not value:
            raise ValueError("needs at least one key")
        if any(len(key.get_secret_value()) < MIN_SECRET_LENGTH for key in value):
            raise ValueError(f"every key needs at least {MIN_SECRET_LENGTH} characters; try `openssl rand -hex 32`")
        return value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        try:
            backend = make_url(value).get_backend_name()
        except ArgumentError as error:
            raise ValueError("is not a database URL; expected postgresql://… or sqlite:///…") from error
        if backend not in {"postgresql", "sqlite"}:
            raise ValueError("must begin with postgresql:// or sqlite:///")
        return value

    @field_validator("broker_url")
    @classmethod
    def _known_broker(cls, value: str) -> str:
        if not value.startswith(("amqp://", "amqps://", "embedded:")):
            raise ValueError("must begin with amqp://, amqps:// or embedded:")
        if not value.startswith("embedded:"):
            _parted(value)
        return value

    @field_validator("public_url")
    @classmethod
    def _plain_origin(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with https:// (or http:// on your own machine)")
        parts = _parted(value)
        if parts.query or parts.fragment or "@" in parts.netloc or not value.isprintable() or " " in value:
            raise ValueError("is the site's address alone, such as https://nyheter.example")
        if value.startswith("http://") and _is_public(parts.hostname or ""):
            raise ValueError("must begin with https://: links and keys would be read on the way")
        return value.rstrip("/")


class OrganisationSettings(Settings):
    """Who stands behind the pages and the mails: on both, the reader is told where to find the organisation."""

    organisation: str = Field(
        default="Samordningsförbundet i Kalmar län", min_length=1, description="its name on pages and in mails"
    )
    postal_address: str = Field(default="", description="in the footer of pages and mails; one line")
    contact_email: str = Field(default="", description="where readers can write; on pages and in mails")
    contact_phone: str = Field(default="", description="where readers can call; on pages and in mails")
    facebook_url: str = Field(default="", description="the organisation's Facebook page")

    @field_validator("facebook_url")
    @classmethod
    def _web_address(cls, value: str) -> str:
        if value and not value.startswith("https://"):
            raise ValueError("must begin with https://")
        return value


def load(kind: type[S], **overrides: Any) -> S:
    """Read the settings, or end the process with one clear line (exit status 78)."""
    misspelt = list(_misspelt(kind))
    try:
        settings = kind(_secrets_dir=_secrets_dir(), **overrides)
    except ValidationError as error:
        refuse(*misspelt, *(_complaint(detail) for detail in error.errors()))
    if misspelt:
        refuse(*misspelt)
    return settings


def refuse(*complaints: str) -> NoReturn:
    """End the process: the settings are wrong."""
    sys.stderr.write("budkavle cannot start: " + "; ".join(complaints) + "\n")
    raise SystemExit(EXIT_CONFIG)


def _misspelt(kind: type[Settings]) -> Iterator[str]:
    """Names in the environment that nobody reads and that look like one of ours. Others are left alone: one `.env`
    serves all services, and each knows its own settings only.
    """
    known = {f"{PREFIX}{name.upper()}" for name in kind.model_fields}
    for name in sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known):
        for meant in get_close_matches(name, known, n=1, cutoff=ALIKE):
            yield f"{name}: there is no such setting; did you mean {meant}?"


def _parted(url: str) -> SplitResult:
    """What is wrong with it is told without it: a password may stand there."""
    try:
        parts = urlsplit(url)
        is_whole = parts.port != 0 and bool(parts.hostname)
    except ValueError:
        is_whole = False
    if not is_whole:
        raise ValueError("is not an address that can be read; check its host and port")
    return parts


def _is_public(host: str) -> bool:
    """Whether a name could be found on the internet: it has a dot, and is no address or name of a network's own."""
    own = host.endswith((".localhost", ".local", ".internal"))
    return "." in host and not own and not host.replace(".", "").isdigit()


def _complaint(detail: Any) -> str:
    name = "BUDKAVLE_" + "_".join(str(part) for part in detail["loc"][:1]).upper()
    message = "is missing" if detail["type"] == "missing" else detail["msg"].removeprefix("Value error, ")
    return f"{name}: {message}"


def _secrets_dir() -> Path | None:
    folder = os.environ.get("BUDKAVLE_SECRETS_DIR")
    return Path(folder) if folder else None
