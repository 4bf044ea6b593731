"""No page of subscriptions is without a look: a route or a template that is new fails this until it is listed.

Axe finds nothing, nothing is wider than a phone, and whatever can be used takes the focus and shows it.
"""

import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from httpx2 import AsyncClient
from playwright.async_api import Browser, Page
from pydantic import SecretStr
from tests.accessible import barriers
from tests.integration.subscriptions.conftest import Register, emitted
from tests.integration.subscriptions.scanner import OWN
from tests.pages.test_subscriptions_desk_page import NOON, service
from tests.pages.test_subscriptions_office import KEY
from tests.pages.visitor import CUT_TABLES, NARROW

import subscriptions.web
from shared.contracts.news import Audience
from shared.ids import new_id
from shared.service import Service
from subscriptions.links import Links

__all__ = ["service"]

V1 = "/api/subscriptions/v1"
TEMPLATES = Path(subscriptions.web.__file__).parent / "templates"
NO_PAGE = {
    "/prenumeration/uppgifter/{token}/export.json",
    "/kansli/dataskydd/registerutdrag.csv",
    "/kansli/personer/{subscriber_id}/utdrag.json",
    "/kansli/personer/{subscriber_id}/mejl",
}
UNSEEN_FOCUS = """[...document.querySelectorAll('a[href], button, input:not([type=hidden]), select, textarea, summary')]
    .filter(element => element.checkVisibility()).filter(element => {
        element.focus({focusVisible: true})
        const seen = document.activeElement === element && getComputedStyle(element).outlineStyle !== 'none'
        return !seen || element.tabIndex > 0
    }).map(element => element.outerHTML)"""


@dataclass
class Town:
    """Somebody of every sort, with everything that a page can be about."""

    service: Service
    reader: AsyncClient
    register: Register
    ids: dict[str, str] = field(default_factory=dict)

    @property
    def links(self) -> Links:
        links: Links = self.service.app.state.links
        return links

    async def fill(self) -> None:
        register, ids = self.register, self.ids
        ids["paper"] = await register.organisation("newsroom", "Barometern", "0880")
        ids["council"] = await register.organisation("council", "Kommunfullmäktige")
        ids["group"] = await register.group("Samverkan", "0880")
        member = {"audience": "collaboration_group", "group_id": ids["group"]}
        desk = {"audience": "newsroom", "organisation_id": ids["paper"]}
        for name, roles in {"eva": [member], "bo": [member], "red": [desk], "li": [], "moved": [], "moves": []}.items():
            ids[name] = await register.person(f"{name}@kalmar.example", *roles or [{"audience": "public"}])
        await self._put(f"/organisations/{ids['paper']}/desk", ids["red"])
        await self._put(f"/groups/{ids['group']}/contact", ids["eva"])

    async def act(self) -> None:
        """What their links are for."""
        links, ids, post = self.links, self.ids, self._post
        await post("/prenumerera", email="ny@kalmar.example", frequency="weekly")
        await post(links.preferences(UUID(ids["li"]), 1), action="leave_all")
        for name in ("moved", "moves"):
            new = {"action": "move", "new_address": f"{name}@nybro.example"}
            await post(links.fresh(UUID(ids[name]), 1, NOON), **new)
            if name == "moved":
                await post(await self.mailed("Bekräfta din nya adress"))
        group = links.group(UUID(ids["group"]), 1)
        await post(group, action="invite", email="inbjuden@kalmar.example", name="", locale="sv")
        await post(links.members(UUID(ids["group"]), 1, NOON), remove=ids["bo"])
        await post(links.desk(UUID(ids["paper"]), 1), answer="change", message="Ny bevakning")
        ids["task"] = (await self.register.office.get(f"{V1}/tasks")).json()["data"][0]["id"]

    async def mailed(self, subject: str) -> str:
        """The link of the newest such mail."""
        mails = [mail.data["request"] for mail in await emitted(self.service.database, "mail.requested")]
        return [str(mail["action_url"]) for mail in mails if mail["subject"] == subject][-1]

    async def _put(self, path: str, subscriber_id: str) -> None:
        answer = await self.register.office.put(f"{V1}{path}", json={"subscriber_id": subscriber_id})
        assert answer.status_code == 200, answer.text

    async def _post(self, link: str, **form: str) -> None:
        answer = await self.reader.post(link, data=form, headers=OWN, follow_redirects=True)
        assert answer.status_code == 200, answer.text


