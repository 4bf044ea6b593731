"""The HTML parts in a browser: readable on a phone, in light and in dark, and nothing fetched."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser
from tests.servers.chromium import launched
from tests.unit.distributor.mail_examples import dispatch, html_of, item, of_item, of_request, report, settings

from distributor.mail.composer import Composer
from shared.contracts.mail import Form
from shared.contracts.news import Audience, Locale

LONG_WORD = "Arbetslivsinriktadrehabiliteringssamordningskonferens" * 2
WIDE = "https://nyheter.kalmar.example/" + "w" * 200

# The lowest contrast of any text with the ground it stands on: WCAG 2.2, 1.4.3.
LOWEST_CONTRAST = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const part = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = channels(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  let lowest = {ratio: 21};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    const pair = [light(channels(getComputedStyle(element).color)), light(ground(element))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < lowest.ratio) lowest = {ratio, text: walker.currentNode.data};
  }
  return lowest;
}"""


def letters() -> dict[str, Any]:
    wide = item(
        title=LONG_WORD, links=({"label": WIDE, "url": WIDE},), body_html=f"<p>{WIDE}</p><blockquote>x</blockquote>"
    )
    newsroom = {"audience": Audience.NEWSROOM}
    return {
        "press": dispatch(form=Form.PRESS, **newsroom),
        "wide press": dispatch(of_item(wide), form=Form.PRESS, **newsroom),
        "report in english": dispatch(of_item(report()), locale=Locale.EN),
        "correction": dispatch(of_item(item(), note="Fel " + WIDE), form=Form.CORRECTION),
        "withdrawal": dispatch(of_item(item(), note="Fel."), form=Form.WITHDRAWAL, **newsroom),
        "confirm": dispatch(of_request(action_url=WIDE), form=Form.CONFIRM),
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """One for all: starting it takes far longer than to look at a mail."""
    async with launched(chromium) as browser:
        yield browser


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", letters())
async def test_a_mail_is_readable_on_any_screen(browser: Browser, name: str, scheme: Any) -> None:
    page = await browser.new_page(viewport={"width": 320, "height": 700}, color_scheme=scheme)
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    await page.set_content(html_of(Composer(settings()).compose(letters()[name]).data))

    assert await page.evaluate("document.documentElement.scrollWidth") <= 320
    lowest = await page.evaluate(LOWEST_CONTRAST)
    assert lowest["ratio"] >= 4.5, lowest
    assert not fetched
    await page.close()
