"""The pages as a browser shows them: nothing overflows on a narrow screen, no script and no stranger is needed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from playwright.async_api import Browser
from sqlalchemy import insert
from tests.pages.visitor import PICTURES
from tests.servers.migrated import migrated_sqlite

from shared.clock import FixedClock
from shared.contracts.news import Audience, Locale
from shared.ids import new_id
from shared.service import HttpServer, Service
from shared.web.static import static_files
from subscriptions.addresses import parse
from subscriptions.app import build
from subscriptions.models import Group, Organisation, Role, Subscriber
from subscriptions.people import role_values
from subscriptions.settings import SubscriptionsSettings
from subscriptions.subscribing import values_of

NOON = datetime(2026, 5, 12, 10, 0, tzinfo=UTC)
SIZES = [(1280, 900), (360, 740)]
STICKING_OUT = """right => Array.from(document.querySelectorAll('main *'))
    .filter(element => element.getBoundingClientRect().right > right).map(element => element.innerText)"""


@pytest.fixture
async def site(tmp_path: Path, free_port: int) -> AsyncIterator[tuple[Service, UUID]]:
    """The service on a real port, with one person who is much involved."""
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
    person = await _fill(service)
    async with _served(service, settings):
        yield service, person
    await service.database.dispose()


@asynccontextmanager
async def _served(service: Service, settings: SubscriptionsSettings) -> AsyncIterator[None]:
    server = HttpServer(service.app, settings)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield
    server.should_exit = True
    await serving


async def _fill(service: Service) -> UUID:
    person, council, group = new_id(), new_id(), new_id()
    named = {"created_at": NOON, "municipalities": frozenset({"0880", "0885"})}
    name = "Kommunfullmäktige"
    team = "Lokala samverkansgruppen Kalmar-Mörbylånga-Borgholm"
    async with service.database.transaction() as session:
        values = values_of(parse("anna@kalmar.example"), "Anna", Locale.SV, NOON)
        await session.execute(insert(Subscriber), [{"id": person, **values}])
        row = {"id": council, "kind": "council", "name": name, "name_key": name.casefold(), **named}
        await session.execute(insert(Organisation), [row])
        await session.execute(insert(Group), [{"id": group, "name": team, "name_key": team.casefold(), **named}])
        roles = [
            role_values(person, Audience.POLITICIAN, council, municipalities=frozenset({"0880"})),
            role_values(person, Audience.COLLABORATION_GROUP, group),
        ]
        await session.execute(insert(Role), roles)
    return person


@pytest.mark.parametrize(("width", "height"), SIZES)
async def test_the_pages_work_without_script_at_any_width(
    width: int, height: int, site: tuple[Service, UUID], browser: Browser
) -> None:
    service, person = site
    links = service.app.state.links
    context = await browser.new_context(
        java_script_enabled=False, locale="sv-SE", viewport={"width": width, "height": height}
    )
    page = await context.new_page()
    faults: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url))

    async def look(name: str) -> None:
        if PICTURES:
            await page.screenshot(path=Path(PICTURES) / f"{name}-{width}.png", full_page=True)
        box = await page.locator("body").bounding_box()
        assert box is not None
        assert box["width"] <= width
        assert await page.evaluate(STICKING_OUT, width + 1) == []

    await page.goto(links.preferences(person, 1))
    await look("preferences")
    await page.get_by_label("Nyheter till allmänheten").check()
    await page.get_by_role("checkbox", name="Resultat och statistik").check()
    await page.get_by_label("Pausa mejlen till").fill("imorgon")
    await page.get_by_role("button", name="Spara mina val").click()
    await look("faulty")
    await page.get_by_role("link", name="Skriv datumet så här").click()
    assert await page.get_by_label("Pausa mejlen till").input_value() == "imorgon"
    assert await page.get_by_role("checkbox", name="Resultat och statistik").is_checked()
    await page.get_by_label("Pausa mejlen till").fill("2026-06-01")
    await page.get_by_role("button", name="Spara mina val").click()
    assert await page.get_by_role("status").inner_text() == "Dina val är sparade."
    await look("saved")
    await page.get_by_role("button", name="Avsluta alla mejl").click()
    await look("stopped")
    await page.get_by_role("button", name="Jag vill få mejl igen").click()

    await page.goto(links.unsubscribe(person, 1, Audience.POLITICIAN))
    await look("unsubscribe")
    await page.get_by_role("button", name="Ja, sluta skicka dem").click()
    await look("unsubscribed")
    await page.get_by_role("button", name="Ångra").click()
    await look("back")
    await page.goto(f"{service.settings.public_url}/prenumeration/none")
    await look("dead")
    await page.get_by_role("link", name="Få en ny länk").click()
    await page.get_by_label("Din e-postadress").fill("anna@")
    await page.get_by_role("button", name="Mejla mig en länk").click()
    await look("new-link")
    assert {url.split("/")[2] for url in asked} == {service.settings.public_url.split("/")[2]}
    assert [fault for fault in faults if "status of" not in fault] == []
    await context.close()
