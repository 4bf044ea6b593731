"""Counts what is done without signing in, and says in words which limit is reached."""

from datetime import datetime
from uuid import UUID

from fastapi import Request, Response
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.news import Locale
from shared.web.dates import STOCKHOLM
from shared.web.pages import FormError, Pages, ReaderLanguage, reader_language
from subscriptions.addresses import Address
from subscriptions.limits import Counted, TooOften, count, network_of


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


asks_refused = Counter(
    "budkavle_asks_refused", "Mails and changes asked for by strangers and not granted, by the limit", ["limit"]
)
PAUSE = "pause"
"""The one that is no count an hour: two such mails to an address come ten minutes apart."""
for limit in (*Counted, PAUSE):
    asks_refused.labels(limit)  # from nought: the alarm hears a number grow, not one that comes up as a thousand

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
        "Prenumerationen har ändrats fler än {most} gånger den senaste timmen. Du kan avsluta den och ångra "
        "det som har ändrats, men annat går att ändra först efter klockan {time}."
    ),
    Counted.SIGN_IN: _(
        "Det har gjorts fler än {most} försök att logga in från ditt nätverk den senaste timmen. "
        "Försök igen efter klockan {time}."
    ),
    Counted.UNDOING: _(
        "Fler än {most} ändringar har ångrats från ditt nätverk den senaste timmen. Försök igen efter klockan {time}."
    ),
}
UNDO = _("ångra")
WRITE_IT = _(
    "Det har gjorts många ändringar den senaste timmen, kanske av ett program som öppnar länkar. "
    "Skriv ordet ångra i rutan, så ändrar vi tillbaka direkt."
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


async def count_undoing(
    session: AsyncSession, request: Request, subscriber_id: UUID, written: str, at: datetime
) -> None:
    """Count what takes a change back, among the changes; raises `TooOften`.

    Where those are used up, a word has to be written, which no program does that submits forms as they stand. Then the
    person's network is what counts: neither a scanner nor a stranger elsewhere can use the owner's way back up.
    """
    state = request.app.state
    if not _is_undo(request, written):
        await count_change(session, request, subscriber_id, at)
        return
    network = network_of(request.client.host if request.client else None)
    await count(session, state.counting_key, state.settings.undoing_limit, f"{subscriber_id}\0{network}", at)


def _is_undo(request: Request, written: str) -> bool:
    """The word, in any of our languages: the page may have been in another than this request says."""
    pages = request.app.state.pages
    return written.casefold().strip(' .!”"') in {pages.gettext(locale, UNDO) for locale in Locale}


def refusal_to_undo(error: TooOften, language: ReaderLanguage, pages: Pages) -> FormError:
    """Beside the field that the word is written in."""
    said = WRITE_IT if error.limit.counted is Counted.PERSON else ""
    return _refusal(error, "ord", language.locale, pages, said)


def pausing(request: Request, error: TooOften, answer: Response) -> Response:
    """Says to programs too when the next try is heard."""
    answer.headers["Retry-After"] = str(round((error.until - request.app.state.clock.now()).total_seconds()))
    return answer


def refusal(request: Request, error: TooOften, field: str = "email") -> FormError:
    """The limit by name and when to try again, beside `field`."""
    return _refusal(error, field, reader_language(request).locale, request.app.state.pages)


def _refusal(error: TooOften, field: str, locale: Locale, pages: Pages, said: str = "") -> FormError:
    asks_refused.labels(error.limit.counted).inc()
    words = pages.gettext(locale, said or REACHED[error.limit.counted])
    time = error.until.astimezone(STOCKHOLM).strftime("%H.%M")
    return FormError(field, words.format(most=error.limit.most, time=time))
