"""Signed in to the office's pages: a key is exchanged for a session, so that no browser keeps the key.

A session ends after a while without a visit, at the latest some hours after it was opened, at sign-out, when somebody
with the same key ends it from elsewhere, and at once when its key is revoked, expires or loses the scope. Each sign-in
makes a new one and ends the browser's former one, so that nobody can be signed in by a cookie that somebody else has
put there. The token has 256 random bits: its plain SHA-256 is enough at rest.
"""

import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared import keys
from shared.keys import FROM_SETTINGS, Principal, Scope
from subscriptions.office.models import HANDLE_LENGTH, OfficeSession

SCOPE = Scope.ADMIN
"""The pages show addresses and histories, and erase: what the API asks `admin` for."""
NOTED_EVERY = timedelta(minutes=1)
"""A visit is written down at most so often: a page that is read stays a read."""
MARK_LENGTH = 32


@dataclass(frozen=True, slots=True)
class Lasting:
    """How long a session lasts without a visit, and at the longest."""

    idle: timedelta
    longest: timedelta


@dataclass(frozen=True, slots=True)
class SettingsKey:
    """The administrator's key of the settings, and the secret that marks it: it may be short enough to be guessed."""

    key: str
    marking: bytes

    @property
    def mark(self) -> str:
        return hmac.digest(self.marking, f"office\0{self.key}".encode(), "sha256").hex()[:MARK_LENGTH]


async def begin(
    session: AsyncSession, principal: Principal, own: SettingsKey, at: datetime, *, former: str = ""
) -> str:
    """Open a session for whoever has shown a key, end the browser's `former` one, and return the new token."""
    await end(session, former)
    token = secrets.token_urlsafe(32)
    mark = own.mark if principal.key_id == FROM_SETTINGS else ""
    session.add(
        OfficeSession(token_sha256=_digest(token), key_id=principal.key_id, key_mark=mark, opened_at=at, seen_at=at)
    )
    return token


async def visit(
    session: AsyncSession, token: str, own: SettingsKey, lasting: Lasting, at: datetime
) -> OfficeSession | None:
    """The session behind the token while it lasts and its key may still come in."""
    found = await session.get(OfficeSession, _digest(token)) if token else None
    if found is None or found.seen_at + lasting.idle <= at or found.opened_at + lasting.longest <= at:
        return None
    return found if await _key_stands(session, found, own, at) else None


def is_to_be_noted(found: OfficeSession, at: datetime) -> bool:
    """Whether the visit should be written down, so that the session does not end for idleness."""
    return found.seen_at + NOTED_EVERY <= at


async def note(session: AsyncSession, token: str, at: datetime) -> None:
    """Write a visit down."""
    mine = update(OfficeSession).where(OfficeSession.token_sha256 == _digest(token), OfficeSession.seen_at < at)
    await session.execute(mine.values(seen_at=at).execution_options(synchronize_session=False))


async def end(session: AsyncSession, token: str) -> None:
    """Sign out; nothing happens where nobody is signed in by this token."""
    await session.execute(delete(OfficeSession).where(OfficeSession.token_sha256 == _digest(token)))


async def standing(session: AsyncSession, mine: OfficeSession, lasting: Lasting, at: datetime) -> list[OfficeSession]:
    """Whoever is signed in with the same key, the newest first; few, since tries to sign in are limited."""
    same = select(OfficeSession).where(*_same_key(mine), ~over(lasting, at))
    return list(await session.scalars(same.order_by(OfficeSession.opened_at.desc(), OfficeSession.token_sha256)))


async def end_others(session: AsyncSession, mine: OfficeSession, only: str | None = None) -> int:
    """End what was opened with the same key elsewhere: all of it, or the one with this handle. Returns how many."""
    hashes = OfficeSession.token_sha256
    others = delete(OfficeSession).where(*_same_key(mine), hashes != mine.token_sha256)
    if only is not None:
        others = others.where(func.substr(hashes, 1, HANDLE_LENGTH) == only)
    return len((await session.scalars(others.returning(hashes))).all())


async def weed(session: AsyncSession, lasting: Lasting, at: datetime) -> None:
    """Remove the sessions that have ended by themselves."""
    await session.execute(delete(OfficeSession).where(over(lasting, at)))


def over(lasting: Lasting, at: datetime) -> ColumnElement[bool]:
    """Whether a session has ended by itself."""
    return or_(OfficeSession.seen_at <= at - lasting.idle, OfficeSession.opened_at <= at - lasting.longest)


def _same_key(mine: OfficeSession) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """The mark too: another key in the settings is somebody else's."""
    return OfficeSession.key_id == mine.key_id, OfficeSession.key_mark == mine.key_mark


async def _key_stands(session: AsyncSession, found: OfficeSession, own: SettingsKey, at: datetime) -> bool:
    if found.key_id == FROM_SETTINGS:
        return bool(own.key) and hmac.compare_digest(found.key_mark, own.mark)
    principal = await keys.standing(session, found.key_id, at)
    return principal is not None and principal.may(SCOPE)


def _digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()
