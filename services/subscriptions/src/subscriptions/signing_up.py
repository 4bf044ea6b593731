"""Public sign-up with double opt-in: nobody gets mail because somebody else typed their address.

Asking writes one row and one mail, whether the address is known or not: who asks cannot tell. An unknown address gets
a link to confirm; a known one is told so, with the link to its own page. Asking again keeps the row (and so the first
mail's link), takes the newest choices and, ten minutes after the last mail, mails once more. What nobody confirms
within a week is removed, and the distributor forgets the address too (`weeding`).

Confirming is safe to repeat: the row becomes the subscriber under the same id, and a second time finds it there. Where
the address is somebody's by then, the row stays and says whose, without the address.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.mail import Form
from shared.contracts.news import Audience, Locale
from shared.database import upsert
from shared.ids import new_id
from subscriptions import people, suppressions
from subscriptions.addresses import Address
from subscriptions.forgetting import forget
from subscriptions.frequencies import EVERYTHING, Frequency, put_frequencies
from subscriptions.history import Act, Source
from subscriptions.links import Links
from subscriptions.mailing import Addressee, Words, request_mail
from subscriptions.models import SignUp, Subscriber
from subscriptions.receipts import confirming
from subscriptions.subscribing import values_of
from subscriptions.suppressions import BY_MAILBOX

KEPT = timedelta(days=7)
PAUSE_BETWEEN = timedelta(minutes=10)
"""One such mail to an address in this time, however often it is asked for: no stranger fills anybody's inbox."""


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


CONFIRM = Words(
    Form.CONFIRM,
    _("Bekräfta din prenumeration"),
    (
        _("Någon, förmodligen du, har anmält den här adressen till våra nyheter. Bekräfta, så börjar vi skicka."),
        _("Gör det inom sju dagar. Annars tar vi bort anmälan."),
        _("Har du inte anmält dig behöver du inte göra något. Du får inga fler mejl."),
    ),
    _("Bekräfta prenumerationen"),
)
KNOWN = Words(
    Form.PREFERENCES,
    _("Du finns redan hos oss"),
    (
        _("Någon, förmodligen du, har anmält den här adressen till våra nyheter. Den finns redan hos oss."),
        _("På din sida ser du vad du får. Där kan du ändra det, eller börja igen om du har slutat."),
        _("Har du inte anmält dig kan du bortse från det här mejlet. Ingenting har ändrats."),
    ),
    _("Öppna din sida"),
)


class UnknownSignUp(Exception):
    """Nobody asked for it, or nobody confirmed it within a week."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody signs up for."""

    address: Address
    locale: Locale
    topics: frozenset[str]
    municipalities: frozenset[str]
    frequency: Frequency


async def ask(session: AsyncSession, links: Links, wanted: Wanted, at: datetime) -> bool:
    """Keep what is wanted until it is confirmed, and mail the address; False where it was mailed just now."""
    sign_up_id = await _keep(session, wanted, at)
    if not await _is_to_be_mailed(session, sign_up_id, at):
        return False
    known = await people.subscriber_by_address(session, wanted.address.key)
    if known is None or known.suppressed_at is not None:
        addressee = Addressee(sign_up_id, wanted.address.text, wanted.locale)
        await request_mail(session, addressee, CONFIRM, links.confirm(sign_up_id), at)
        return True
    addressee = Addressee(known.id, known.address, Locale(known.locale))
    await request_mail(session, addressee, KNOWN, links.preferences(known.id, known.generation), at)
    return True


async def waiting(session: AsyncSession, sign_up_id: UUID, at: datetime) -> SignUp | None:
    """The sign-up that waits, `None` where it has been confirmed, `UnknownSignUp` where there is nothing (any more)."""
    found = await session.scalar(select(SignUp).where(SignUp.id == sign_up_id, _standing(at)))
    if found is None and await people.subscriber(session, sign_up_id) is None:
        raise UnknownSignUp
    return found if found is not None and found.subscriber_id is None else None


