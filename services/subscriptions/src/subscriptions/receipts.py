"""Every change that a person makes is confirmed by a mail with an undo link, in the transaction of the change.

Who holds a forwarded mail, or a scanner that submits forms, can change a subscription; nobody can do it in silence or
for good. What changes nothing is not confirmed, so a double click gives one mail.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.mail import Form
from shared.contracts.news import Locale
from shared.web.dates import minute
from subscriptions import people
from subscriptions.history import Act, Change, Source
from subscriptions.links import Links
from subscriptions.mailing import Addressee, Words, request_mail
from subscriptions.models import Subscriber
from subscriptions.stops import Person, changing
from subscriptions.wording import Wording


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


REGRET = _("Var det inte du, eller ångrar du dig? Öppna länken, så kan du ändra tillbaka. Den slutar inte gälla.")
WELCOME = Words(
    Form.PREFERENCES,
    _("Välkommen som prenumerant"),
    (
        _("Din prenumeration är bekräftad:\n{changes}"),
        _("I varje mejl från oss finns en länk där du kan ändra vad du får, eller sluta."),
    ),
    _("Ångra prenumerationen"),
)
CHANGED = Words(
    Form.PREFERENCES,
    _("Din prenumeration har ändrats"),
    (_("Det här gäller sedan {minute}:\n{changes}"), REGRET),
    _("Ångra ändringen"),
)
UNDONE = Words(
    Form.PREFERENCES,
    _("Din prenumeration är ändrad tillbaka"),
    (_("Det här gäller sedan {minute}:\n{changes}"), REGRET),
    _("Ändra en gång till"),
)
WORDS = {Act.JOINED: WELCOME, Act.CHANGED: CHANGED, Act.UNDONE: UNDONE}


@asynccontextmanager
async def confirming(
    session: AsyncSession,
    links: Links,
    subscriber_id: UUID,
    at: datetime,
    source: Source,
    *,
    act: Act = Act.CHANGED,
    undoes_id: UUID | None = None,
    text_shown: str = "",
) -> AsyncIterator[Person]:
    """As `stops.changing`, for what the person does; the change is confirmed by mail."""
    async with changing(
        session, subscriber_id, at, source, act=act, undoes_id=undoes_id, text_shown=text_shown
    ) as person:
        yield person
    if person.change is not None and person.change.after:
        await _mail(session, links, person.subscriber, person.change)


async def _mail(session: AsyncSession, links: Links, subscriber: Subscriber, change: Change) -> None:
    locale = Locale(subscriber.locale)
    roles = (await people.roles_of(session, [subscriber.id]))[subscriber.id]
    addressee = Addressee(
        subscriber.id, subscriber.address, locale, links.preferences(subscriber.id, subscriber.generation)
    )
    await request_mail(
        session,
        addressee,
        WORDS[change.act],
        links.undo(change.id, subscriber.generation),
        change.at,
        changes="\n".join(Wording(locale).standing(change.after, roles)),
        minute=minute(locale, change.at),
    )
