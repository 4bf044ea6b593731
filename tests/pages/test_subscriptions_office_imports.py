"""Lists come in on the office's pages, in a real browser: by keyboard alone, wide and narrow."""

from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.eventually import eventually
from tests.pages.test_subscriptions_desk_page import service
from tests.pages.test_subscriptions_office import KEY
from tests.pages.visitor import Visitor, tab_into

from shared.service import Service
from subscriptions.imports.worker import ImportWorker

__all__ = ["service"]

LONG_ADDRESS = "anna-karin.bengtsson-lindqvist.samordnare@kommunalforbundet-kalmarsund.example"
SEAT = ";Kommunfullmäktige;Kalmar;2022-10-15;2026-10-14\n"
ROLL = (
    f"E-post;Namn;Fullmäktige;Kommun;Mandat från;Mandat till\n{LONG_ADDRESS};Anna-Karin{SEAT}bo@kalmar.example;Bo{SEAT}"
)
FAULTY = "e-post;namn\nanna@;Anna\nbo@kalmar.example,Bo\n"
PUBLIC = "e-post;namn\n" + "".join(f"p{number}@kalmar.example;Person {number}\n" for number in range(30))


async def choose(visitor: Visitor, file: Path, text: str, kind: str) -> None:
    """By keyboard: the kind, the file, and off it goes."""
    file.write_text(text, encoding="cp1252")
    page = visitor.page
    await visitor.press("Skicka in en lista")
    await tab_into(page, "lista-newsroom")  # a group of radio buttons is one stop: arrows choose in it
    for _ in range(["newsroom", "politician", "roll", "collaboration_group", "agency_official", "public"].index(kind)):
        await page.keyboard.press("ArrowDown")
    assert await page.locator(f"#lista-{kind}").is_checked() or kind == "newsroom"
    await tab_into(page, "fil")
    async with page.expect_file_chooser() as chooser:
        await page.keyboard.press("Space")
    await (await chooser.value).set_files(file)
    await visitor.press("Kontrollera filen")


async def test_lists_come_in_by_keyboard(
    service: Service, visitor: Visitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.app.state.settings = service.settings.model_copy(update={"admin_key": SecretStr(KEY)})
    worker = next(found for found in service.workers if isinstance(found, ImportWorker))
    page, site = visitor.page, service.settings.public_url
    await page.goto(f"{site}/kansli/importer")
    await tab_into(page, "nyckel")
    await page.keyboard.type(KEY)
    await visitor.press("Logga in")
    await visitor.look("imports-none", "Importer", "Ingen har skickat in någon lista")
    await visitor.press("Skicka in en lista")
    await visitor.press("Kontrollera filen")
    await visitor.look("imports-form-faulty", "Välj en fil.", "Välj vilka listan gäller.", "Så ska filen se ut")
    await page.goto(f"{site}/kansli/importer")
    await choose(visitor, tmp_path / "fel.csv", FAULTY, "public")
    await visitor.look("import-stored", "Filen kontrolleras.", "Du kan stänga sidan.")
    assert await worker.advance()

    async def has_come_by_itself() -> bool:
        return "Rätta raderna" in await page.locator("main").inner_text()

    await eventually(has_come_by_itself, within=20)
    await visitor.look("import-refused", "Fel i filen", "Raden har komma mellan värdena", "saknas")
    await page.goto(f"{site}/kansli/importer")
    await choose(visitor, tmp_path / "fullmäktige-i-hela-kalmar-län-2022-2026-slutlig-version-3.csv", ROLL, "roll")
    await visitor.press("Sluta uppdatera sidan av sig själv")
    await visitor.look("import-still", "Uppdatera sidan av sig själv")
    assert await worker.advance()
    await visitor.press("Visa hur långt det har kommit")
    await visitor.look("import-roll", "Kommunfullmäktige, Kalmar", "Kommer in: 2", LONG_ADDRESS)
    await visitor.press("Läs in listan")
    assert await worker.advance()
    await page.goto(f"{site}/kansli/importer")
    await choose(visitor, tmp_path / "folk.csv", PUBLIC, "public")
    assert await worker.advance()
    await page.reload()
    await visitor.look("import-checked", "Ingenting är ändrat än.", "30")
    await visitor.press("Läs in listan")
    await visitor.look("import-writing", "0 av 30 rader är inlästa.")
    assert await worker.advance()
    await page.reload()
    await visitor.look("import-done", "Listan är inläst.")
    await visitor.press("Alla importer")
    await visitor.look("imports", "Har fel", "Inläst", "fullmäktige-i-hela-kalmar-län")
    assert visitor.asked == {site}
    assert [one for one in visitor.complaints if "422" not in one] == []
