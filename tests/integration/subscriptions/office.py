"""Somebody at the office, with a browser: signs in, posts forms as a browser does, reads pages that are valid HTML."""

from typing import Any

import html5lib
from httpx2 import ASGITransport, AsyncClient, Response
from tests.integration.subscriptions.conftest import ADMIN

from shared.service import Service

ORIGIN = "https://nyheter.example"
FROM_HERE = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}


class Seen:
    """A page, parsed strictly by another hand."""

    def __init__(self, html: str) -> None:
        self.tree: Any = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(html)
        ids = [element.get("id") for element in self.tree.iter() if element.get("id")]
        assert len(ids) == len(set(ids)), "an id stands twice"
        assert len(list(self.tree.iter("h1"))) == 1

    @property
    def text(self) -> str:
        main = next(self.tree.iter("main"))
        return " ".join("".join(main.itertext()).split())

    def entries(self) -> list[str]:
        """The headings of what is listed."""
        named = [e for e in self.tree.iter("p") if e.get("class") == "entry__name"]
        return [" ".join("".join(e.itertext()).split()) for e in named]

    def link(self, words: str) -> str:
        """Where the link with these words leads."""
        [href] = {e.get("href") for e in self.tree.iter("a") if " ".join("".join(e.itertext()).split()) == words}
        return str(href)

    def field(self, name: str) -> str:
        """What one input holds."""
        [held] = [e.get("value", "") for e in self.tree.iter("input") if e.get("name") == name]
        return str(held)

    def button(self, name: str, words: str) -> str:
        """The value of the button with these words."""
        buttons = [e for e in self.tree.iter("button") if e.get("name") == name]
        [value] = [e.get("value") for e in buttons if " ".join("".join(e.itertext()).split()) == words]
        return str(value)


class Clerk:
    """A browser that keeps its cookies."""

    def __init__(self, service: Service) -> None:
        self.browser = AsyncClient(transport=ASGITransport(service.app), base_url=ORIGIN)

    async def post(self, path: str, headers: dict[str, str] | None = None, **form: Any) -> Response:
        return await self.browser.post(path, data=form, headers=FROM_HERE if headers is None else headers)

    async def sign_in(self, key: str = ADMIN, onward: str = "") -> Response:
        return await self.post("/kansli/logga-in", nyckel=key, vidare=onward)

    async def look(self, path: str, status: int = 200) -> Seen:
        answer = await self.browser.get(path)
        assert answer.status_code == status, (answer.status_code, answer.headers.get("location"))
        return Seen(answer.text)
