"""Somebody at a browser: walks through pages by keyboard, and looks at each of them wide and narrow.

With TEST_PICTURES=<directory> each page that is looked at is kept there as a picture.
"""

import os
from pathlib import Path

from playwright.async_api import Page
from playwright.async_api import ViewportSize as Size
from tests.accessible import barriers

WIDE: Size = {"width": 1280, "height": 900}
NARROW: Size = {"width": 360, "height": 740}
SIZES = (WIDE, NARROW)
CUT_TABLES = "[...document.querySelectorAll('main .table-box')].filter(box => box.scrollWidth > box.clientWidth).length"
PICTURES = os.environ.get("TEST_PICTURES", "")


class Visitor:
    """Somebody who walks through our pages, whose browser has asked nobody but us, and complained of nothing."""

    def __init__(self, page: Page, size: Size) -> None:
        self.page = page
        self._size = size
        self.asked: set[str] = set()
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.add("/".join(request.url.split("/")[:3])))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("filechooser", lambda _: None)  # else the browser is told to leave it to us when the key is pressed

    async def look(self, name: str, *words: str) -> None:
        """The page shows `words`, has no barrier, and scrolls down alone, its tables too: wide and narrow."""
        text = await self.page.locator("main").inner_text()
        for word in words:
            assert word in text, text
        assert await self.page.evaluate("document.scripts.length") == 0
        for size in SIZES:
            await self.page.set_viewport_size(size)
            if PICTURES:
                await self.page.screenshot(path=Path(PICTURES) / f"{name}-{size['width']}.png", full_page=True)
            assert await self.page.evaluate("document.documentElement.scrollWidth") <= size["width"]
            assert await self.page.evaluate(CUT_TABLES) == 0
            assert await barriers(self.page) == []
        await self.page.set_viewport_size(self._size)

    async def tab_to(self, words: str) -> None:
        """By keyboard, past nothing that cannot be seen to have the focus."""
        for _ in range(100):
            await self.page.keyboard.press("Tab")
            focus = "[document.activeElement.innerText, getComputedStyle(document.activeElement).outlineStyle]"
            text, outline = await self.page.evaluate(focus)
            assert outline != "none", text
            if text.strip() == words:
                return
        raise AssertionError(words)

    async def press(self, words: str) -> None:
        await self.tab_to(words)
        async with self.page.expect_navigation():
            await self.page.keyboard.press("Enter")


async def tab_into(page: Page, field: str) -> None:
    """By keyboard into the field with this id."""
    for _ in range(100):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.id") == field:
            return
    raise AssertionError(field)
