"""One mail about a person's own subscription: to confirm, to open, to undo. Each is a transactional request of its own.

The words are the recipient's language's. No mail holds an address, so that nothing but the ledger's row has to be
forgotten when a person is.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.mail import Form, Lane, MailRequested, Recipient, RequestContent, SubjectKind
from shared.contracts.news import Locale
from shared.ids import derived_id, new_id
from shared.messaging.outbox import emit
from shared.translations import translations

SOURCE = "subscriptions"
CATALOGUES = Path(__file__).parent / "web" / "locale"


@dataclass(frozen=True, slots=True)
class Words:
    """What one kind of mail says, in Swedish; `{…}` are filled in after the translation."""

    form: Form
    subject: str
    paragraphs: tuple[str, ...]
    action: str


@dataclass(frozen=True, slots=True)
class Addressee:
    """To whom. `recipient_id` is whom a bounce is about: the person, or whatever waits to be confirmed."""

    recipient_id: UUID
    address: str
    locale: Locale
    preferences_url: str = ""


def said(locale: Locale, text: str) -> str:
    """`text` in the recipient's language."""
    return translations(CATALOGUES, locale).gettext(text)


async def request_mail(
    session: AsyncSession, addressee: Addressee, words: Words, action_url: str, at: datetime, **filled: str
) -> None:
    """Ask for the mail in the transaction at hand."""
    request_id = new_id()
    event = MailRequested(
        batch_id=derived_id("request", request_id),
        subject_kind=SubjectKind.REQUEST,
        subject_id=request_id,
        revision=0,
        form=words.form,
        lane=Lane.TRANSACTIONAL,
        planned_at=at,
        request=RequestContent(
            subject=said(addressee.locale, words.subject),
            paragraphs=tuple(said(addressee.locale, text).format(**filled) for text in words.paragraphs),
            action_label=said(addressee.locale, words.action),
            action_url=action_url,
        ),
        recipients=(
            Recipient(
                recipient_id=addressee.recipient_id,
                address=addressee.address,
                locale=addressee.locale,
                preferences_url=addressee.preferences_url,
            ),
        ),
    )
    await emit(session, event, source=SOURCE, subject=addressee.recipient_id, at=at)
