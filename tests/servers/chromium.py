"""The browser for tests of pages: the machine's own Chromium, installed on Debian as root if it is missing."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, async_playwright

from tests.servers.finding import ServerUnavailable, can_install, install

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")

# Nothing but what the page under test asks for may leave the browser.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium_path() -> str:
    """Raises ServerUnavailable."""
    if found := _found():
        return found
    if can_install():
        install("chromium")
    if found := _found():
        return found
    raise ServerUnavailable("The tests of pages need a browser: install chromium (make test as root on Debian does).")


@asynccontextmanager
async def launched(path: str) -> AsyncIterator[Browser]:
    """A browser of its own; it belongs to the event loop that runs now."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        await browser.close()


def _found() -> str | None:
    on_path = (shutil.which(name) for name in NAMES)
    return next(filter(None, on_path), str(MAC) if MAC.exists() else None)