async def confirm(session: AsyncSession, links: Links, sign_up_id: UUID, at: datetime, text_shown: str) -> Subscriber:
    """Make the sign-up a subscription, once; `UnknownSignUp` where there is none (any more).

    Where the address belongs to somebody by now, they join the public audience and keep their own choices. Whoever
    bounced has just shown that the address takes mail; what the office stopped stays stopped. `text_shown` is what they
    consent to.
    """
    wanted = await _hold(session, sign_up_id, at)
    if wanted is None:
        return await _confirmed(session, sign_up_id)
    if wanted.subscriber_id is not None:
        return await _confirmed(session, wanted.subscriber_id)
    subscriber, is_new = await _make(session, wanted, at)
    async with confirming(
        session, links, subscriber.id, at, Source.SIGN_UP, act=Act.JOINED, text_shown=text_shown
    ) as person:
        await people.put_roles(session, [people.public_role(subscriber.id, at, Source.SIGN_UP)])
        if is_new:
            person.subscriber.topics, person.subscriber.municipalities = wanted.topics, wanted.municipalities
            await put_frequencies(session, subscriber.id, {EVERYTHING: Frequency(wanted.frequency)})
        person.touched = True
        person.left.discard(Audience.PUBLIC)
        person.subscriber.unsubscribed_at = None
        await suppressions.lift(session, person.subscriber, BY_MAILBOX, Source.SIGN_UP, at)
    return person.subscriber


async def _hold(session: AsyncSession, sign_up_id: UUID, at: datetime) -> SignUp | None:
    """The row, held until the transaction ends: of two clicks at once, one confirms it."""
    mine = select(SignUp).where(SignUp.id == sign_up_id, _standing(at)).with_for_update()
    return await session.scalar(mine.execution_options(populate_existing=True))


def _standing(at: datetime) -> ColumnElement[bool]:
    return or_(SignUp.asked_at > at - KEPT, SignUp.subscriber_id.is_not(None))


async def _confirmed(session: AsyncSession, subscriber_id: UUID) -> Subscriber:
    subscriber = await people.subscriber(session, subscriber_id)
    if subscriber is None:
        raise UnknownSignUp
    return subscriber


async def _make(session: AsyncSession, wanted: SignUp, at: datetime) -> tuple[Subscriber, bool]:
    """Whose the address is, and whether it was nobody's until now."""
    assert wanted.address is not None
    assert wanted.address_key is not None
    values = values_of(Address(wanted.address, wanted.address_key), "", Locale(wanted.locale), at)
    is_new = await people.insert_subscriber(session, {"id": wanted.id, **values}) is not None
    subscriber = await people.subscriber_by_address(session, wanted.address_key)
    assert subscriber is not None
    if is_new:
        await session.delete(wanted)
    else:  # what was mailed under the sign-up's own id is nobody's any more
        wanted.subscriber_id, wanted.address, wanted.address_key = subscriber.id, None, None
        await forget(session, wanted.id, at)
    await session.flush()
    return subscriber, is_new


async def _keep(session: AsyncSession, wanted: Wanted, at: datetime) -> UUID:
    newest: dict[str, Any] = {
        "address": wanted.address.text,
        "locale": str(wanted.locale),
        "topics": wanted.topics,
        "municipalities": wanted.municipalities,
        "frequency": str(wanted.frequency),
        "asked_at": at,
    }
    insert = upsert(session, SignUp.__table__).values(  # type: ignore[arg-type]
        id=new_id(), address_key=wanted.address.key, **newest
    )
    set_ = {name: insert.excluded[name] for name in newest}
    kept = insert.on_conflict_do_update(index_elements=["address_key"], set_=set_).returning(SignUp.__table__.c.id)
    sign_up_id: UUID = (await session.execute(kept)).scalar_one()
    return sign_up_id


async def _is_to_be_mailed(session: AsyncSession, sign_up_id: UUID, at: datetime) -> bool:
    rested = or_(SignUp.mailed_at.is_(None), SignUp.mailed_at <= at - PAUSE_BETWEEN)
    marked = update(SignUp).where(SignUp.id == sign_up_id, rested).values(mailed_at=at).returning(SignUp.id)
    return await session.scalar(marked) is not None
