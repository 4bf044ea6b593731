"""The public site as a reader, a browser and a search engine meet it."""

import json
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import html5lib
import pytest
from tests.accessible import barriers
from tests.content_service import Content, running_content
from tests.servers.migrated import migrated_sqlite

import content.web as site

CONTACT = {"name": "Anna Ek", "role": "förbundschef", "phone": "0480-123 45", "email": "anna@forbundet.example"}
PRESS = {
    "kind": "press_release",
    "title": "Åtta av tio är i arbete",
    "lead": "Stödet håller.",
    "body": "# Bakgrund\n\n[Mer](https://a.example/)\n\n| a | b |\n|---|---|\n| 1 | 2 |",
    "audiences": ["newsroom", "public"],
    "contacts": [CONTACT],
    "links": [{"label": "Finsam", "url": "https://finsam.example/"}],
    "images": [
        {"url": "https://bild.example/a.jpg", "alt": "Ett möte", "credit": "Bo Ek", "caption": "I Kalmar."},
        {"url": "https://bild.example/b.jpg", "alt": "Ett torg", "credit": "Bo Ek"},
    ],
}
REPORT = {
    "kind": "report",
    "title": "Uppföljning av Unga vuxna",
    "popular_version": "De flesta *kom vidare*.",
    "original_url": "https://www.kalmar.example/r/uppfoljning.pdf",
}

BROWSED = {
    "/": "section.html",
    "/pressrum": "section.html",
    "/nyheter/atta-av-tio-ar-i-arbete": "item.html",
    "/nyheter/uppfoljning-av-unga-vuxna": "item.html",
    "/nyheter/a-visit?lang=en": "item.html",
    "/nyheter/nytt-kontor": "withdrawn.html",
    "/finns-inte": "error.html",
}


@pytest.fixture
async def content(tmp_path):
    async with running_content(migrated_sqlite("content", tmp_path)) as content:
        yield content


@pytest.fixture
async def filled(content: Content) -> Content:
    """One of each: corrected, withdrawn, a report, a result, an English item, and enough for a second page."""
    item = await content.published(**PRESS)
    await content.corrected(item["id"], "Det stod nio av tio.", lead="Åtta av tio.")
    gone = await content.published(title="Nytt kontor", body="Hemlig text")
    await content.api.post(f"/items/{gone['id']}/withdraw", json={"reason": "Kontoret öppnar inte."})
    await content.published(**REPORT)
    await content.published(kind="result", title="Resultat 2026")
    await content.published(kind="daily_note", title="A visit", language="en")
    for number in range(20):
        content.clock.advance(timedelta(minutes=1))
        await content.published(title=f"Nyhet nummer {number}")
    return content


