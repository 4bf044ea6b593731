"""Counts what strangers have us mail, and says in words which limit is reached."""

from datetime import datetime

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncSession

from shared.web.dates import STOCKHOLM
from shared.web.pages import FormError, reader_language
from subscriptions.addresses import Address
from subscriptions.limits import Counted, TooOften, count, network_of


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


REACHED = {
    Counted.ADDRESS: _(
        "Någon har bett om fler än {most} mejl till den här adressen den senaste timmen. "
        "Försök igen efter klockan {time}."
    ),
    Counted.NETWORK: _(
        "Det har kommit fler än {most} anmälningar från ditt nätverk den senaste timmen. "
        "Försök igen efter klockan {time}."
    ),
}


async def count_asks(session: AsyncSession, request: Request, address: Address, at: datetime) -> None:
    """Count a mail that is asked for; raises `TooOften`. Known and unknown addresses count alike."""
    state = request.app.state
    network = network_of(request.client.host if request.client else None)
    await count(session, state.counting_key, state.settings.network_limit, network, at)
    await count(session, state.counting_key, state.settings.address_limit, address.key, at)


def refusal(request: Request, error: TooOften) -> FormError:
    """The limit by name and when to try again, beside the address."""
    words = request.app.state.pages.gettext(reader_language(request).locale, REACHED[error.limit.counted])
    time = error.until.astimezone(STOCKHOLM).strftime("%H.%M")
    return FormError("email", words.format(most=error.limit.most, time=time))
