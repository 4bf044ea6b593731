"""Somebody at the office keeps the register, in a real browser: by keyboard alone, wide and narrow."""

import pytest
from pydantic import SecretStr
from tests.pages.test_endpoint_page import Visitor
from tests.pages.test_subscriptions_desk_page import NOON, service, visitor
from tests.pages.test_subscriptions_keyboard import tab_into

from shared.contracts.news import Audience, Locale
from shared.ids import new_id
from shared.service import Service
from subscriptions import people
from subscriptions.addresses import parse
from subscriptions.models import OrganisationKind
from subscriptions.subscribing import values_of

__all__ = ["service", "visitor"]

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
    await visitor.press("Logga ut")
    await visitor.look("office-signed-out", "Du är utloggad.")
    assert visitor.asked == {site}
    assert [one for one in visitor.complaints if "403" not in one] == []
