"""API keys: who may call what. Only a key's hash is stored; the key itself is shown once, when it is made.

A key looks like `bk_<id>_<secret>`: the id finds the row, the secret is compared in constant time. A secret has 256
random bits, so a plain SHA-256 is enough; there is nothing to guess.
"""

import hmac
import math
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any

import structlog
from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import Column, Row, RowMapping, String, Table, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database import Instant, plumbing
from shared.problems import Problem
from shared.rates import Rates

log = structlog.get_logger()

api_keys = Table(
    "api_keys",
    plumbing,
    Column("id", String(16), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("secret_sha256", String(64), nullable=False),
    Column("scopes", String(100), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Column("revoked_at", Instant),
)


FROM_SETTINGS = "admin"
"""The id of the key that stands in the settings; it has no row."""


_NAMED = re.compile(r"bk_([0-9a-f]{12})_")


class Scope(StrEnum):
    """What a key may do. `admin` may do everything."""

    READ = "read"
    WRITE = "write"
    PUBLISH = "publish"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls."""

    key_id: str
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes


async def create(session: AsyncSession, *, name: str, scopes: Iterable[Scope], at: datetime) -> str:
    """Make a key and return it. It cannot be shown again."""
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    row = {
        "id": key_id,
        "name": name,
        "secret_sha256": _digest(secret),
        "scopes": " ".join(sorted(scopes)),
        "created_at": at,
    }
    await session.execute(api_keys.insert().values(row))
    return f"bk_{key_id}_{secret}"


def id_named(key: str) -> str:
    """The id that `key` gives as its own; what names none can only be the one of the settings."""
    named = _NAMED.match(key)
    return named[1] if named else FROM_SETTINGS


async def listing(session: AsyncSession) -> list[RowMapping]:
    """All keys, the newest first; their secrets are not known to us."""
    columns = [column for column in api_keys.c if column.name != "secret_sha256"]
    return list((await session.execute(select(*columns).order_by(api_keys.c.created_at.desc()))).mappings())


async def revoke(session: AsyncSession, key_id: str, at: datetime) -> bool:
    """End a key at once; False where there is none that lives."""
    living = (api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
    ended = await session.scalars(update(api_keys).where(*living).values(revoked_at=at).returning(api_keys.c.id))
    return ended.first() is not None


async def verify(session: AsyncSession, key: str, at: datetime) -> Principal | None:
    """The caller behind `key`, or `None`."""
    prefix, _, rest = key.partition("_")
    key_id, _, secret = rest.partition("_")
    if prefix != "bk" or not secret or len(key) > 200 or not key.isascii():
        return None
    row = (await session.execute(select(api_keys).where(api_keys.c.id == key_id))).first()
    stored = row.secret_sha256 if row else "0" * 64
    if not hmac.compare_digest(stored, _digest(secret)):
        return None
    return _principal(row, at)


async def standing(session: AsyncSession, key_id: str, at: datetime) -> Principal | None:
    """What the key with this id may do now; `None` where it is revoked, expired or was never ours."""
    return _principal((await session.execute(select(api_keys).where(api_keys.c.id == key_id))).first(), at)


def _principal(row: Row[Any] | None, at: datetime) -> Principal | None:
    if row is None or row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= at):
        return None
    return Principal(row.id, frozenset(Scope(scope) for scope in row.scopes.split()))


bearer = HTTPBearer(auto_error=False, description="an API key: `bk_…`")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]


def require(scope: Scope) -> object:
    """A dependency that lets a request through when its key has `scope`; it yields the `Principal`."""

    async def authorise(request: Request, credentials: Credentials) -> Principal:
        return await authorised(request, credentials, scope)

    return Depends(authorise)


async def authorised(request: Request, credentials: HTTPAuthorizationCredentials | None, scope: Scope) -> Principal:
    """Who calls, where the key has `scope`; else the Problem that says what is amiss."""
    key = credentials.credentials if credentials else ""
    _keep_to_rate(request.app.state.rates, key)
    principal = await authenticate(request, key)
    if principal is None:
        log.info("key_refused", reason="unknown" if key else "missing")
        raise Problem(401, headers={"WWW-Authenticate": 'Bearer realm="budkavle"'})
    if not principal.may(scope):
        log.warning("key_refused", reason="scope", key_id=principal.key_id, scope=str(scope))
        raise Problem(403, "missing_scope", f"The key needs the scope `{scope}`.")
    return principal


async def authenticate(request: Request, key: str) -> Principal | None:
    """The caller behind `key`, which may be the administrator's of the settings."""
    state = request.app.state
    admin = state.settings.admin_key
    if admin is not None and key and hmac.compare_digest(key.encode(), admin.get_secret_value().encode()):
        return Principal(FROM_SETTINGS, frozenset({Scope.ADMIN}))
    if not key:
        return None
    async with state.database.reading() as session:
        return await verify(session, key, state.clock.now())


def _keep_to_rate(rates: Rates, key: str) -> None:
    """429 where the key is used too often. Counted before it is looked up, so that a flood costs no query."""
    wait_s = rates.wait_s(_digest(key), time.monotonic()) if key else 0.0
    if wait_s:
        limit = f"One key may call {rates.per_second} times a second (requests_per_key)."
        raise Problem(429, detail=limit, headers={"Retry-After": str(math.ceil(wait_s))})


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


Reader = Annotated[Principal, require(Scope.READ)]
Writer = Annotated[Principal, require(Scope.WRITE)]
Publisher = Annotated[Principal, require(Scope.PUBLISH)]
Admin = Annotated[Principal, require(Scope.ADMIN)]
