"""Mails links on demand: a new one to somebody whose own has ended, and the one that opens a person's own data.

Whether an address is known is told to nobody: the answer is the same, and so is the work before it, but for one row.
"""

from datetime import datetime, timedelta

from sqlalchemy import or_, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.mail import Form
from shared.contracts.news import Locale
from subscriptions.addresses import Address
from subscriptions.links import Links
from subscriptions.mailing import Addressee, Words, request_mail
from subscriptions.models import Subscriber

PAUSE_BETWEEN = timedelta(minutes=10)
"""One such mail per person in this time, however often it is asked for: no stranger fills anybody's inbox."""


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


NEW_LINK = Words(
    Form.PREFERENCES,
    _("Länk till din prenumeration"),
    (
        _("Här är länken till sidan där du ändrar din prenumeration."),
        _("Har du inte bett om den kan du bortse från det här mejlet. Ingenting har ändrats."),
    ),
    _("Ändra din prenumeration"),
)


FRESH_LINK = Words(
    Form.PREFERENCES,
    _("Länk till dina uppgifter"),
    (
        _("Här är länken till allt vi har om dig. Där kan du också byta adress eller ta bort dina uppgifter."),
        _("Den gäller i 30 minuter. Skicka den inte vidare."),
        _("Har du inte bett om den kan du bortse från det här mejlet. Ingenting har ändrats."),
    ),
    _("Öppna dina uppgifter"),
)


async def mail_fresh_link(session: AsyncSession, links: Links, subscriber: Subscriber, at: datetime) -> None:
    """Mail the person a link that opens their own data for half an hour."""
    addressee = Addressee(subscriber.id, subscriber.address, Locale(subscriber.locale))
    link = links.fresh(subscriber.id, subscriber.generation, at)
    await request_mail(session, addressee, FRESH_LINK, link, at)


async def mail_link(session: AsyncSession, links: Links, address: Address, at: datetime) -> None:
    """Ask for the mail, where the address is a subscriber's that takes mail and has not had one just now."""
    rested = or_(Subscriber.link_mailed_at.is_(None), Subscriber.link_mailed_at <= at - PAUSE_BETWEEN)
    mine = (Subscriber.address_key == address.key, Subscriber.suppressed_at.is_(None), rested)
    marked = update(Subscriber).where(*mine).values(link_mailed_at=at).returning(Subscriber)
    subscriber = await session.scalar(marked)
    if subscriber is not None:
        addressee = Addressee(subscriber.id, subscriber.address, Locale(subscriber.locale))
        await request_mail(session, addressee, NEW_LINK, links.preferences(subscriber.id, subscriber.generation), at)