def parsed(text):
    """The page, by a parser that refuses every fault of the HTML standard."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)


def assert_well_made(tree, language):
    assert tree.get("lang") == language
    assert len(tree.findall(".//h1")) == 1
    assert len(tree.findall(".//main")) == 1
    assert tree.findtext(".//title").strip()
    ids = [element.get("id") for element in tree.iter() if element.get("id")]
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    for element in tree.iter():
        for name in ("aria-labelledby", "aria-describedby"):
            assert set((element.get(name) or "").split()) <= set(ids)
    assert all(image.get("alt") for image in tree.iter("img"))
    assert all(script.get("type") == "application/ld+json" for script in tree.iter("script"))
    levels = [int(element.tag[1]) for element in tree.iter() if element.tag in ("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def links_within(tree):
    """Within this service: what another one answers is tested where all three stand."""
    found = {element.get("href") for element in tree.iter() if element.get("href")}
    own = {link.removeprefix("https://nyheter.example") or "/" for link in found}
    return {link for link in own if link.startswith("/") and not link.startswith("/prenumerera")}


@pytest.mark.parametrize("language", ["sv", "en"])
async def test_every_page_within_reach_is_well_made_and_no_link_is_dead(filled, language):
    waiting, seen = ["/"], set()
    while waiting:
        path = waiting.pop()
        answer = await filled.site.get(path, headers={"Accept-Language": language})
        assert answer.status_code == 200, path
        seen.add(path)
        if not answer.headers["content-type"].startswith("text/html"):
            continue
        tree = parsed(answer.text)
        shown = "en" if "lang=en" in path else "sv" if "lang=sv" in path else language
        assert answer.headers["content-language"] == shown
        assert_well_made(tree, shown)
        waiting += sorted(links_within(tree) - seen - set(waiting))
    assert len([path for path in seen if path.startswith("/nyheter/") and "?" not in path]) == 24
    assert {"/pressrum", "/rapporter", "/resultat", "/feed.atom", "/feed.json"} <= seen


async def test_an_item_shows_all_that_it_has(filled):
    answer = await filled.site.get("/nyheter/atta-av-tio-ar-i-arbete")
    tree = parsed(answer.text)
    text = " ".join("".join(tree.itertext()).split())
    for words in ("Pressmeddelande", "22 november 2026 kl. 10.30", "Rättelse", "Det stod nio av tio.", "Åtta av tio."):
        assert words in text
    for words in ("Anna Ek, förbundschef", "0480-123 45", "I Kalmar. Bild: Bo Ek", "Box 1, 391 20 Kalmar"):
        assert words in text
    hrefs = {element.get("href") for element in tree.iter("a")}
    assert {"tel:048012345", "mailto:anna@forbundet.example", "https://finsam.example/"} <= hrefs
    assert "https://www.facebook.com/forbundet.example" in hrefs
    assert [image.get("alt") for image in tree.iter("img")] == ["Ett möte", "Ett torg"]


async def test_an_item_tells_search_engines_and_shared_links_the_same(filled):
    tree = parsed((await filled.site.get("/nyheter/atta-av-tio-ar-i-arbete")).text)
    told = json.loads(tree.findtext(".//script"))
    assert told["@type"] == "NewsArticle"
    assert told["headline"] == "Åtta av tio är i arbete"
    assert told["mainEntityOfPage"] == "https://nyheter.example/nyheter/atta-av-tio-ar-i-arbete"
    assert told["datePublished"] == "2026-11-22T09:30:00+00:00"
    properties = {meta.get("property"): meta.get("content") for meta in tree.iter("meta")}
    assert properties["og:title"] == told["headline"]
    assert properties["og:description"] == told["description"] == "Åtta av tio."
    assert properties["og:image"] == "https://bild.example/a.jpg"


async def test_b7_markup_in_a_title_is_text_everywhere(content):
    title = "</script><script>alert(1)</script> {{7*7}} \"'"
    item = await content.published(title=title)
    tree = parsed((await content.site.get(f"/nyheter/{item['slug']}")).text)
    assert tree.findtext(".//h1") == title
    assert json.loads(tree.findtext(".//script"))["headline"] == title
    assert len(tree.findall(".//script")) == 1


async def test_a_report_shows_the_popular_version_and_where_the_original_is(filled):
    tree = parsed((await filled.site.get("/nyheter/uppfoljning-av-unga-vuxna")).text)
    text = " ".join("".join(tree.itertext()).split())
    assert "Rapporten i korthet De flesta kom vidare." in text
    assert "Läs hela rapporten i original kalmar.example, PDF" in text
    assert REPORT["original_url"] in {element.get("href") for element in tree.iter("a")}


async def test_a_withdrawn_item_answers_410_and_explains_itself(filled):
    answer = await filled.site.get("/nyheter/nytt-kontor")
    assert answer.status_code == 410
    tree = parsed(answer.text)
    assert_well_made(tree, "sv")
    text = "".join(tree.itertext())
    assert "Den här nyheten är tillbakadragen" in text
    assert "Kontoret öppnar inte." in text
    assert "Hemlig text" not in text
    english = await filled.site.get("/nyheter/nytt-kontor?lang=en")
    assert "This news item has been withdrawn" in english.text
    assert "Nytt kontor" not in (await filled.site.get("/")).text


async def test_each_list_holds_its_kinds(filled):
    async def titles(path):
        tree = parsed((await filled.site.get(path)).text)
        return [heading.findtext("a") for heading in tree.iter("h2") if heading.find("a") is not None]

    assert await titles("/pressrum") == ["Åtta av tio är i arbete"]
    assert await titles("/rapporter") == ["Uppföljning av Unga vuxna"]
    assert await titles("/resultat") == ["Resultat 2026"]
    assert (await titles("/"))[0] == "Nyhet nummer 19"
    assert len(await titles("/")) == 20


async def test_an_empty_site_says_so(content):
    for path in ("/", "/pressrum", "/rapporter", "/resultat"):
        answer = await content.site.get(path)
        assert "Här finns inget publicerat än." in answer.text
        assert_well_made(parsed(answer.text), "sv")


@pytest.mark.parametrize(
    ("path", "status", "swedish", "english"),
    [
        ("/finns-inte", 404, "Sidan finns inte", "There is no such page"),
        ("/nyheter/finns-inte", 404, "Sidan finns inte", "There is no such page"),
        ("/?fore=skräp", 422, "Något i adressen stämmer inte", "Something in the address is wrong"),
    ],
)
async def test_a_fault_is_a_page_for_a_reader_and_a_problem_for_a_program(content, path, status, swedish, english):
    page = await content.site.get(path)
    assert page.status_code == status
    assert_well_made(parsed(page.text), "sv")
    assert swedish in page.text
    assert english in (await content.site.get(path, headers={"Accept-Language": "en"})).text
    problem = await content.site.get(path, headers={"Accept": "application/json"})
    assert problem.headers["content-type"] == "application/problem+json"


async def test_pages_may_be_kept_but_are_asked_for_anew(content):
    item = await content.published(title="Kort")
    page = await content.site.get(f"/nyheter/{item['slug']}")
    assert page.headers["cache-control"] == "public, max-age=0, must-revalidate"
    assert page.headers["vary"] == "Accept-Language"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    unchanged = await content.site.get(page.url, headers={"If-None-Match": page.headers["etag"]})
    assert unchanged.status_code == 304
    await content.corrected(item["id"], "Nytt.", lead="Ny ingress")
    changed = await content.site.get(page.url, headers={"If-None-Match": page.headers["etag"]})
    assert changed.status_code == 200


async def test_an_image_without_tls_is_let_in_from_its_own_origin_alone(content):
    item = await content.published(images=[{"url": "http://bild.example:8080/a.jpg", "alt": "a", "credit": "b"}])
    policy = (await content.site.get(f"/nyheter/{item['slug']}")).headers["content-security-policy"]
    assert "img-src 'self' http://bild.example:8080 https: data:" in policy


async def test_the_stylesheet_may_be_kept_for_a_year_under_its_fingerprint(content):
    tree = parsed((await content.site.get("/")).text)
    [sheet] = [link.get("href") for link in tree.iter("link") if link.get("rel") == "stylesheet"]
    kept = await content.site.get(sheet)
    assert kept.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert (await content.site.get("/static/budkavle.css")).headers["cache-control"] == "public, max-age=3600"


def test_every_kind_of_page_is_browsed():
    """A template that is new fails this until a page of it is in `BROWSED`."""
    templates = Path(site.__file__).parent / "templates"
    assert {file.name for file in templates.glob("*.html")} | {"error.html"} == set(BROWSED.values())


@pytest.mark.parametrize("width", [1280, 360])
async def test_a_browser_shows_it_without_barrier_complaint_or_sideways_scrolling(filled, browser_page, width):
    complaints, foreign = [], []

    async def answer(route):
        url = route.request.url
        if url.startswith("https://bild.example"):
            await route.fulfill(
                status=200, body="<svg xmlns='http://www.w3.org/2000/svg'/>", content_type="image/svg+xml"
            )
        elif not url.startswith("https://nyheter.example"):
            foreign.append(url)
            await route.abort()
        else:
            got = await filled.site.get(url)
            await route.fulfill(status=got.status_code, headers=dict(got.headers), body=got.content)

    await browser_page.set_viewport_size({"width": width, "height": 800})
    browser_page.on("console", lambda message: complaints.append(message.text))
    await browser_page.route("**/*", answer)
    for path in BROWSED:
        await browser_page.goto(f"https://nyheter.example{path}")
        assert await barriers(browser_page) == [], path
        assert await browser_page.evaluate("document.documentElement.scrollWidth") <= width
        await browser_page.keyboard.press("Tab")
        skip = "Skip to the content" if "lang=en" in path else "Hoppa till innehållet"
        assert await browser_page.evaluate("document.activeElement.textContent") == skip
        assert await browser_page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert [one for one in complaints if "status of 4" not in one] == []
    assert foreign == []
