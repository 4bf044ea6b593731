"""An item's files as a browser shows them: it decodes them, and it did not write them."""

import os
from pathlib import Path

import pytest
from tests.accessible import barriers
from tests.content_service import running_content
from tests.files import jpeg, pdf, photograph, picture, png
from tests.pages.visitor import SIZES
from tests.servers.migrated import migrated_sqlite

PICTURES = os.environ.get("TEST_PICTURES", "")
IMAGES = """async () => {
    for (const image of document.images) { image.loading = 'eager'; await image.decode(); }
    return [...document.images].map(image => [image.naturalWidth, image.naturalHeight]);
}"""


@pytest.fixture
async def content(tmp_path):
    async with running_content(migrated_sqlite("content", tmp_path)) as content:
        yield content


async def test_a_browser_shows_what_was_attached_wide_and_narrow(content, browser_page):
    complaints, asked = [], []

    async def answer(route):
        asked.append(route.request.url)
        got = await content.site.get(route.request.url)
        await route.fulfill(status=got.status_code, headers=dict(got.headers), body=got.content)

    item = await content.draft(title="Fyra myndigheter, en väg", lead="Så ser samarbetet ut.", body="Läs hela planen.")
    wide = jpeg(picture(1200, 675))
    words = {"alt": "Fyra stigar möts i en väg", "byline": "Åsa Öst", "rights": "Fri att använda"}
    for file, name, told in (
        (wide, "vagen.jpg", {**words, "title": "Vägen genom länet."}),
        (photograph(orientation=6), "stående.jpg", words),
        (png(), "diagram.png", words),
        (pdf(), "Verksamhetsplan 2027.pdf", {"title": "Verksamhetsplan 2027", "byline": "Förbundet"}),
        (pdf(2), "Ett mycket långt namn utan titel " + "x" * 60 + ".pdf", {}),
    ):
        sent = await content.api.post(f"/items/{item['id']}/attachments", files={"file": (name, file)}, data=told)
        assert sent.status_code == 201, sent.text
    await content.api.post(f"/items/{item['id']}/publish")

    browser_page.on("console", lambda message: complaints.append(message.text))
    await browser_page.route("**/*", answer)
    await browser_page.goto("https://nyheter.example/nyheter/fyra-myndigheter-en-vag")
    sizes = await browser_page.evaluate(IMAGES)
    assert sizes == [[1200, 675], [40, 60], [60, 40]]
    for size in SIZES:
        await browser_page.set_viewport_size(size)
        if PICTURES:
            await browser_page.screenshot(path=Path(PICTURES) / f"files-{size['width']}.png", full_page=True)
        assert await browser_page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert await barriers(browser_page) == []
    assert complaints == []
    await browser_page.get_by_text("Bilden i full storlek").nth(1).click()
    assert await browser_page.evaluate("document.images[0].naturalWidth") == 40, "it opens although it may do nothing"
    assert all(url.startswith("https://nyheter.example/") for url in asked)
