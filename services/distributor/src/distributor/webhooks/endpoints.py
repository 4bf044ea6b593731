"""Endpoints: registering, changing, rotating secrets, disabling, and finding those that an item is for.

Every function works in the transaction it is given and may run twice: names and urls may repeat, a secret may not
(unique index), and a change asks for the version that it was made from.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import ColumnElement, CursorResult, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from distributor.webhooks import health
from distributor.webhooks.models import (
    DisabledReason,
    Endpoint,
    EndpointHealth,
    EndpointSecret,
    EndpointState,
    meets,
)
from distributor.webhooks.signing import (
    Seal,
    SealedHeaders,
    algorithm_of,
    digest,
    new_secret,
    public_key_of,
)
from distributor.webhooks.urls import same_origin
from shared.contracts.news import ItemSnapshot
from shared.database import among, insert_ignoring
from shared.ids import new_id

MAX_SECRETS = 5
"""At once, on one endpoint: each adds a signature to every webhook."""

ENABLED = Endpoint.state == EndpointState.ENABLED


class SecretReused(Exception):
    """The secret belongs to this endpoint or another one already."""


class TooManySecrets(Exception):
    """The endpoint has as many secrets as it may have; wait until one retires."""


class LeadsElsewhere(Exception):
    """The new address is another server's, which must not be sent the own headers that were meant for the old one."""


@dataclass(frozen=True, slots=True)
class Target:
    """All that a sender needs to know of an endpoint; the newest secret first, it and the own headers still sealed."""

    url: str
    enabled: bool
    sealed: tuple[str, ...]
    headers: SealedHeaders


async def matching(session: AsyncSession, item: ItemSnapshot) -> list[UUID]:
    """The enabled endpoints that `item` is for. An empty filter, theirs or the item's, means all."""
    if not item.audiences:
        return []
    found = await session.scalars(
        select(Endpoint.id)
        .where(
            ENABLED,
            meets(Endpoint.audiences, item.audiences),
            meets(Endpoint.municipalities, item.municipalities),
            meets(Endpoint.topics, item.topics),
        )
        .order_by(Endpoint.id)
    )
    return list(found)


def is_for(endpoint: Endpoint, item: ItemSnapshot) -> bool:
    """The same of one endpoint, enabled or not."""
    filters = (
        (endpoint.audiences, item.audiences),
        (endpoint.municipalities, item.municipalities),
        (endpoint.topics, item.topics),
    )
    return bool(item.audiences) and all(
        not theirs or not its or not theirs.isdisjoint(map(str, its)) for theirs, its in filters
    )


async def targets(session: AsyncSession, endpoint_ids: Collection[UUID], at: datetime) -> dict[UUID, Target]:
    """Where and how to reach these endpoints now; those that are gone are left out."""
    rows = await session.execute(
        select(Endpoint.id, Endpoint.url, Endpoint.state, Endpoint.headers, EndpointSecret.sealed)
        .outerjoin(EndpointSecret, (EndpointSecret.endpoint_id == Endpoint.id) & _signing(at))
        .where(among(session, Endpoint.id, endpoint_ids))
        .order_by(EndpointSecret.id.desc())
    )
    found: dict[UUID, Target] = {}
    for key, url, state, headers, sealed in rows:
        signing = found[key].sealed if key in found else ()
        if sealed is not None:
            signing = (*signing, sealed)
        found[key] = Target(url, state == EndpointState.ENABLED, signing, tuple(headers.items()))
    return found


async def find(session: AsyncSession, endpoint_id: UUID) -> Endpoint | None:
    return await session.get(Endpoint, endpoint_id, populate_existing=True)


async def page(session: AsyncSession, *, after: UUID | None, limit: int) -> Sequence[Endpoint]:
    """At most `limit` endpoints, the oldest first."""
    query = select(Endpoint).order_by(Endpoint.id).limit(limit)
    if after is not None:
        query = query.where(Endpoint.id > after)
    return (await session.scalars(query)).all()


async def secrets_of(session: AsyncSession, endpoint_id: UUID, at: datetime) -> Sequence[EndpointSecret]:
    """The secrets that sign at `at`, newest first."""
    query = select(EndpointSecret).where(EndpointSecret.endpoint_id == endpoint_id, _signing(at))
    return (await session.scalars(query.order_by(EndpointSecret.id.desc()))).all()


async def sealed_secret(session: AsyncSession, secret_id: UUID) -> str | None:
    """One secret as it is stored, or `None` when it is gone."""
    return await session.scalar(select(EndpointSecret.sealed).where(EndpointSecret.id == secret_id))


async def register(session: AsyncSession, wanted: Mapping[str, Any], secret: str, *, seal: Seal, at: datetime) -> UUID:
    """Add an endpoint with its first secret (ours if `secret` is empty) and return its id; may raise `SecretReused`."""
    endpoint = Endpoint(id=new_id(), **wanted, state=EndpointState.ENABLED, created_at=at, updated_at=at)
    session.add(endpoint)
    await session.flush()
    session.add(EndpointHealth(endpoint_id=endpoint.id))
    await session.flush()
    await _keep_secret(session, endpoint.id, secret, seal=seal, at=at)
    return endpoint.id


