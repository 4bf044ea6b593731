"""Asks every desk twice a year whether its address and beat are still right.

The question, the reminder, and after that a task for the editor: one step at a time, each in one short transaction that
holds the desk's row, writes what comes next and asks for the mail. Two workers never take the same desk; one that dies
leaves the desk as it was. A newsroom that is new gets its desk here.
"""

import asyncio
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, and_, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.clock import Clock
from shared.contracts.mail import Form
from shared.contracts.news import Locale
from shared.database import Database
from shared.tasks import pause
from subscriptions.desks import desks
from subscriptions.desks.desks import NEWSROOM, Rhythm
from subscriptions.desks.models import Desk, Step
from subscriptions.links import Links
from subscriptions.mailing import Addressee, Words, request_mail
from subscriptions.models import Organisation, OrganisationKind, Role, Subscriber
from subscriptions.tasks.tasks import About, TaskKind, raise_task
from subscriptions.wording import Wording

ROUND_S = 300.0
AT_A_TIME = 100


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


KNOWN = _("Vi skickar pressmeddelanden hit för {newsroom}. Så här har vi antecknat er bevakning: {area}.")
HOW = _("Svara med ett klick på sidan bakom knappen, eller skriv där vad som ska ändras. Vi frågar två gånger om året.")
QUESTION = Words(Form.PREFERENCES, _("Är det här fortfarande rätt redaktion och bevakning?"), (KNOWN, HOW), _("Svara"))
REMINDER = Words(
    Form.REMINDER,
    _("Påminnelse: är det här fortfarande rätt redaktion och bevakning?"),
    (KNOWN, HOW, _("Om vi inte får något svar hör vi av oss på annat sätt. Inga mejl till er slutar komma.")),
    _("Svara"),
)


class DeskCare:
    """Looks every five minutes for desks that are due."""

    name = "desk care"

    def __init__(self, database: Database, clock: Clock, links: Links, rhythm: Rhythm) -> None:
        self._database = database
        self._clock = clock
        self._links = links
        self._rhythm = rhythm

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if not await self.advance():
                await pause(stop, ROUND_S)

    async def advance(self) -> bool:
        """One step for one desk, or for new newsrooms; whether there was any."""
        now = self._clock.now()
        async with self._database.reading() as session:
            newcomers = await _without_desk(session)
            is_due = await session.scalar(select(exists().where(_due(now))))
        if newcomers:
            async with self._database.transaction() as session:
                for organisation_id in newcomers:
                    found = desks.obvious(await desks.holders(session, organisation_id))
                    await desks.name_desk(session, organisation_id, found, now, self._rhythm)
            return True
        if not is_due:
            return False
        async with self._database.transaction() as session:
            due = select(Desk).where(_due(now)).order_by(Desk.due_at).limit(1).with_for_update(skip_locked=True)
            desk = await session.scalar(due)
            if desk is not None:
                await self._step(session, desk, now)
        return desk is not None

    async def _step(self, session: AsyncSession, desk: Desk, now: datetime) -> None:
        about = About(organisation_id=desk.organisation_id, subscriber_id=desk.subscriber_id)
        subscriber = await self._subscriber(session, desk)
        if subscriber is None:
            await desks.name_desk(session, desk.organisation_id, None, now, self._rhythm)
            desk.step, desk.due_at = Step.ADDRESS, now + self._rhythm.between
        elif subscriber.suppressed_at is not None or subscriber.unsubscribed_at is not None:
            await raise_task(session, TaskKind.DESK_UNREACHABLE, about, now)
            desk.step, desk.due_at = Step.ASK, now + self._rhythm.between
        elif desk.step == Step.GIVE_UP:
            await raise_task(session, TaskKind.DESK_UNANSWERED, about, now)
            desk.step, desk.due_at = Step.ASK, (desk.asked_at or now) + self._rhythm.between
        else:
            await self._mail(session, desk, subscriber, REMINDER if desk.step == Step.REMIND else QUESTION, now)
            desk.asked_at = now if desk.step == Step.ASK else desk.asked_at
            desk.step = Step.REMIND if desk.step == Step.ASK else Step.GIVE_UP
            desk.due_at = now + self._rhythm.answer_within
        await session.flush()

    async def _subscriber(self, session: AsyncSession, desk: Desk) -> Subscriber | None:
        """Whose address it is, while they belong to the newsroom."""
        found = await desks.holders(session, desk.organisation_id)
        return next((subscriber for subscriber in found if subscriber.id == desk.subscriber_id), None)

    async def _mail(
        self, session: AsyncSession, desk: Desk, subscriber: Subscriber, words: Words, now: datetime
    ) -> None:
        newsroom = await session.get_one(Organisation, desk.organisation_id)
        locale = Locale(subscriber.locale)
        preferences = self._links.preferences(subscriber.id, subscriber.generation)
        addressee = Addressee(subscriber.id, subscriber.address, locale, preferences)
        url = self._links.desk(desk.organisation_id, desk.generation)
        area = Wording(locale).municipalities(newsroom.municipalities)
        await request_mail(session, addressee, words, url, now, newsroom=newsroom.name, area=area)


def _due(now: datetime) -> ColumnElement[bool]:
    return and_(Desk.step != Step.ADDRESS, or_(Desk.subscriber_id.is_(None), Desk.due_at <= now))


async def _without_desk(session: AsyncSession) -> list[UUID]:
    """Newsrooms with an address and no desk yet."""
    held = exists().where(Role.organisation_id == Organisation.id, Role.audience_rank == NEWSROOM)
    named = exists().where(Desk.organisation_id == Organisation.id)
    newsrooms = select(Organisation.id).where(Organisation.kind == OrganisationKind.NEWSROOM, held, ~named)
    return list(await session.scalars(newsrooms.order_by(Organisation.id).limit(AT_A_TIME)))
