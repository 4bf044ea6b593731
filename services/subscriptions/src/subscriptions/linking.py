"""Mails a new link to somebody whose own has ended. Whether the address is known is told to nobody: the answer is the
same, and so is the work before it, but for one row.
"""

from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import or_, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.mail import Form, Lane, MailRequested, Recipient, RequestContent, SubjectKind
from shared.contracts.news import Locale
from shared.ids import derived_id, new_id
from shared.messaging.outbox import emit
from shared.translations import translations
from subscriptions.addresses import Address
from subscriptions.links import Links
from subscriptions.models import Subscriber

SOURCE = "subscriptions"
CATALOGUES = Path(__file__).parent / "web" / "locale"
PAUSE_BETWEEN = timedelta(minutes=10)
"""One such mail per person in this time, however often it is asked for: no stranger fills anybody's inbox."""


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


SUBJECT = _("Länk till din prenumeration")
PARAGRAPHS = (
    _("Här är länken till sidan där du ändrar din prenumeration."),
    _("Har du inte bett om den kan du bortse från det här mejlet. Ingenting har ändrats."),
)
ACTION = _("Ändra din prenumeration")


async def mail_link(session: AsyncSession, links: Links, address: Address, at: datetime) -> None:
    """Ask for the mail, where the address is a subscriber's that takes mail and has not had one just now."""
    rested = or_(Subscriber.link_mailed_at.is_(None), Subscriber.link_mailed_at <= at - PAUSE_BETWEEN)
    mine = (Subscriber.address_key == address.key, Subscriber.suppressed_at.is_(None), rested)
    marked = update(Subscriber).where(*mine).values(link_mailed_at=at).returning(Subscriber)
    subscriber = await session.scalar(marked)
    if subscriber is not None:
        await emit(session, _mail(links, subscriber, at), source=SOURCE, subject=subscriber.id, at=at)


def _mail(links: Links, subscriber: Subscriber, at: datetime) -> MailRequested:
    locale = Locale(subscriber.locale)
    gettext = translations(CATALOGUES, locale).gettext
    request_id = new_id()
    return MailRequested(
        batch_id=derived_id("request", request_id),
        subject_kind=SubjectKind.REQUEST,
        subject_id=request_id,
        revision=0,
        form=Form.PREFERENCES,
        lane=Lane.TRANSACTIONAL,
        planned_at=at,
        request=RequestContent(
            subject=gettext(SUBJECT),
            paragraphs=tuple(gettext(paragraph) for paragraph in PARAGRAPHS),
            action_label=gettext(ACTION),
            action_url=links.preferences(subscriber.id, subscriber.generation),
        ),
        recipients=(Recipient(recipient_id=subscriber.id, address=subscriber.address, locale=locale),),
    )