async def change(
    session: AsyncSession, endpoint_id: UUID, wanted: Mapping[str, Any], *, version: int | None, at: datetime
) -> bool:
    """Change an endpoint; false when it is gone or no longer in `version` (`None`: in any).

    Raises `LeadsElsewhere` where it has headers of its own that would be sent to another server.
    """
    values = dict(wanted)
    if "url" in values and "headers" not in values:
        await _check_headers_stay(session, endpoint_id, values["url"])
    if "state" in values:
        values["disabled_reason"] = None if values["state"] == EndpointState.ENABLED else DisabledReason.BY_HAND
    asked = update(Endpoint).where(Endpoint.id == endpoint_id)
    if version is not None:
        asked = asked.where(Endpoint.version == version)
    has_new_contact = "contact_email" in values and await _had_another(session, endpoint_id, values["contact_email"])
    if has_new_contact:  # the links in the earlier contact's mails are not the new one's to inherit
        values["generation"] = Endpoint.generation + 1
    if not await _touched(session, asked.values(**values, version=Endpoint.version + 1, updated_at=at)):
        return False
    if values.get("state") == EndpointState.ENABLED:
        await health.begin_anew(session, endpoint_id)
    if has_new_contact:
        await health.new_contact(session, endpoint_id)
    return True


async def _had_another(session: AsyncSession, endpoint_id: UUID, contact_email: str) -> bool:
    mine = select(Endpoint.contact_email).where(Endpoint.id == endpoint_id).with_for_update()
    return await session.scalar(mine) not in (None, contact_email)


async def remove(session: AsyncSession, endpoint_id: UUID, *, version: int | None) -> bool:
    """Forget an endpoint and its secrets; false as for `change`. Its deliveries stay in the ledger, by id."""
    asked = delete(Endpoint).where(Endpoint.id == endpoint_id)
    return await _touched(session, asked if version is None else asked.where(Endpoint.version == version))


async def disable(session: AsyncSession, endpoint_id: UUID, reason: DisabledReason, at: datetime) -> bool:
    """Stop sending to an endpoint; false when it was stopped or deleted before."""
    return await _touched(
        session,
        update(Endpoint)
        .where(Endpoint.id == endpoint_id, ENABLED)
        .values(
            state=EndpointState.DISABLED,
            disabled_reason=reason,
            version=Endpoint.version + 1,
            updated_at=at,
        ),
    )


async def rotate(
    session: AsyncSession, endpoint_id: UUID, secret: str, *, overlap: timedelta, seal: Seal, at: datetime
) -> UUID:
    """Add a secret and let the others of its kind retire after `overlap`; returns its id.

    Raises `SecretReused` or `TooManySecrets`. The endpoint's row is taken first, so that rotations queue up.
    """
    taken = update(Endpoint).where(Endpoint.id == endpoint_id)
    await session.execute(taken.values(version=Endpoint.version + 1, updated_at=at))
    await session.execute(delete(EndpointSecret).where(EndpointSecret.endpoint_id == endpoint_id, ~_signing(at)))
    mine = EndpointSecret.endpoint_id == endpoint_id
    secret = secret or new_secret()
    kept = await session.scalar(select(func.count()).select_from(EndpointSecret).where(mine))
    if overlap and (kept or 0) >= MAX_SECRETS:
        raise TooManySecrets
    end = at + overlap
    mine = mine & (EndpointSecret.algorithm == algorithm_of(secret))
    later = or_(EndpointSecret.retires_at.is_(None), EndpointSecret.retires_at > end)
    await session.execute(update(EndpointSecret).where(mine, later).values(retires_at=end))
    return await _keep_secret(session, endpoint_id, secret, seal=seal, at=at)


async def _keep_secret(session: AsyncSession, endpoint_id: UUID, secret: str, *, seal: Seal, at: datetime) -> UUID:
    secret = secret or new_secret()
    row = {
        "id": new_id(),
        "endpoint_id": endpoint_id,
        "sealed": seal.close(secret),
        "sha256": digest(secret),
        "algorithm": algorithm_of(secret),
        "public_key": public_key_of(secret),
        "created_at": at,
    }
    table: Any = EndpointSecret.__table__
    kept = await session.execute(insert_ignoring(session, table, ["sha256"]).values(row).returning(EndpointSecret.id))
    if kept.first() is None:
        raise SecretReused
    return cast(UUID, row["id"])


async def _check_headers_stay(session: AsyncSession, endpoint_id: UUID, url: str) -> None:
    """The row is kept as it is until the change: nobody can give it headers in between."""
    endpoint = await session.get(Endpoint, endpoint_id, populate_existing=True, with_for_update=True)
    if endpoint is not None and endpoint.headers and not same_origin(endpoint.url, url):
        raise LeadsElsewhere


def _signing(at: datetime) -> ColumnElement[bool]:
    return or_(EndpointSecret.retires_at.is_(None), EndpointSecret.retires_at > at)


async def _touched(session: AsyncSession, statement: Any) -> bool:
    result = cast("CursorResult[Any]", await session.execute(statement))
    return result.rowcount > 0
