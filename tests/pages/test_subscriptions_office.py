"""Somebody at the office keeps the register, in a real browser: by keyboard alone, wide and narrow."""

import pytest
from httpx2 import AsyncClient
from pydantic import SecretStr
from tests.pages.test_subscriptions_desk_page import NOON, service
from tests.pages.visitor import Visitor, tab_into

from shared.contracts.news import Audience, Locale
from shared.ids import new_id
from shared.service import Service
from subscriptions import people
from subscriptions.addresses import parse
from subscriptions.models import OrganisationKind
from subscriptions.subscribing import values_of

__all__ = ["service"]

KEY = "bk_office_key-of-the-tests"
LONG_NAME = "Barometern-Oskarshamns-Tidningens gemensamma nyhetsredaktion"
LONG_ADDRESS = "anna-karin.bengtsson-lindqvist.samordnare@kommunalforbundet-kalmarsund.example"


@pytest.fixture
async def register(service: Service) -> None:
    service.app.state.settings = service.settings.model_copy(update={"admin_key": SecretStr(KEY)})
    area = frozenset({"0880", "0881"})
    async with service.database.transaction() as session:
        paper = await people.insert_organisation(session, OrganisationKind.NEWSROOM, LONG_NAME, area, NOON)
        assert paper is not None
        for address, name in (("eva@kalmar.example", "Eva Ek"), (LONG_ADDRESS, ""), ("bo@kalmar.example", "Bo Alm")):
            key = new_id()
            await people.insert_subscriber(session, {"id": key, **values_of(parse(address), name, Locale.SV, NOON)})
            await people.put_roles(session, [people.role_values(key, Audience.NEWSROOM, paper.id)])


async def test_the_office_works_by_keyboard(service: Service, register: None, visitor: Visitor) -> None:
    page, site = visitor.page, service.settings.public_url
    await page.goto(f"{site}/kansli")
    await visitor.look("office-sign-in", "Logga in på kansliets sidor")
    await tab_into(page, "nyckel")
    await page.keyboard.type("bk_wrong_key")
    await visitor.press("Logga in")
    await visitor.look("office-sign-in-faulty", "Nyckeln går inte att använda.")
    await tab_into(page, "nyckel")
    await page.keyboard.type(KEY)
    await visitor.press("Logga in")
    await visitor.look("office-overview", "Översikt", "Det finns ingenting att göra.")
    await visitor.press("Personer")
    await visitor.look("office-people", "Personer", LONG_ADDRESS, "Eva Ek", LONG_NAME)
    await tab_into(page, "sok")
    await page.keyboard.type("baro")
    await tab_into(page, "kommun")
    await page.keyboard.type("Nybro")
    await visitor.press("Visa")
    await visitor.look("office-people-places", "Organisationer och grupper", LONG_NAME, "Ingen passar")
    await visitor.press(LONG_NAME)
    await visitor.look("office-people-within", f"Bara de som hör till {LONG_NAME}.", "Eva Ek")
    await visitor.press("Eva Ek")
    await visitor.look("office-person", "Eva Ek", "Pressregister")
    await visitor.press("Lägg till en roll")
    await visitor.look("office-role", "Lägg till en roll för Eva Ek")
    await visitor.press("Lägg till")
    await visitor.look("office-role-faulty", "Välj en målgrupp.")
    await page.go_back()
    await page.go_back()
    await visitor.press("Ändra uppgifterna")
    await tab_into(page, "email")
    await page.keyboard.type("eva@")
    await visitor.press("Spara")
    await visitor.look("office-edit-faulty", "Något behöver rättas")
    await tab_into(page, "email")
    await page.keyboard.type("eva.ek@kalmar.example")
    await visitor.press("Spara")
    await visitor.look("office-saved", "Ändringarna är sparade.", "eva.ek@kalmar.example")
    await visitor.press("Stoppa mejlen till personen")
    await visitor.look("office-stop", "Stoppa mejlen till Eva Ek")
    await tab_into(page, "note")
    await page.keyboard.type("Bad per telefon")
    await visitor.press("Stoppa mejlen")
    await visitor.look("office-stopped", "Bad per telefon", "Upphäv stoppet")
    await visitor.press("Radera personen")
    await visitor.look("office-erase", "Radera Eva Ek?", "Det går inte att ångra.")
    await visitor.press("Radera personen")
    await visitor.look("office-erased", "Personen är raderad.")
    await visitor.press("Lägg till en person")
    await visitor.look("office-new", "Kommuner och mandatperiod")
    await visitor.press("Logga ut")
    await visitor.look("office-signed-out", "Du är utloggad.")
    assert visitor.asked == {site}
    assert [one for one in visitor.complaints if "403" not in one and "422" not in one] == []


async def test_sign_ins_are_ended_by_keyboard(service: Service, register: None, visitor: Visitor) -> None:
    page, site = visitor.page, service.settings.public_url
    for _ in range(2):
        async with AsyncClient(base_url=site) as elsewhere:
            await elsewhere.post("/kansli/logga-in", data={"nyckel": KEY}, headers={"Origin": site})
    await page.goto(f"{site}/kansli")
    await tab_into(page, "nyckel")
    await page.keyboard.type(KEY)
    await visitor.press("Logga in")
    await visitor.press("Inloggningar")
    await visitor.look("office-sessions", "Inloggningar", "Den här", "Senast använd", "Känner du inte igen")
    await visitor.press(await page.locator("main .entries a").first.inner_text())
    await visitor.look("office-session-end", "Avsluta inloggningen?")
    await visitor.press("Avsluta")
    await visitor.look("office-session-end-faulty", "Skriv eller klistra in nyckeln.")
    await tab_into(page, "nyckel")
    await page.keyboard.type(KEY)
    await visitor.press("Avsluta")
    await visitor.look("office-session-ended", "Inloggningen är avslutad.", "Avsluta alla andra")
    await visitor.press("Avsluta alla andra")
    await tab_into(page, "nyckel")
    await page.keyboard.type(KEY)
    await visitor.press("Avsluta")
    await visitor.look("office-sessions-ended", "Alla andra inloggningar är avslutade.", "Ingen annan är inloggad")
    assert [one for one in visitor.complaints if "422" not in one] == []
