"""A newsroom answers whether its desk is right, in a real browser: by keyboard alone, wide and narrow."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select
from tests.pages.visitor import Visitor, tab_into
from tests.servers.migrated import migrated_sqlite

from shared.clock import FixedClock
from shared.contracts.news import Audience, Locale
from shared.ids import new_id
from shared.service import HttpServer, Service
from shared.web.static import static_files
from subscriptions import people
from subscriptions.addresses import parse
from subscriptions.app import build
from subscriptions.desks.desks import name_desk
from subscriptions.desks.models import Desk, Step
from subscriptions.models import OrganisationKind
from subscriptions.settings import SubscriptionsSettings
from subscriptions.subscribing import values_of
from subscriptions.tasks.models import Task

NOON = datetime(2026, 5, 12, 10, 0, tzinfo=UTC)
LONG_NAME = "Barometern-Oskarshamns-Tidningens gemensamma nyhetsredaktion"


@pytest.fixture
async def service(tmp_path: Path, free_port: int) -> AsyncIterator[Service]:
    """The service on a real port."""
    url = migrated_sqlite("subscriptions", tmp_path)
    settings = SubscriptionsSettings(
        database_url=url,
        broker_url="embedded:unused",
        secret_keys=("k" * 40,),
        public_url=f"http://127.0.0.1:{free_port}",
        host="127.0.0.1",
        port=free_port,
    )
    service = build(settings, FixedClock(NOON))
    static_files(service.app)
    async with served(service):
        yield service
    await service.database.dispose()


@asynccontextmanager
async def served(service: Service) -> AsyncIterator[None]:
    server = HttpServer(service.app, service.settings)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield
    server.should_exit = True
    await serving


@pytest.fixture
async def newsroom(service: Service) -> UUID:
    async with service.database.transaction() as session:
        area, desk = frozenset({"0880", "0881"}), new_id()
        paper = await people.insert_organisation(session, OrganisationKind.NEWSROOM, LONG_NAME, area, NOON)
        assert paper is not None
        await people.insert_subscriber(
            session, {"id": desk, **values_of(parse("red@barometern.example"), "", Locale.SV, NOON)}
        )
        await people.put_roles(session, [people.role_values(desk, Audience.NEWSROOM, paper.id)])
        subscriber = await people.subscriber(session, desk)
        await name_desk(session, paper.id, subscriber, NOON, service.app.state.settings.desk_rhythm)
    return paper.id


async def test_a_newsroom_answers_by_keyboard(service: Service, newsroom: UUID, visitor: Visitor) -> None:
    page, link = visitor.page, service.app.state.links.desk(newsroom, 1)
    await page.goto(link)
    await visitor.look("desk", "Är det här fortfarande rätt?", LONG_NAME, "Kalmar, Nybro", "Alla ämnen")
    async with service.database.transaction() as session:  # the mail has just gone out
        desk, rhythm = await session.get_one(Desk, newsroom), service.app.state.settings.desk_rhythm
        desk.step, desk.due_at = Step.REMIND, NOON + rhythm.answer_within
    await visitor.press("Ja, allt stämmer")
    await visitor.look("desk-hasty", "Svaret kom så snart efter mejlet", "Skriv ordet ja")
    await tab_into(page, "ord")
    await page.keyboard.type("ja")
    await visitor.press("Ja, allt stämmer")
    await visitor.look("desk-yes", "Tack för svaret", "frågar igen om ett halvår")
    await page.goto(link)
    await page.get_by_label("Annan e-postadress till redaktionen").fill("red@")
    await page.get_by_label("Emmaboda").check()
    await visitor.press("Skicka ändringarna")
    await visitor.look("desk-faulty", "Något behöver rättas")
    assert await page.get_by_label("Annan e-postadress till redaktionen").input_value() == "red@"
    assert await page.get_by_label("Emmaboda").is_checked()
    await page.get_by_label("Annan e-postadress till redaktionen").fill("")
    await visitor.press("Skicka ändringarna")
    await visitor.look("desk-wish", "Tack för svaret", "Vi ser över det du skrev")
    await page.goto(f"{link}?lang=en")
    await visitor.look("desk-english", "Is this still right?", "Covers")
    async with service.database.reading() as session:
        [task] = await session.scalars(select(Task))
    assert task.details["municipalities"] == ["0862", "0880", "0881"]
    assert visitor.asked == {service.settings.public_url}
    assert [one for one in visitor.complaints if "422" not in one] == []
