"""The office's rooms in a real browser: organisations, groups, tasks, stops, coverage; by keyboard, wide and narrow."""

from datetime import date
from uuid import UUID

import pytest
from pydantic import SecretStr
from tests.pages.test_subscriptions_desk_page import NOON, service
from tests.pages.test_subscriptions_office import KEY, LONG_ADDRESS, LONG_NAME
from tests.pages.visitor import Visitor, tab_into

from shared.contracts.news import Audience, Locale
from shared.ids import new_id
from shared.service import Service
from subscriptions import people
from subscriptions.addresses import parse
from subscriptions.history import Source
from subscriptions.models import OrganisationKind, Suppression
from subscriptions.subscribing import values_of
from subscriptions.tasks.tasks import About, TaskKind, raise_task
from subscriptions.weeding_log import Weeded, note

__all__ = ["service"]

LONG_GROUP = "Samverkansgruppen för arbetsmarknad och rehabilitering i Nybro, Emmaboda och Torsås"


@pytest.fixture
async def register(service: Service) -> None:
    """A newsroom with a wish, a council with a term, a group with a member, somebody who is stopped."""
    service.app.state.settings = service.settings.model_copy(update={"admin_key": SecretStr(KEY)})
    async with service.database.transaction() as session:

        async def person(address: str, name: str) -> UUID:
            key = new_id()
            await people.insert_subscriber(session, {"id": key, **values_of(parse(address), name, Locale.SV, NOON)})
            return key

        area = frozenset({"0880", "0881"})
        paper = await people.insert_organisation(session, OrganisationKind.NEWSROOM, LONG_NAME, area, NOON)
        council = await people.insert_organisation(
            session, OrganisationKind.COUNCIL, "Kommunfullmäktige", frozenset(), NOON
        )
        group = await people.insert_group(session, LONG_GROUP, area, NOON)
        assert paper is not None and council is not None and group is not None
        desk, bo = await person(LONG_ADDRESS, ""), await person("bo@kalmar.example", "Bo Alm")
        seat = {"municipalities": {"0880"}, "mandate_from": NOON.date(), "mandate_until": date(2030, 10, 14)}
        await people.put_roles(
            session,
            [
                people.role_values(desk, Audience.NEWSROOM, paper.id),
                people.role_values(bo, Audience.NEWSROOM, paper.id),
                people.role_values(bo, Audience.POLITICIAN, council.id, **seat),
                people.role_values(bo, Audience.COLLABORATION_GROUP, group.id),
            ],
        )
        about = About(organisation_id=paper.id, subscriber_id=desk)
        wish = {"address": LONG_ADDRESS, "municipalities": ["0881"], "topics": ["results"], "message": "Ny\nadress"}
        await raise_task(session, TaskKind.DESK_WISH, about, NOON, wish)
        await raise_task(session, TaskKind.GROUP_CONTACT_BOUNCED, About(group_id=group.id, subscriber_id=bo), NOON)
        await note(session, Weeded.HISTORY, NOON, 12_345)
        session.add(
            Suppression(
                id=new_id(), subscriber_id=desk, reason="hard_bounce", source=Source.BOUNCE, note="5.1.1",
                suppressed_at=NOON,
            )
        )  # fmt: skip


async def test_the_rooms_work_by_keyboard(service: Service, register: None, visitor: Visitor) -> None:
    page, site = visitor.page, service.settings.public_url
    await page.goto(f"{site}/kansli")
    await tab_into(page, "nyckel")
    await page.keyboard.type(KEY)
    await visitor.press("Logga in")
    await visitor.look("rooms-overview", "Uppgifter 2", "Ingen lista väntar", "Adresser som inte tar emot våra mejl: 1")
    await visitor.press("Uppgifter")
    await visitor.look("rooms-tasks", "En redaktion vill ändra något", LONG_GROUP)
    await visitor.press(f"En redaktion vill ändra något: {LONG_NAME}")
    await visitor.look("rooms-task", "Önskad adress", LONG_ADDRESS, "Nybro", "Ändra det du håller med om.")
    await visitor.press("Stäng uppgiften")
    await visitor.look("rooms-task-faulty", "Skriv hur uppgiften löstes.")
    await tab_into(page, "hur")
    await page.keyboard.type("Adressen är ändrad")
    await visitor.press("Stäng uppgiften")
    await visitor.look("rooms-task-closed", "Uppgiften är stängd.")
    await visitor.press("Organisationer")
    await visitor.look("rooms-organisations", LONG_NAME, "Fullmäktige eller nämnd")
    await visitor.press("Kommunfullmäktige")
    await visitor.look("rooms-council", "Mandatperioder", "Bo Alm")
    await page.go_back()
    await visitor.press(LONG_NAME)
    await visitor.look("rooms-newsroom", "Redaktionen har ingen adress än.", LONG_ADDRESS)
    await visitor.press("Välj redaktionsadress")
    await visitor.look("rooms-newsroom-faulty", "Välj en av redaktionens adresser.")
    chosen = await page.locator("input[name=adress]").first.get_attribute("id")
    await tab_into(page, str(chosen))
    await page.keyboard.press("Space")
    await visitor.press("Välj redaktionsadress")
    await visitor.look("rooms-newsroom-desk", "Redaktionsadressen är vald.", "Nästa fråga om adress och bevakning")
    await visitor.press("Ändra organisationen")
    await visitor.look("rooms-organisation-form", "Ändra organisationen", "Nybro")
    await visitor.press("Grupper")
    await visitor.look("rooms-groups", LONG_GROUP, "Personer: 1")
    await visitor.press(LONG_GROUP)
    await visitor.press("Skicka inbjudan")
    await visitor.look("rooms-group-faulty", "Skriv en e-postadress.")
    await tab_into(page, "email")
    await page.keyboard.type("cia@nybro.example")
    await visitor.press("Skicka inbjudan")
    await visitor.look("rooms-group", "Inbjudan är skickad.", "cia@nybro.example", "Vem är kontaktperson?")
    await visitor.press("Alla grupper")
    await visitor.press("Lägg till en grupp")
    await visitor.press("Spara")
    await visitor.look("rooms-group-form-faulty", "Något behöver rättas")
    await visitor.press("Stopp")
    await visitor.look("rooms-stops", LONG_ADDRESS, "5.1.1")
    await visitor.press("Täckning")
    await visitor.look("rooms-coverage", "Täckning per kommun", "Ingen redaktion nås", "Borgholm")
    await visitor.press("Dataskydd")
    await visitor.look(
        "rooms-data-protection", "Hämta registret (CSV)", "Pressregister", "Historik för raderade personer"
    )
    await page.goto(f"{site}/kansli?lang=en")
    await visitor.look("rooms-overview-english", "Overview", "Addresses that do not take our mail: 1")
    assert visitor.asked == {site}
    assert [one for one in visitor.complaints if "422" not in one] == []
