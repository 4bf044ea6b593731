"""Sign-up, both levels of the preference page and undo in a real browser: by keyboard alone, without a barrier."""

from tests.integration.subscriptions.conftest import emitted
from tests.pages.test_subscriptions_desk_page import service
from tests.pages.visitor import Visitor, tab_into

from shared.service import Service

__all__ = ["service"]


async def newest_link(service: Service, subject: str) -> str:
    mail = (await emitted(service.database, "mail.requested"))[-1]
    assert mail.data["request"]["subject"] == subject
    return str(mail.data["request"]["action_url"])


async def test_from_the_sign_up_to_the_erasure_by_keyboard(service: Service, visitor: Visitor) -> None:
    page, site = visitor.page, service.settings.public_url
    await page.goto(f"{site}/prenumerera")
    await visitor.look("sign-up", "Prenumerera på våra nyheter", "Jag vill få nyheter med mejl")
    await tab_into(page, "email")
    await page.keyboard.type("anna@")
    await tab_into(page, "topics-results")
    await page.keyboard.press("Space")
    await tab_into(page, "frequency-immediate")
    await page.keyboard.press("ArrowUp")  # round to the last: weekly
    await visitor.press("Prenumerera")
    await visitor.look("sign-up-faulty", "Något behöver rättas")
    assert await page.locator("#topics-results").is_checked()
    assert await page.locator("#frequency-weekly").is_checked()
    await tab_into(page, "email")
    await page.keyboard.type("anna@kalmar.example")
    await visitor.press("Prenumerera")
    await visitor.look("signed-up", "Titta i din inkorg")
    await page.goto(await newest_link(service, "Bekräfta din prenumeration"))
    await visitor.look("confirm", "Ett klick återstår", "Resultat och statistik", "En gång i veckan")
    await visitor.press("Bekräfta prenumerationen")
    await visitor.look("confirmed", "Din prenumeration är bekräftad")
    await visitor.press("Se eller ändra vad du får")
    await visitor.look("preferences", "Varför du får mejl", "rör hela länet", "En gång i veckan", "Senaste ändringar")
    await visitor.tab_to("Olika ofta för olika ämnen")
    await page.keyboard.press("Enter")
    await tab_into(page, "frequency-results")
    await page.keyboard.press("ArrowDown")
    await tab_into(page, "paused_until")
    await page.keyboard.type("2026-06-01")
    await visitor.press("Spara mina val")
    await visitor.look("saved", "Dina val är sparade", "pausade till 1 juni 2026", "Resultat och statistik: Direkt")
    await page.goto(await newest_link(service, "Din prenumeration har ändrats"))
    await visitor.look(
        "undo", "Vill du ångra ändringen?", "Mejlen är pausade till 1 juni 2026", "Mejlen är inte pausade"
    )
    await visitor.press("Ja, ångra ändringen")
    await visitor.look("undone", "Ändringen är ångrad", "Mejlen är inte pausade")
    await visitor.press("Se eller ändra vad du får")
    await visitor.press("Mejla mig en länk till mina uppgifter")
    await visitor.look("fresh-link-mailed", "Titta i din inkorg")
    await second_level(service, visitor, await newest_link(service, "Länk till dina uppgifter"))
    assert visitor.asked == {site}
    assert [one for one in visitor.complaints if "422" not in one and "404" not in one] == []


async def second_level(service: Service, visitor: Visitor, link: str) -> None:
    page = visitor.page
    await page.goto(link)
    await visitor.look("own-data", "Dina uppgifter", "anna@kalmar.example", "Du kom med genom en anmälan")
    await tab_into(page, "new_address")
    await page.keyboard.type("anna@blåbär.example")
    await visitor.press("Byt adress")
    await visitor.look("moving-asked", "Titta i den nya inkorgen")
    moving = await newest_link(service, "Bekräfta din nya adress")
    await page.goto(link)
    await visitor.press("Ta bort mina uppgifter")
    await visitor.look("erase-faulty", "Skriv adressen som står ovanför")
    await page.goto(moving)
    await visitor.look("moving", "Bekräfta din nya adress")
    await visitor.press("Ja, mejla mig här")
    await visitor.look("moved", "Adressen är ändrad")
    away = (await emitted(service.database, "mail.requested"))[-2].data["request"]["action_url"]
    await page.goto(str(away))
    await visitor.look("taking-back", "Vill du ha tillbaka dina mejl hit?")
    await visitor.press("Ja, mejla mig här")
    await visitor.look("taken-back", "Adressen är ändrad tillbaka")
    await page.goto(link)
    await visitor.look("fresh-link-ended", "Länken gäller inte längre", "30 minuter")
    await page.goto(await newest_link(service, "Dina mejl kommer hit från och med nu"))
    await visitor.press("Mejla mig en länk till mina uppgifter")
    await page.goto(await newest_link(service, "Länk till dina uppgifter"))
    await tab_into(page, "own_address")
    await page.keyboard.type("anna@kalmar.example")
    await visitor.press("Ta bort mina uppgifter")
    await visitor.look("erased", "Dina uppgifter är borttagna")
    await page.goto(f"{service.settings.public_url}/prenumerera/bekrafta/none")
    await visitor.look("sign-up-expired", "Länken gäller inte längre", "sju dagar")
