"""The bad-input catalogue against the editors' API: what is refused, by which field, and that nothing was kept of it."""

import asyncio
import time
from datetime import timedelta

import pytest

HOSTILE_HTML = (
    "<script>alert(1)</script> <img src=x onerror=alert(1)> [klick](javascript:alert(1)) [data](data:text/html,x)\n\n"
    '<svg onload=alert(1)> <noscript><p title="</noscript><img src=x onerror=alert(1)>"> <div style="background:url(x)">\n'
)
TEMPLATES = "{{7-70}} {% raw %} ${7-70} %(title)s #{7-70} {{ config }} <%= 7-70 %>"


async def refused(content, **fields):
    """The faulty fields' codes; nothing is kept."""
    answer = await content.api.post("/items", json={"kind": "news", "title": "T", **fields})
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await content.api.get("/items")).json()["data"] == []
    return {error["pointer"]: error["code"] for error in answer.json()["errors"]}


async def test_b3_a_link_that_swells_as_it_is_written_out_is_refused_before_anything_is_sent(content):
    swelling = "[a]: https://a.example/" + "a" * 20_000 + "\n\n" + "[a]" * 9_000
    drafts = [await content.draft(body=swelling), await content.draft(kind="report", popular_version=swelling)]
    published = await content.published(body="kort")
    answer = await content.api.get(f"/items/{published['id']}")
    longer = {"body": swelling}
    await content.api.patch(f"/items/{published['id']}", json=longer, headers={"If-Match": answer.headers["etag"]})
    later = {"publish_at": (await content.present() + timedelta(hours=1)).isoformat()}
    for item, act, body, field in (
        (drafts[0], "publish", {}, "/body"),
        (drafts[0], "publish", later, "/body"),
        (drafts[1], "publish", {}, "/popular_version"),
        (published, "correct", {"note": "längre"}, "/body"),
    ):
        answer = await content.api.post(f"/items/{item['id']}/{act}", json=body)
        assert answer.status_code == 422
        assert {"pointer": field, "code": "links_too_long"}.items() <= answer.json()["errors"][-1].items()
    assert len(await content.outbox()) == 1


async def test_b3_others_are_served_while_long_markdown_is_rendered(content):
    slow = await content.draft(body="|a" * 8_000 + "\n" + "|-" * 8_000 + "\n" + "x\n" * 4_000)
    publishing = asyncio.create_task(content.api.post(f"/items/{slow['id']}/publish"))
    served = 0
    while not publishing.done():
        await asyncio.sleep(0)
        served += 1
    assert (await publishing).status_code == 202
    assert served > 100  # blocked, the loop turns a few times in all


async def test_b6_accents_without_number_are_refused_at_once(content):
    began = time.monotonic()
    heap = "a" + "\u0301\u0327" * 20_000
    assert await refused(content, title="a" + "\u0301" * 31, body=heap) == {
        "/title": "invalid_text",
        "/body": "invalid_text",
    }
    assert time.monotonic() - began < 1  # to put them into order took seconds
    assert (await content.draft(title="a" + "\u0301" * 30))["title"] == "á" + "\u0301" * 29


@pytest.mark.parametrize("field", ["id", "state", "slug", "revision", "created_at", "made_by", "url", "published_at"])
async def test_b5_what_the_service_sets_cannot_be_set(content, field):
    assert await refused(content, **{field: "published"}) == {f"/{field}": "unknown_field"}


async def test_b7_html_is_text_on_the_page_in_the_event_and_in_the_feeds(content):
    await content.published(title="<b>Fet</b> titel", lead="<script>alert(2)</script>", body=HOSTILE_HTML)
    page = (await content.site.get("/nyheter/b-fet-b-titel")).text
    feeds = [(await content.site.get("/feed.atom")).text]
    feeds += [entry["content_html"] for entry in (await content.site.get("/feed.json")).json()["items"]]
    (event,) = await content.outbox()
    page = page.replace('<script type="application/ld+json">', "")  # data, not a program
    for text in (page, event["data"]["item"]["body_html"], *feeds):
        lowered = text.lower()
        for running in ("<script", "<img", "<svg", "<noscript", "<div style", 'href="javascript', 'href="data'):
            assert running not in lowered, running
    assert "&lt;script&gt;alert(1)" in page, "it is shown as what was written"


