"""`Idempotency-Key` on POST: the same key gives the same answer, and the work is done once.

The key's row is written in the transaction of the work itself, so that there is no "in flight" to be left behind by a
crash: of two concurrent requests one waits at the unique index and then replays. Rows are kept for 24 hours.

Source: IETF draft-ietf-httpapi-idempotency-key-header-07.
"""

import hmac
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from sqlalchemy import Column, Integer, LargeBinary, String, Table, Text, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database import Instant, insert_ignoring, plumbing
from shared.keys import bearer, id_named
from shared.problems import Problem, about_header

KEPT = timedelta(hours=24)
MAX_KEY_LENGTH = 255
KEY = rf"[!-~]([ -~]{{0,{MAX_KEY_LENGTH - 2}}}[!-~])?"
WRONG_KEY = (
    f"Use 1 to {MAX_KEY_LENGTH} visible ASCII characters.",
    f"Använd 1 till {MAX_KEY_LENGTH} synliga ASCII-tecken.",
)
USED_KEY = ("Another request has used this key: choose a new one.", "En annan begäran har använt nyckeln. Välj en ny.")

idempotency_keys = Table(
    "idempotency_keys",
    plumbing,
    Column("caller", String(64), primary_key=True),
    Column("key", String(MAX_KEY_LENGTH), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("status", Integer),
    Column("headers", Text),
    Column("body", LargeBinary),
    Column("created_at", Instant, nullable=False, index=True),
)


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The header, whose it is, and a fingerprint of the request that it belongs to, under each of our keys, the newest
    first. The caller is known by the id of their API key: nothing is kept that the key itself could be guessed from.
    """

    value: str
    caller: str
    fingerprints: tuple[str, ...]


async def _read(
    request: Request,
    idempotency_key: Annotated[
        str | None, Header(description="makes a retry safe", json_schema_extra={"pattern": f"^{KEY}$"})
    ] = None,
) -> IdempotencyKey | None:
    if idempotency_key is None:
        return None
    if not re.fullmatch(KEY, idempotency_key):
        raise _about_key(400, "invalid_idempotency_key", *WRONG_KEY)
    credentials = await bearer(request)
    caller = id_named(credentials.credentials) if credentials else ""
    whole = b"\0".join((request.method.encode(), request.url.path.encode(), await request.body()))
    return IdempotencyKey(idempotency_key, caller, tuple(_fingerprints(request, whole)))


def _fingerprints(request: Request, whole: bytes) -> Iterator[str]:
    """Keyed: a body may hold a secret or an address, and whoever reads the table must not be able to try guesses."""
    for key in request.app.state.settings.secret_keys:
        yield hmac.new(key.get_secret_value().encode(), b"idempotency\0" + whole, "sha256").hexdigest()


OptionalKey = Annotated[IdempotencyKey | None, Depends(_read)]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the work gave: a body, a status, headers."""

    body: BaseModel
    status: int = 200
    headers: Mapping[str, str] | None = None


async def once(
    session: AsyncSession, key: IdempotencyKey | None, at: datetime, work: Callable[[], Awaitable[Answer]]
) -> Response:
    """Do `work` in the transaction at hand, or replay what it answered the first time."""
    if key is None:
        return _response(await work())
    if not await _take(session, key, at):
        return await _replay(session, key)
    answer = await work()
    response = _response(answer)
    row = (idempotency_keys.c.caller == key.caller) & (idempotency_keys.c.key == key.value)
    stored = {
        "status": response.status_code,
        "headers": json.dumps(dict(answer.headers or {})),
        "body": bytes(response.body),
    }
    await session.execute(update(idempotency_keys).where(row).values(**stored))
    return response


async def purge(session: AsyncSession, at: datetime) -> None:
    """Drop the answers that have had their day."""
    await session.execute(delete(idempotency_keys).where(idempotency_keys.c.created_at < at - KEPT))


async def _take(session: AsyncSession, key: IdempotencyKey, at: datetime) -> bool:
    await purge(session, at)
    row = {"caller": key.caller, "key": key.value, "fingerprint": key.fingerprints[0], "created_at": at}
    taken = await session.execute(
        insert_ignoring(session, idempotency_keys).values(row).returning(idempotency_keys.c.key)
    )
    return taken.first() is not None


async def _replay(session: AsyncSession, key: IdempotencyKey) -> Response:
    row = (idempotency_keys.c.caller == key.caller) & (idempotency_keys.c.key == key.value)
    stored: Any = (await session.execute(select(idempotency_keys).where(row))).one()
    if stored.fingerprint not in key.fingerprints:
        raise _about_key(422, "idempotency_mismatch", *USED_KEY)
    headers = {**json.loads(stored.headers), "Idempotent-Replayed": "true"}
    return Response(stored.body, stored.status, headers, media_type="application/json")


def _about_key(status: int, code: str, message: str, message_sv: str) -> Problem:
    return Problem(status, code, message, errors=[about_header("idempotency-key", code, message, message_sv)])


def _response(answer: Answer) -> Response:
    body = answer.body.model_dump(mode="json")
    return JSONResponse(body, status_code=answer.status, headers=dict(answer.headers or {}))
