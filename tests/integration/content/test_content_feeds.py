"""The feeds, read by a reader of feeds that did not write them."""

import json
from datetime import datetime, timedelta
from xml.etree import ElementTree as ET

import feedparser


async def atom(content):
    answer = await content.site.get("/feed.atom")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/atom+xml; charset=utf-8"
    parsed = feedparser.parse(answer.content)
    assert not parsed.bozo, parsed.get("bozo_exception")
    assert parsed.version == "atom10"
    return parsed


async def test_an_empty_feed_is_a_feed(content):
    parsed = await atom(content)
    assert parsed.entries == []
    assert parsed.feed.title == "Samordningsförbundet i Kalmar län"
    assert parsed.feed.updated
    assert (await content.site.get("/feed.json")).json()["items"] == []


async def test_the_newest_comes_first_with_a_link_that_leads_there(content):
    for number in range(3):
        await content.published(title=f"Nyhet <{number}> & mer", lead=f"Ingress {number}", body=f"*Text* {number} ]]>")
        content.clock.advance(timedelta(minutes=1))
    parsed = await atom(content)
    assert [entry.title for entry in parsed.entries] == [f"Nyhet <{n}> & mer" for n in (2, 1, 0)]
    for entry in parsed.entries:
        assert (await content.site.get(entry.link)).status_code == 200
        assert entry.content[0].type == "text/html"
        assert "<em>Text</em>" in entry.content[0].value
    assert parsed.feed.updated == parsed.entries[0].updated


async def test_an_entry_keeps_its_id_through_a_correction(content):
    item = await content.published(title="Före", body="ett")
    [before] = (await atom(content)).entries
    content.clock.advance(timedelta(hours=2))
    await content.corrected(item["id"], "Fel ord.", title="Efter", body="två")
    [after] = (await atom(content)).entries
    assert before.id == after.id == f"urn:uuid:{item['id']}"
    assert after.title == "Efter"
    assert after.published == before.published == before.updated
    assert after.updated >= before.updated  # in seconds


def in_seconds(instant: str) -> str:
    """As feeds have it."""
    return f"{datetime.fromisoformat(instant):%Y-%m-%dT%H:%M:%SZ}"


async def test_a_withdrawn_item_leaves_and_a_tombstone_says_so(content):
    item = await content.published(title="Ska bort")
    content.clock.advance(timedelta(hours=1))
    answer = await content.api.post(f"/items/{item['id']}/withdraw", json={"reason": "Fel <person>."})
    withdrawn_at = in_seconds(answer.json()["revised_at"])
    parsed = await atom(content)
    assert parsed.entries == []
    tree = ET.fromstring((await content.site.get("/feed.atom")).content)
    [tombstone] = tree.findall("{http://purl.org/atompub/tombstones/1.0}deleted-entry")
    assert tombstone.attrib == {"ref": f"urn:uuid:{item['id']}", "when": withdrawn_at}
    assert tombstone.findtext("{http://purl.org/atompub/tombstones/1.0}comment") == "Fel <person>."
    assert tree.findtext("{http://www.w3.org/2005/Atom}updated") == withdrawn_at
    assert (await content.site.get("/feed.json")).json()["items"] == []


async def test_the_json_feed_says_the_same(content):
    item = await content.published(
        title="Mötet", lead="Kort.", images=[{"url": "https://b.example/a.png", "alt": "a", "credit": "c"}]
    )
    answer = await content.site.get("/feed.json")
    assert answer.headers["content-type"] == "application/feed+json"
    feed = json.loads(answer.text)
    assert feed["version"] == "https://jsonfeed.org/version/1.1"
    [entry] = feed["items"]
    assert entry["id"] == f"urn:uuid:{item['id']}"
    assert entry["url"] == item["url"]
    assert entry["summary"] == "Kort."
    assert entry["image"] == "https://b.example/a.png"
    assert entry["date_published"] == in_seconds(item["published_at"])


async def test_a_reader_that_has_it_gets_no_body(content):
    await content.published(title="Ett")
    for path in ("/feed.atom", "/feed.json", "/"):
        first = await content.site.get(path)
        tag = first.headers["etag"]
        again = await content.site.get(path, headers={"If-None-Match": f'"other", W/{tag}'})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        head = await content.site.head(path)
        assert (head.status_code, head.headers["etag"], head.content) == (200, tag, b"")
    await content.published(title="Två")
    for path in ("/feed.atom", "/feed.json", "/"):
        assert (await content.site.get(path, headers={"If-None-Match": tag})).status_code == 200
