"""A person changes their address: confirmed at the new one, told to the old one, which can change it back for a week.

Asking writes one row and mails the new address, under the row's own id: what bounces there says nothing about the
person, and the distributor forgets that id when the row goes. Confirming moves the person, ends every older link
(a new mailbox may be somebody else's) and mails both. A person has one change at a time; a newer one takes its place.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.mail import Form
from shared.contracts.news import Locale
from shared.database import among
from shared.ids import new_id
from subscriptions import people, suppressions
from subscriptions.addresses import Address
from subscriptions.forgetting import forget
from subscriptions.history import Act, Source
from subscriptions.links import Links
from subscriptions.mailing import Addressee, Words, request_mail
from subscriptions.models import AddressChange, Subscriber
from subscriptions.stops import Person, changing

KEPT = timedelta(days=7)


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


CONFIRM = Words(
    Form.CONFIRM,
    _("Bekräfta din nya adress"),
    (
        _("Någon, förmodligen du, vill ha sina mejl från oss till den här adressen. Bekräfta, så ändrar vi."),
        _("Gör det inom sju dagar. Har du inte bett om det behöver du inte göra något."),
    ),
    _("Bekräfta adressen"),
)
MOVED_AWAY = Words(
    Form.PREFERENCES,
    _("Din adress hos oss har ändrats"),
    (
        _("Från och med nu mejlar vi dig på en annan adress. Länkarna i tidigare mejl gäller inte längre."),
        _("Var det inte du? Öppna länken inom sju dagar, så kan du ändra tillbaka."),
    ),
    _("Ändra tillbaka"),
)
MOVED_HERE = Words(
    Form.PREFERENCES,
    _("Dina mejl kommer hit från och med nu"),
    (_("Adressen är ändrad. Länken här är din nya; de i tidigare mejl gäller inte längre."),),
    _("Öppna din sida"),
)


class UnknownChange(Exception):
    """There is no such change (any more): a week has passed, or a newer one took its place."""


class AddressTaken(Exception):
    """The address is another subscriber's."""


async def ask(session: AsyncSession, links: Links, subscriber: Subscriber, address: Address, at: datetime) -> None:
    """Mail the new address; nothing changes before it is confirmed there."""
    await drop(session, [subscriber.id], at)
    change = AddressChange(
        id=new_id(), subscriber_id=subscriber.id, address=address.text, address_key=address.key, asked_at=at
    )
    session.add(change)
    addressee = Addressee(change.id, address.text, Locale(subscriber.locale))
    await request_mail(session, addressee, CONFIRM, links.confirm_address(change.id), at)
    await session.flush()


async def look(session: AsyncSession, change_id: UUID, at: datetime) -> AddressChange:
    """The change that waits, or that can still be taken back; `UnknownChange` otherwise."""
    change = await session.get(AddressChange, change_id, populate_existing=True)
    if change is None or (change.confirmed_at or change.asked_at) <= at - KEPT:
        raise UnknownChange
    return change


async def confirm(session: AsyncSession, links: Links, change_id: UUID, at: datetime) -> Subscriber:
    """Move the person to the new address, once. `AddressTaken` where somebody else has it by now."""
    asked = await look(session, change_id, at)
    async with changing(session, asked.subscriber_id, at, Source.PAGE, act=Act.MOVED) as person:
        change = await look(session, change_id, at)  # again, under the person's lock
        if change.taken_back_at is not None:
            raise UnknownChange
        if change.confirmed_at is not None:
            return person.subscriber
        old = Address(person.subscriber.address, person.subscriber.address_key)
        await _move(session, person, Address(change.address, change.address_key))
        change.confirmed_at, change.old_address, change.old_address_key = at, old.text, old.key
    locale = Locale(person.subscriber.locale)
    away = Addressee(change.id, old.text, locale)
    await request_mail(session, away, MOVED_AWAY, links.take_back_address(change.id), at)
    await _mail_new_links(session, links, person.subscriber, at)
    return person.subscriber


async def take_back(session: AsyncSession, links: Links, change_id: UUID, at: datetime) -> None:
    """Move the person back to the old address, once, and end the links that the new one got."""
    confirmed = await look(session, change_id, at)
    if confirmed.confirmed_at is None:
        raise UnknownChange
    async with changing(session, confirmed.subscriber_id, at, Source.UNDO, act=Act.MOVED) as person:
        change = await look(session, change_id, at)
        if change.taken_back_at is not None:
            return
        await _move(session, person, Address(change.old_address, change.old_address_key))
        change.taken_back_at = at
    await _mail_new_links(session, links, person.subscriber, at)


async def drop(session: AsyncSession, subscriber_ids: list[UUID], at: datetime) -> None:
    """End what waits for these people, and have the distributor forget the addresses that were mailed for it."""
    table: Any = AddressChange.__table__
    theirs = delete(table).where(among(session, table.c.subscriber_id, subscriber_ids))
    for change_id in (await session.scalars(theirs.returning(table.c.id))).all():
        await forget(session, change_id, at)


async def expired(session: AsyncSession, at: datetime, *, limit: int) -> list[UUID]:
    """People whose change has had its week."""
    latest = AddressChange.confirmed_at.is_(None) & (AddressChange.asked_at <= at - KEPT)
    over = latest | (AddressChange.confirmed_at <= at - KEPT)
    return list(await session.scalars(select(AddressChange.subscriber_id).where(over).limit(limit)))


async def _move(session: AsyncSession, person: Person, address: Address) -> None:
    subscriber = person.subscriber
    try:
        async with session.begin_nested():
            await people.move_address(session, subscriber.id, address)
    except IntegrityError as error:
        raise AddressTaken from error
    subscriber.address, subscriber.address_key = address.text, address.key
    await suppressions.lift(session, subscriber, suppressions.BY_MAILBOX, Source.PAGE, person.at)
    subscriber.generation += 1
    person.noted = True


async def _mail_new_links(session: AsyncSession, links: Links, subscriber: Subscriber, at: datetime) -> None:
    addressee = Addressee(subscriber.id, subscriber.address, Locale(subscriber.locale))
    link = links.preferences(subscriber.id, subscriber.generation)
    await request_mail(session, addressee, MOVED_HERE, link, at)