async def test_b8_template_syntax_is_literal_text(content):
    await content.published(title=f"Mall {TEMPLATES}"[:200], lead=TEMPLATES, body=TEMPLATES)
    (event,) = await content.outbox()
    page = (await content.site.get(event["data"]["item"]["url"])).text
    assert "{{7-70}}" in page and "{{ config }}" in page and "-63" not in page
    assert event["data"]["item"]["body_text"] == TEMPLATES


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"topics": ["football"]}, {"/topics/0": "unknown_topic"}),
        ({"municipalities": ["0180"]}, {"/municipalities/0": "unknown_municipality"}),
        ({"audiences": ["public", "martians"]}, {"/audiences/1": "enum"}),
        ({"audiences": ["public"] * 9_000}, {"/audiences": "too_long"}),
        ({"topics": ["(a+)+$" * 1_000] * 50}, {f"/topics/{number}": "unknown_topic" for number in range(50)}),
        ({"audiences": {"or": []}}, {"/audiences": "tuple_type"}),
    ],
)
async def test_b9_an_audience_that_is_none_is_named_at_once(content, fields, wanted):
    seconds = []
    for _ in range(3):  # the best of three: others use the machine too
        began = time.thread_time()
        assert await refused(content, **fields) == wanted
        seconds.append(time.thread_time() - began)
    assert min(seconds) < 0.1


@pytest.mark.parametrize("field", ["publish_at", "embargo_until"])
async def test_b10_a_time_that_nobody_keeps_is_not_taken_in_silence(content, field):
    answer = await content.api.post("/items", json={"kind": "news", "title": "T", field: "2026-02-30T02:30"})
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"/{field}"]


@pytest.mark.parametrize("name", ["attachments", "files"])
async def test_b13_an_attachment_is_not_taken_in_silence(content, name):
    attachment = {"name": "../../etc/passwd", "content": "WDVPIVAlQEFQ"}
    assert await refused(content, **{name: [attachment]}) == {f"/{name}": "unknown_field"}
    files = {"file": ("../../x.pdf", b"MZ\x90\x00", "application/pdf")}
    answer = await content.api.post("/items", files=files)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@kalmar.example/",
        "https://kalmar.example@evil.example/",
        "https://kalmar.example/" + "x" * 5_000,
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "//evil.example/",
        "https:///nohost",
        "https://kalmar.example/\r\nSet-Cookie: a=b",
        "https://kalm\u202ear.example/",
        "https://kalmar.example:port/",
    ],
)
async def test_b14_a_link_that_leads_astray_is_refused(content, url):
    assert set(await refused(content, links=[{"label": "x", "url": url}])) == {"/links/0/url"}


async def test_b14_a_name_of_other_letters_is_kept_in_ascii(content):
    """A homograph shows as what it is: `xn--…`, never as the letters that it imitates."""
    item = await content.draft(links=[{"label": "x", "url": "https://kаlmar.example/å"}])
    assert item["links"][0]["url"].startswith("https://xn--klmar-4ve.example/")
    assert [(told["pointer"], told["code"]) for told in item["warnings"]] == [("/links/0/url", "foreign_letters")]
    assert "xn--klmar-4ve.example" in item["warnings"][0]["message_sv"]


async def test_b14_an_open_line_and_foreign_letters_are_pointed_out_wherever_they_stand(content):
    links = [
        "https://kalmar.example/",
        "http://kalmar.example/",
        "https://gränna.example/",
        "https://xn--pple-43d.example/",
    ]
    image = {"url": "http://kalmar.example/a.jpg", "alt": "En bild", "credit": "Å"}
    item = await content.draft(
        links=[{"label": "x", "url": url} for url in links],
        images=[image],
        body="Se [här](http://kаlmar.example/) och http://b.example. Och https://[::1]:x/ http://[",
    )
    assert [(told["pointer"], told["code"]) for told in item["warnings"]] == [
        ("/links/1/url", "unencrypted_link"),
        ("/links/3/url", "foreign_letters"),
        ("/images/0/url", "unencrypted_link"),
        ("/body", "unencrypted_link"),
        ("/body", "foreign_letters"),
    ]
    assert (await content.api.get(f"/items/{item['id']}")).json()["warnings"] == item["warnings"]
    assert (await content.draft(body="Se https://kalmar.example."))["warnings"] == []


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=-1", "?limit"),
        ("limit=0", "?limit"),
        ("limit=1e9", "?limit"),
        ("limit=1000000000", "?limit"),
        ("cursor=junk", "?cursor"),
        ("cursor=" + "x" * 5_000, "?cursor"),
        ("state=%00", "?state"),
        ("kind='%20OR%201=1--", "?kind"),
    ],
)
async def test_b16_a_query_that_makes_no_sense_is_named(content, query, pointer):
    answer = await content.api.get(f"/items?{query}")
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


async def test_b16_paths_and_methods_that_lead_nowhere(content):
    for path in ("/items/", "/items/not-an-id/reach/x", "/items/../../x", "/items/%2e%2e%2f%2e%2e"):
        assert (await content.api.get(path)).status_code in (307, 404, 422)
    for method in ("PUT", "DELETE", "TRACE"):
        answer = await content.api.request(method, "/items")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
