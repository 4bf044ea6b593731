"""Where caught mails lie: one SQLite file, the newest so many.

A mail is in the file before it is accepted, as with a real server. Mails that arrive together share one transaction,
so that catching keeps pace with sending.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes, policy
from email.message import EmailMessage

from sqlalchemy import Column, Integer, LargeBinary, RowMapping, String, Table, Text, delete, func, select

from shared.clock import Clock
from shared.database import Database, Instant
from standalone.tables import metadata

caught_mails = Table(
    "caught_mails",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("caught_at", Instant, nullable=False),
    Column("recipients", Text, nullable=False),
    Column("sender", String, nullable=False),
    Column("subject", Text, nullable=False),
    Column("searched", Text, nullable=False),
    Column("source", LargeBinary, nullable=False),
)
LISTED = (caught_mails.c.id, caught_mails.c.caught_at, caught_mails.c.recipients, caught_mails.c.subject)


@dataclass(frozen=True, slots=True)
class CaughtMail:
    """A mail as it came over the wire. `recipients` are the envelope's."""

    recipients: tuple[str, ...]
    source: bytes


Waiting = tuple[CaughtMail, asyncio.Future[None]]


class MailStore:
    """Keeps at most `limit` mails; the oldest make room."""

    def __init__(self, database: Database, clock: Clock, *, limit: int) -> None:
        self._database = database
        self._clock = clock
        self._limit = limit
        self._waiting: list[Waiting] = []
        self._turn = asyncio.Lock()

    async def keep(self, mail: CaughtMail) -> None:
        """Return when `mail` is on disk. Whoever waits for the turn finds its mail written by the one before."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((mail, done))
        async with self._turn:
            if not done.done():
                await self._write()
        await done

    async def _write(self) -> None:
        batch, self._waiting = self._waiting, []
        try:
            async with self._database.transaction() as session:
                await session.execute(caught_mails.insert(), [_row(mail, self._clock.now()) for mail, _ in batch])
                newest = await session.scalar(select(func.max(caught_mails.c.id))) or 0
                await session.execute(delete(caught_mails).where(caught_mails.c.id <= newest - self._limit))
        except asyncio.CancelledError:
            _settle(batch, ConnectionError("the catcher was stopped"))
            raise
        except Exception as error:  # noqa: BLE001 - each sender is told, none is left waiting
            _settle(batch, error)
        else:
            _settle(batch, None)

    async def search(self, words: str, *, before: int | None, limit: int) -> tuple[list[RowMapping], int]:
        """The newest mails older than `before` that hold every word, without their source; and how many hold them."""
        found = [caught_mails.c.searched.contains(word, autoescape=True) for word in words.casefold().split()]
        page = select(*LISTED).where(*found).order_by(caught_mails.c.id.desc()).limit(limit)
        if before is not None:
            page = page.where(caught_mails.c.id < before)
        async with self._database.reading() as session:
            total = await session.scalar(select(func.count()).select_from(caught_mails).where(*found)) or 0
            return list((await session.execute(page)).mappings()), total

    async def find(self, key: int) -> RowMapping | None:
        """One mail with its source, or `None` when there is none (any more)."""
        async with self._database.reading() as session:
            return (await session.execute(select(caught_mails).where(caught_mails.c.id == key))).mappings().first()


def _settle(batch: Sequence[Waiting], error: Exception | None) -> None:
    for _, done in batch:
        if done.done():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)


def parse(source: bytes) -> EmailMessage:
    """The mail as the standard library reads it; never raises, a malformed mail is shown as far as it goes."""
    message: EmailMessage = message_from_bytes(source, policy=policy.default)
    return message


def part(message: EmailMessage, kind: str) -> str | None:
    """The text of the `plain` or `html` part, or `None`."""
    body = message.get_body((kind,))
    if body is None:
        return None
    try:
        text: str = body.get_content()
    except (LookupError, UnicodeError):
        raw = body.get_payload(decode=True)
        return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else None
    return readable(text)


def header(message: EmailMessage, name: str) -> str:
    """The first header called `name`, decoded; as it came where it cannot be; empty where there is none."""
    return next((value for each, value in headers(message) if each.lower() == name), "")


def headers(message: EmailMessage) -> list[tuple[str, str]]:
    """Every header in order, decoded, on one line each."""
    return [(readable(name), " ".join(_decoded(name, value).split())) for name, value in message.raw_items()]


def _decoded(name: str, value: str) -> str:
    try:
        return readable(str(policy.default.header_fetch_parse(name, value)))
    except (LookupError, UnicodeError, ValueError, IndexError, AttributeError):  # the parser's own ways to give up
        return readable(str(value))


def readable(text: str) -> str:
    """`text` with the bytes that fitted no charset replaced: the parser keeps them as lone surrogates."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _row(mail: CaughtMail, at: datetime) -> dict[str, object]:
    message = parse(mail.source)
    subject, sender = (header(message, name) for name in ("subject", "from"))
    return {
        "caught_at": at,
        "recipients": "\n".join(mail.recipients),
        "sender": sender,
        "subject": subject,
        "searched": _searched(subject, sender, mail.recipients, part(message, "plain") or ""),
        "source": mail.source,
    }


def _searched(subject: str, sender: str, recipients: Sequence[str], text: str) -> str:
    return "\n".join((subject, sender, *recipients, text)).casefold()
