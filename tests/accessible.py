"""What axe-core finds on a page that a browser shows: the rules of WCAG 2.2 A and AA, and its best practice."""

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


async def barriers(page: Page) -> list[str]:
    """One line a fault: the rule, and the element. The page's own scripts need not be on."""
    options = {"runOnly": {"type": "tag", "values": TAGS}, "resultTypes": ["violations"]}
    found = await Axe().run(page, options=options)
    return [f"{fault['id']}: {node['html']}" for fault in found.response["violations"] for node in fault["nodes"]]
