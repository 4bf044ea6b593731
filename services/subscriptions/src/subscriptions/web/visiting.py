"""Who holds a preference link: read from the database, in their language. Whatever is wrong with a link, the answer is
the same page, which offers to mail a new one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.news import Locale
from shared.tokens import Claim, InvalidToken
from shared.web.dates import STOCKHOLM
from shared.web.pages import ReaderLanguage, reader_language
from shared.web.visits import PRIVATE
from subscriptions import people
from subscriptions.frequencies import Frequencies, frequencies_of
from subscriptions.links import PREFERENCES
from subscriptions.models import Subscriber
from subscriptions.people import RoleRow
from subscriptions.stops import Person


class DeadLink(Exception):
    """The link opens nothing: never ours, retired, or its person is gone."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whoever holds the link, as the database has them."""

    person: Person
    roles: Sequence[RoleRow]
    frequencies: Frequencies
    language: ReaderLanguage

    @property
    def id(self) -> UUID:
        return self.person.subscriber.id


async def visitor(request: Request, session: AsyncSession, token: str) -> Visitor:
    """Whose preference page it is; `DeadLink` where it is nobody's."""
    try:
        claim: Claim = request.app.state.links.read_preferences(linked(request, PREFERENCES, token))
    except InvalidToken as error:
        raise DeadLink from error
    row = await people.subscriber(session, claim.subject)
    if row is None or row.generation != claim.generation:
        raise DeadLink
    return await visitor_of(request, session, row)


async def visitor_of(request: Request, session: AsyncSession, row: Subscriber) -> Visitor:
    """A subscriber with all that stands on the pages."""
    left = await people.left_by(session, [row.id])
    roles = await people.roles_of(session, [row.id])
    chosen = await frequencies_of(session, [row.id])
    person = Person(row, now(request), left[row.id])
    held = people.in_force(roles[row.id], now(request).astimezone(STOCKHOLM).date())
    return Visitor(person, held, chosen.get(row.id, {}), language_of(request, row))


def linked(request: Request, purpose: str, token: str) -> str:
    """The link's token, also where the page is visited under its clean address; may raise `InvalidToken`."""
    found: str = request.app.state.visits.token(request, purpose, token)
    return found


def onward(request: Request, purpose: str, token: str) -> Response | None:
    """Where the GET of a link that holds leads: to a cookie and the clean address."""
    place: Response | None = request.app.state.visits.onward(request, purpose, token)
    return place


def own_page(request: Request, row: Subscriber) -> str:
    """The path of the subscriber's preference page."""
    state = request.app.state
    link: str = state.links.preferences(row.id, row.generation)
    return link.removeprefix(state.settings.public_url)


def language_of(request: Request, row: Subscriber) -> ReaderLanguage:
    """The language chosen on the page, else the subscriber's own."""
    language = reader_language(request)
    return language if language.chosen else ReaderLanguage(Locale(row.locale))


def dead_link(request: Request) -> Response:
    """The same answer whatever is wrong with the link: it tells nobody anything, and helps whoever it belonged to."""
    answer: Response = request.app.state.pages.render(request, "dead_link.html", status=404, headers=PRIVATE)
    return answer


def now(request: Request) -> datetime:
    """The present."""
    present: datetime = request.app.state.clock.now()
    return present
