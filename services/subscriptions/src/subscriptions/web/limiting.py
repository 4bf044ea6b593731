"""Counts what is done without signing in, and says in words which limit is reached."""

from datetime import datetime
from uuid import UUID

from fastapi import Request
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncSession

from shared.web.dates import STOCKHOLM
from shared.web.pages import FormError, reader_language
from subscriptions.addresses import Address
from subscriptions.limits import Counted, TooOften, count, network_of


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


asks_refused = Counter(
    "budkavle_asks_refused", "Mails and changes asked for by strangers and not granted, by the limit", ["limit"]
)

REACHED = {
    Counted.ADDRESS: _(
        "Någon har bett om fler än {most} mejl till den här adressen den senaste timmen. "
        "Försök igen efter klockan {time}."
    ),
    Counted.NETWORK: _(
        "Det har kommit fler än {most} anmälningar från ditt nätverk den senaste timmen. "
        "Försök igen efter klockan {time}."
    ),
    Counted.PERSON: _(
        "Prenumerationen har ändrats fler än {most} gånger den senaste timmen. Du kan avsluta den, "
        "men annat går att ändra först efter klockan {time}."
    ),
    Counted.SIGN_IN: _(
        "Det har gjorts fler än {most} försök att logga in från ditt nätverk den senaste timmen. "
        "Försök igen efter klockan {time}."
    ),
}
IN_GROUP = _(
    "Gruppen har ändrats fler än {most} gånger den senaste timmen. Du kan ångra ändringen efter klockan {time}."
)


async def count_asks(session: AsyncSession, request: Request, address: Address, at: datetime) -> None:
    """Count a mail that is asked for; raises `TooOften`. Known and unknown addresses count alike."""
    state = request.app.state
    network = network_of(request.client.host if request.client else None)
    await count(session, state.counting_key, state.settings.network_limit, network, at)
    await count(session, state.counting_key, state.settings.address_limit, address.key, at)


async def count_change(session: AsyncSession, request: Request, subscriber_id: UUID, at: datetime) -> None:
    """Count a change that is made by a link; raises `TooOften`. Leaving is not counted."""
    state = request.app.state
    await count(session, state.counting_key, state.settings.person_limit, str(subscriber_id), at)


def refusal(request: Request, error: TooOften, field: str = "email", said: str = "") -> FormError:
    """The limit by name (or what is `said` of it) and when to try again, beside `field`."""
    asks_refused.labels(error.limit.counted).inc()
    words = request.app.state.pages.gettext(reader_language(request).locale, said or REACHED[error.limit.counted])
    time = error.until.astimezone(STOCKHOLM).strftime("%H.%M")
    return FormError(field, words.format(most=error.limit.most, time=time))
