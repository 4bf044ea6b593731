"""A visitor for all pages: everything is walked through in a wide window, and in the soak in a narrow one too."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser
from tests.pages.visitor import NARROW, WIDE, Visitor


@pytest.fixture(params=[pytest.param(WIDE, id="wide"), pytest.param(NARROW, id="narrow", marks=pytest.mark.soak)])
async def visitor(request: pytest.FixtureRequest, browser: Browser) -> AsyncIterator[Visitor]:
    context = await browser.new_context(locale="sv-SE", timezone_id="Europe/Stockholm", viewport=request.param)
    yield Visitor(await context.new_page(), request.param)
    await context.close()
