"""What axe-core finds on a page that a browser shows: the rules of WCAG 2.2 A and AA, and its best practice."""

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
OPTIONS = {"runOnly": {"type": "tag", "values": TAGS}, "resultTypes": ["violations"]}
SCRIPT = Axe().axe_script
IS_THERE = "typeof axe !== 'undefined'"  # in this document, from an earlier look
RUN = "options => axe.run(document, options).then(found => found.violations)"


async def barriers(page: Page) -> list[str]:
    """One line a fault: the rule, and the element. The page's own scripts need not be on."""
    if not await page.evaluate(IS_THERE):
        await page.evaluate(SCRIPT)
    return [f"{fault['id']}: {node['html']}" for fault in await page.evaluate(RUN, OPTIONS) for node in fault["nodes"]]