@pytest.fixture
async def town(service: Service) -> AsyncIterator[Town]:
    service.app.state.settings = service.settings.model_copy(update={"admin_key": SecretStr(KEY)})
    site, key = service.settings.public_url, {"Authorization": f"Bearer {KEY}"}
    async with AsyncClient(base_url=site) as reader, AsyncClient(base_url=site, headers=key) as office:
        town = Town(service, reader, Register(office))
        await town.fill()
        await town.act()
        yield town


def routes(of: Iterable[Any]) -> Iterator[Any]:
    for route in of:
        nested = getattr(route, "original_router", None)
        yield from routes(nested.routes) if nested is not None else [route]


def pages_of(service: Service) -> set[str]:
    found = {route.path for route in routes(service.app.routes) if "GET" in (getattr(route, "methods", None) or ())}
    return {path for path in found if path.startswith(("/prenum", "/avreg", "/kansli"))} - NO_PAGE


def whole_pages() -> set[str]:
    """Templates that no other one is made with."""
    texts = {file.relative_to(TEMPLATES).as_posix(): file.read_text() for file in TEMPLATES.rglob("*.html")}
    parts = {part for text in texts.values() for part in re.findall(r"{% (?:extends|from|include) \"([^\"]+)\"", text)}
    return texts.keys() - parts


async def addresses(town: Town) -> dict[str, list[str]]:
    """Where each route's page is, in each of its templates."""
    links, mailed, ids = town.links, town.mailed, town.ids
    group, li = UUID(ids["group"]), UUID(ids["li"])
    unknown = str(new_id())
    own = {
        "/prenumerera": ["/prenumerera"],
        "/prenumerera/personuppgifter": ["/prenumerera/personuppgifter"],
        "/prenumerera/bekrafta/{token}": [await mailed("Bekräfta din prenumeration"), "/prenumerera/bekrafta/none"],
        "/prenumeration": ["/prenumeration"],
        "/prenumeration/{token}": [links.preferences(li, 1), "/prenumeration/none"],
        "/prenumeration/angra/{token}": [await mailed("Din prenumeration har ändrats")],
        "/prenumeration/uppgifter/{token}": [links.fresh(li, 1, NOON), "/prenumeration/uppgifter/none"],
        "/prenumeration/adress/{token}": [await mailed("Bekräfta din nya adress")],
        "/prenumeration/adress-tillbaka/{token}": [await mailed("Din adress hos oss har ändrats")],
        "/prenumeration/redaktion/{token}": [links.desk(UUID(ids["paper"]), 1)],
        "/prenumeration/grupp/{token}": [links.group(group, 1)],
        "/prenumeration/grupp/medlemmar/{token}": [links.members(group, 1, NOON), "/prenumeration/grupp/medlemmar/none"],
        "/prenumeration/grupp/angra/{token}": [await mailed("En medlem har tagits bort ur din samverkansgrupp")],
        "/prenumeration/grupp/kvar/{token}": [await mailed("Du är inte längre med i en samverkansgrupp")],
        "/prenumeration/inbjudan/{token}": [
            await mailed("Vill du vara med i en samverkansgrupp?"), "/prenumeration/inbjudan/none",
        ],
        "/avregistrera/{token}": [links.unsubscribe(UUID(ids["eva"]), 1, Audience.COLLABORATION_GROUP)],
    }  # fmt: skip
    office = {
        "/kansli": ["/kansli"],
        "/kansli/uppgifter": ["/kansli/uppgifter"],
        "/kansli/uppgifter/{task_id}": [f"/kansli/uppgifter/{ids['task']}"],
        "/kansli/stopp": ["/kansli/stopp"],
        "/kansli/tackning": ["/kansli/tackning"],
        "/kansli/dataskydd": ["/kansli/dataskydd"],
        "/kansli/inloggningar": ["/kansli/inloggningar"],
        "/kansli/inloggningar/{which}/avsluta": [
            "/kansli/inloggningar/alla-andra/avsluta",
            "/kansli/inloggningar/none/avsluta",
        ],
        "/kansli/importer": ["/kansli/importer"],
        "/kansli/importer/ny": ["/kansli/importer/ny"],
        "/kansli/importer/{import_id}": [f"/kansli/importer/{ids['import']}"],
        **kept("/kansli/personer", "subscriber_id", ids["li"], "andra", "roller", "stoppa", "radera"),
        **kept("/kansli/organisationer", "organisation_id", ids["paper"], "andra"),
        **kept("/kansli/grupper", "group_id", ids["group"], "andra"),
    }
    office["/kansli/personer/{subscriber_id}"].append(f"/kansli/personer/{unknown}")
    office["/kansli/organisationer/{organisation_id}"].append(f"/kansli/organisationer/{ids['council']}")
    return own | office


