"""A contact person keeps a group, in a real browser: by keyboard alone, wide and narrow."""

from uuid import UUID

import pytest
from sqlalchemy import func, select
from tests.integration.subscriptions.conftest import emitted
from tests.pages.test_subscriptions_desk_page import NOON, service
from tests.pages.visitor import Visitor

from shared.contracts.news import Audience, Locale
from shared.ids import new_id
from shared.service import Service
from subscriptions import people
from subscriptions.addresses import parse
from subscriptions.groups import members
from subscriptions.models import Role
from subscriptions.subscribing import values_of

__all__ = ["service"]

LONG_NAME = "Lokala samverkansgruppen Kalmar-Mörbylånga-Borgholm-Oskarshamn"
LONG_ADDRESS = "anna-karin.bengtsson-lindqvist.samordnare@kommunalforbundet-kalmarsund.example"


@pytest.fixture
async def group(service: Service) -> UUID:
    async with service.database.transaction() as session:
        group = await people.insert_group(session, LONG_NAME, frozenset({"0880", "0840", "0885", "0882"}), NOON)
        assert group is not None
        ids = []
        for address, name in (("eva@kalmar.example", "Eva Ek"), (LONG_ADDRESS, ""), ("bo@kalmar.example", "Bo Alm")):
            ids.append(new_id())
            await people.insert_subscriber(session, {"id": ids[-1], **values_of(parse(address), name, Locale.SV, NOON)})
            await people.put_roles(session, [people.role_values(ids[-1], Audience.COLLABORATION_GROUP, group.id)])
        contact = await people.subscriber(session, ids[0])
        assert contact is not None
        await members.name_contact(session, service.app.state.links, group, contact, NOON)
    return group.id


async def newest(service: Service, address: str) -> str:
    mails = [event.data for event in await emitted(service.database, "mail.requested")]
    theirs = [mail for mail in mails if mail["recipients"][0]["address"] == address]
    return str(max(theirs, key=lambda mail: mail["subject_id"])["request"]["action_url"])


async def test_a_contact_person_keeps_a_group_by_keyboard(service: Service, group: UUID, visitor: Visitor) -> None:
    page = visitor.page
    await page.goto(await newest(service, "eva@kalmar.example"))
    await visitor.look("group", LONG_NAME, "Borgholm, Kalmar, Mörbylånga, Oskarshamn", "Bjud in")
    await page.get_by_label("E-postadress").fill("ny@")
    await visitor.press("Skicka inbjudan")
    await visitor.look("group-faulty", "Något behöver rättas")
    await page.get_by_label("E-postadress").fill("ny@kalmar.example")
    await page.get_by_label("Namn").fill("Ny Person")
    await visitor.press("Skicka inbjudan")
    await visitor.look("group-invited", "Är personen inte redan med har vi mejlat en inbjudan.")
    await visitor.press("Mejla mig länken")
    await visitor.look("group-mailed", "Vi har mejlat dig en länk till medlemmarna.")
    await page.goto(await newest(service, "eva@kalmar.example"))
    await visitor.look("members", LONG_ADDRESS, "Bo Alm", "kontaktperson", "Ny Person", "gäller till")
    await visitor.press("Ta bort ur gruppen")
    await visitor.look("members-removed", "Medlemmen är borttagen")
    await page.goto(await newest(service, "eva@kalmar.example"))
    await visitor.look("group-undo", "Vill du ångra ändringen?", "En medlem togs bort ur gruppen.")
    await visitor.press("Ja, ångra ändringen")
    await visitor.look("group-undone", "Ändringen är ångrad")
    await page.goto(await newest(service, "ny@kalmar.example"))
    await visitor.look("invitation", "Vill du vara med i gruppen?", LONG_NAME)
    await visitor.press("Ja, jag vill vara med")
    await visitor.look("invitation-joined", "Du är med i gruppen")
    await page.goto(f"{service.settings.public_url}/prenumeration/inbjudan/none")
    await visitor.look("invitation-ended", "Inbjudan gäller inte längre")
    async with service.database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(Role).where(Role.group_id == group)) == 4
    assert visitor.asked == {service.settings.public_url}
    assert [one for one in visitor.complaints if "422" not in one and "404" not in one] == []
