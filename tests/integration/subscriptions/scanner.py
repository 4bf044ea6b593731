"""A mail scanner that follows every link, and submits every form behind it as it stands."""

from typing import Any
from urllib.parse import urljoin

import html5lib
from httpx2 import AsyncClient

ORIGIN = "https://nyheter.example"
OWN = {"sec-fetch-site": "same-origin", "origin": "null"}


PAGES = ("/prenum", "/avreg")


async def press_everything(
    reader: AsyncClient, url: str, followed: set[str], *, origin: str = ORIGIN, paths: tuple[str, ...] = PAGES
) -> None:
    """What the most eager scanner does with a link: fetch it and every link on it, submit every form as it stands."""
    if url in followed or not url.startswith(tuple(origin + path for path in paths)):
        return
    followed.add(url)
    answer = await reader.get(url, follow_redirects=True)
    if not answer.headers["content-type"].startswith("text/html"):
        return
    tree = html5lib.parse(answer.text, namespaceHTMLElements=False)
    for form in tree.iter("form"):
        fields = [(field.get("name"), field.get("value") or "on") for field in form.iter("input") if ticked(field)]
        for select in form.iter("select"):
            fields.append((select.get("name"), select.find(".//option[@selected]").get("value")))
        for button in form.iter("button"):
            named = [(button.get("name"), button.get("value"))] if button.get("name") else []
            data: dict[str, list[str]] = {}
            for name, value in [*fields, *named]:
                data.setdefault(name, []).append(value)
            await reader.post(urljoin(url, form.get("action")), data=data, headers=OWN)
    for a in tree.find(".//main").iter("a"):
        await press_everything(reader, urljoin(url, a.get("href")), followed, origin=origin, paths=paths)


def ticked(field: Any) -> bool:
    if field.get("type") in ("checkbox", "radio"):
        return field.get("checked") is not None
    return field.get("name") is not None and field.get("value") != ""