def kept(room: str, name: str, key: str, *acts: str) -> dict[str, list[str]]:
    """A room's list, its form, one of what is in it, and what can be done to that."""
    one = {f"{room}/{{{name}}}/{act}": [f"{room}/{key}/{act}"] for act in acts}
    return {room: [room], f"{room}/ny": [f"{room}/ny"], f"{room}/{{{name}}}": [f"{room}/{key}"], **one}


async def after_a_button(page: Page, site: str, town: Town, look: Callable[[], Any]) -> None:
    """Pages that only a form leads to."""
    await page.goto(f"{site}/kansli/grupper/ny")
    await page.context.clear_cookies()  # the office's session ends while a form is filled in
    async with page.expect_navigation():
        await page.get_by_role("button", name="Spara").click()
    await look()
    for link, field_id, typed, button in (
        ("/prenumerera", "email", "bo.ny@kalmar.example", "Prenumerera"),
        (await town.mailed("Bekräfta din prenumeration"), "", "", "Bekräfta prenumerationen"),
        (town.links.fresh(UUID(town.ids["red"]), 1, NOON), "own_address", "red@kalmar.example", "Ta bort mina uppgifter"),
    ):  # fmt: skip
        await page.goto(link if link.startswith("http") else site + link)
        if field_id:
            await page.fill(f"#{field_id}", typed)
        async with page.expect_navigation():
            await page.get_by_role("button", name=button).click()
        await look()


async def test_every_page_is_looked_at(
    service: Service, town: Town, browser: Browser, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rendered, pages, site = set(), service.app.state.pages, service.settings.public_url
    plain = pages.render

    def render(request: Any, template: str, *rest: Any, **names: Any) -> Any:
        rendered.add(template)
        return plain(request, template, *rest, **names)

    monkeypatch.setattr(pages, "render", render)
    page = await browser.new_page(locale="sv-SE", viewport=NARROW)

    async def look() -> None:
        assert await barriers(page) == [], page.url
        assert await page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], page.url
        assert await page.evaluate(CUT_TABLES) == 0, page.url
        assert await page.evaluate("document.scripts.length") == 0, "all that can be done is the browser's own to offer"
        assert await page.evaluate(UNSEEN_FOCUS) == [], page.url

    await page.goto(f"{site}/kansli/logga-in")
    await look()
    await page.fill("#nyckel", KEY)
    await page.get_by_role("button", name="Logga in").click()
    await page.goto(f"{site}/kansli/importer/ny")
    await page.check("#lista-public")
    (tmp_path / "folk.csv").write_text("e-post\nanna@kalmar.example\n")
    await page.set_input_files("#fil", tmp_path / "folk.csv")
    await page.get_by_role("button", name="Kontrollera filen").click()
    town.ids["import"] = page.url.rpartition("/")[2].partition("?")[0]
    known = await addresses(town)
    assert known.keys() | {"/kansli/logga-in"} == pages_of(service)
    for link in (link for links in known.values() for link in links):
        answer = await page.goto(link if link.startswith("http") else site + link)
        assert answer is not None and answer.status in (200, 404), link
        await look()
    await after_a_button(page, site, town, look)
    assert whole_pages() - rendered == set()
    await page.close()
