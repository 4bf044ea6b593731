"""Erases a person: here at once, in the delivery ledger by the event that tells of it.

What goes: the subscriber with roles, choices and departures, a sign-up and a change of address under way, and the
address in what was already said: `mail.requested` that still lie in the outbox (for a day, so that they can be said
again) keep their place without the address, and an answer kept for an Idempotency-Key becomes a 410. What stays is the
history, which holds no address and no name, and ids and counts in the ledger (docs/privacy.md).
"""

import json
from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, LargeBinary, delete, func, literal, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.mail import MailRequested
from shared.idempotency import idempotency_keys
from shared.messaging.outbox import outbox
from subscriptions import address_changes
from subscriptions.forgetting import forget, tell
from subscriptions.groups.invitations import forget_address
from subscriptions.groups.models import Invitation
from subscriptions.history import Act, Source, record
from subscriptions.models import AddressChange, SignUp, Subscriber
from subscriptions.stops import locked
from subscriptions.tasks.tasks import forget_wishes

PERSONAL = ("address", "reason", "preferences_url", "unsubscribe_url", "one_click_url")
GONE = b'{"code":"gone","detail":"The subscriber that this request made has been erased."}'


async def erase(session: AsyncSession, subscriber_id: UUID, at: datetime, source: Source) -> None:
    """Delete everything held about a subscriber and say so; `UnknownSubscriber` where there is nothing (more)."""
    person = await locked(session, subscriber_id, at)
    subscriber = person.subscriber
    version, key = subscriber.version + 1, subscriber.address_key
    changes = await session.scalars(select(AddressChange.id).where(AddressChange.subscriber_id == subscriber_id))
    ids = {subscriber_id, *changes.all(), *await _drop_sign_up(session, key, at)}
    ids |= {*await forget_address(session, key, at), *await _answered(session, subscriber_id)}
    await forget_wishes(session, subscriber_id)
    await address_changes.drop(session, [subscriber_id], at)
    await session.execute(delete(Subscriber).where(Subscriber.id == subscriber_id))
    session.expunge(subscriber)
    await record(session, subscriber_id, at, act=Act.ERASED, source=source, before={}, after={})
    await blank_outbox(session, ids)
    await _blank_answers(session, subscriber_id)
    await tell(session, subscriber_id, at, version=version)


async def _drop_sign_up(session: AsyncSession, key: str, at: datetime) -> list[UUID]:
    table: Any = SignUp.__table__
    gone = await session.scalars(delete(table).where(table.c.address_key == key).returning(table.c.id))
    ids = list(gone.all())
    for sign_up_id in ids:
        await forget(session, sign_up_id, at)
    return ids


async def _answered(session: AsyncSession, subscriber_id: UUID) -> list[UUID]:
    """The ids of sign-ups and invitations that turned out to be this person's: their address was mailed under them."""
    theirs = [select(table.id).where(table.subscriber_id == subscriber_id) for table in (SignUp, Invitation)]
    return [key for found in theirs for key in (await session.scalars(found)).all()]


async def blank_outbox(session: AsyncSession, ids: Collection[UUID]) -> None:
    """Take what is personal out of the mails to these that were asked for, and can be asked for again."""
    named = {str(key) for key in ids}
    for key in named:
        holding = select(outbox.c.id, outbox.c.body).where(
            outbox.c.routing_key.startswith(MailRequested.event_name), _mentions(session, outbox.c.body, key)
        )
        for row in (await session.execute(holding)).all():
            blanked = update(outbox).where(outbox.c.id == row.id).values(body=_without(row.body, named))
            await session.execute(blanked)


def _without(body: bytes, ids: Collection[str]) -> bytes:
    envelope = json.loads(body)
    for recipient in envelope["data"]["recipients"]:
        if recipient["recipient_id"] in ids:
            recipient.update(dict.fromkeys(PERSONAL, ""))
    return json.dumps(envelope, ensure_ascii=False, separators=(",", ":")).encode()


async def _blank_answers(session: AsyncSession, subscriber_id: UUID) -> None:
    theirs = _mentions(session, idempotency_keys.c.body, str(subscriber_id))
    await session.execute(update(idempotency_keys).where(theirs).values(status=410, headers="{}", body=GONE))


def _mentions(session: AsyncSession, column: Any, text: str) -> ColumnElement[bool]:
    """Whether the bytes hold the text; each database has its own way to look."""
    if session.get_bind().dialect.name == "sqlite":
        found: ColumnElement[bool] = func.instr(column, literal(text.encode(), LargeBinary())) > 0
        return found
    pattern: ColumnElement[bool] = column.op("LIKE", is_comparison=True)(literal(f"%{text}%".encode(), LargeBinary()))
    return pattern
