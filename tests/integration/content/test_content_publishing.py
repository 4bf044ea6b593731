"""An item's life over the API: draft, edit, publish, correct, withdraw, and the events that tell of it."""

import asyncio
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest

from shared.contracts.envelope import Envelope
from shared.contracts.news import NewsCorrected, NewsPublished, NewsWithdrawn

CONTACT = {"name": "Anna Ek", "role": "förbundschef", "phone": "0480-123 45", "email": "anna@forbundet.example"}


def faults(answer):
    assert answer.headers["content-type"] == "application/problem+json"
    return {error["pointer"]: error["code"] for error in answer.json()["errors"]}


async def test_a_draft_is_saved_read_and_listed(content):
    created = await content.api.post(
        "/items", json={"kind": "news", "title": "  Ny mötesplats  ", "body": "Text", "municipalities": ["0880"]}
    )
    assert created.status_code == 201
    item = created.json()
    assert UUID(item["id"]).version == 7
    assert (item["title"], item["state"], item["revision"], item["url"]) == ("Ny mötesplats", "draft", 0, None)
    assert created.headers["location"] == f"/api/content/v1/items/{item['id']}"
    read = await content.api.get(f"/items/{item['id']}")
    assert read.json() == item
    assert read.headers["etag"] == created.headers["etag"]
    assert (await content.api.get("/items")).json() == {"data": [item], "next_cursor": None}
    assert await content.outbox() == []


async def test_publishing_makes_the_revision_and_the_event_that_tells_of_it(content):
    draft = await content.draft(
        kind="press_release",
        title="Åtta av tio är i arbete",
        lead="Stödet håller.",
        body="# Vad hände\n\nLäs [rapporten](https://exempel.example/r.pdf).\n\n<script>alert(1)</script>",
        audiences=["public", "newsroom", "public"],
        municipalities=["0885", "0880"],
        topics=["results"],
        contacts=[CONTACT],
        images=[{"url": "https://bild.example/a.jpg", "alt": "Ett möte", "credit": "Bo Ek"}],
    )
    before = await content.present()
    answer = await content.api.post(f"/items/{draft['id']}/publish")
    assert answer.status_code == 202
    item = answer.json()
    assert (item["state"], item["revision"], item["slug"]) == ("published", 1, "atta-av-tio-ar-i-arbete")
    assert item["url"] == "https://nyheter.example/nyheter/atta-av-tio-ar-i-arbete"
    [event] = await content.outbox()
    envelope = Envelope.model_validate(event)
    assert envelope.type == "se.budkavle.news.published.v1"
    assert envelope.subject == draft["id"]
    told = NewsPublished.model_validate(envelope.data).item
    assert str(told.item_id) == draft["id"]
    assert (told.revision, told.state, told.url, told.title) == (1, "published", item["url"], item["title"])
    assert told.audiences == ("newsroom", "public")
    assert told.municipalities == ("0880", "0885")
    assert told.contacts[0].phone == "0480-123 45"
    assert told.images[0].credit == "Bo Ek"
    assert told.published_at == told.revised_at
    assert before <= told.published_at <= await content.present()
    assert "<h2>Vad hände</h2>" in told.body_html
    assert "<script" not in told.body_html
    assert "rapporten (https://exempel.example/r.pdf)" in told.body_text


async def test_a_published_item_is_corrected_through_its_working_copy(content):
    item = await content.published(title="Fel siffra", body="100 personer")
    await content.edited(item["id"], body="200 personer", title="Rätt siffra")
    page = await content.site.get("/nyheter/fel-siffra")
    assert "100 personer" in page.text
    assert "200 personer" not in page.text
    content.clock.advance(timedelta(hours=1))
    before = await content.present()
    answer = await content.api.post(f"/items/{item['id']}/correct", json={"note": "Det var 200."})
    assert answer.status_code == 202
    corrected = answer.json()
    assert (corrected["state"], corrected["revision"]) == ("corrected", 2)
    assert corrected["slug"] == "fel-siffra", "the address freezes at publication"
    event = Envelope.model_validate((await content.outbox())[-1])
    told = NewsCorrected.model_validate(event.data)
    assert event.type == "se.budkavle.news.corrected.v1"
    assert (told.note, told.item.revision, told.item.title) == ("Det var 200.", 2, "Rätt siffra")
    assert told.item.published_at == datetime.fromisoformat(item["published_at"])
    assert before <= told.item.revised_at <= await content.present()
    page = await content.site.get("/nyheter/fel-siffra")
    assert "200 personer" in page.text
    assert "Det var 200." in page.text


async def test_a_withdrawn_item_keeps_its_last_published_text_for_reference(content):
    item = await content.published(title="Tas bort", body="Gammal text")
    await content.edited(item["id"], body="Aldrig publicerad")
    answer = await content.api.post(f"/items/{item['id']}/withdraw", json={"reason": "Uppgifterna var fel."})
    assert answer.status_code == 202
    assert (answer.json()["state"], answer.json()["revision"]) == ("withdrawn", 2)
    told = NewsWithdrawn.model_validate(Envelope.model_validate((await content.outbox())[-1]).data)
    assert (told.reason, told.item.revision, told.item.body_text) == ("Uppgifterna var fel.", 2, "Gammal text")
    page = await content.site.get("/nyheter/tas-bort")
    assert page.status_code == 410
    assert "Uppgifterna var fel." in page.text
    assert "Gammal text" not in page.text


async def test_every_revision_is_kept(content):
    item = await content.published(title="Ett", body="a")
    await content.corrected(item["id"], "Nytt.", body="b")
    await content.api.post(f"/items/{item['id']}/withdraw", json={"reason": "Slut."})
    rows = (await content.api.get(f"/items/{item['id']}/revisions")).json()["data"]
    assert [(row["revision"], row["state"], row["body"], row["note"]) for row in rows] == [
        (1, "published", "a", ""),
        (2, "corrected", "b", "Nytt."),
        (3, "withdrawn", "b", "Slut."),
    ]
    assert rows[0]["body_html"] == "<p>a</p>"
    assert rows[0]["made_by"] == "admin"


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"audiences": []}, {"/audiences": "needed_to_publish"}),
        ({"kind": "press_release"}, {"/contacts": "needed_to_publish"}),
        ({"kind": "news_tip"}, {"/contacts": "needed_to_publish"}),
        ({"kind": "press_release", "contacts": [{"name": "Bo"}]}, {"/contacts/0/phone": "needed_to_publish"}),
        ({"kind": "report"}, {"/popular_version": "needed_to_publish", "/original_url": "needed_to_publish"}),
        ({"original_url": "https://a.example/r"}, {"/original_url": "report_only"}),
    ],
)
async def test_what_publication_needs_is_named_field_by_field(content, fields, wanted):
    draft = await content.draft(**fields)
    answer = await content.api.post(f"/items/{draft['id']}/publish")
    assert answer.status_code == 422
    assert faults(answer) == wanted
    assert all(error["message_sv"] for error in answer.json()["errors"])
    assert (await content.api.get(f"/items/{draft['id']}")).json()["state"] == "draft"
    assert await content.outbox() == []


@pytest.mark.parametrize(
    ("fields", "pointer", "code"),
    [
        ({"title": ""}, "/title", "string_too_short"),
        ({"title": "\u200b\u200b"}, "/title", "blank_text"),
        ({"title": "Rad\r\nBcc: x@y.example"}, "/title", "invalid_text"),
        ({"title": "Vänd \u202etext"}, "/title", "invalid_text"),
        ({"title": "x" * 201}, "/title", "string_too_long"),
        ({"body": "a\x07b"}, "/body", "invalid_text"),
        ({"kind": "poem"}, "/kind", "enum"),
        ({"audiences": ["everybody"]}, "/audiences/0", "enum"),
        ({"municipalities": ["0880", "0180"]}, "/municipalities/1", "unknown_municipality"),
        ({"topics": ["cats"]}, "/topics/0", "unknown_topic"),
        ({"links": [{"label": "x", "url": "javascript:alert(1)"}]}, "/links/0/url", "invalid_url"),
        ({"links": [{"label": "x", "url": "https://a:b@c.example/"}]}, "/links/0/url", "invalid_url"),
        (
            {"images": [{"url": "https://a.example/b.jpg", "alt": "", "credit": "x"}]},
            "/images/0/alt",
            "string_too_short",
        ),
        ({"images": [{"url": "https://a.example/b.jpg", "alt": "x"}]}, "/images/0/credit", "missing_field"),
        ({"contacts": [{"name": "A", "email": "a@b\r\nBcc: c@d.example"}]}, "/contacts/0/email", None),
        ({"state": "published"}, "/state", "unknown_field"),
        ({"id": str(uuid4())}, "/id", "unknown_field"),
    ],
)
async def test_b6_a_faulty_field_is_named(content, fields, pointer, code):
    answer = await content.api.post("/items", json={"kind": "news", "title": "T", **fields})
    assert answer.status_code == 422
    assert pointer in faults(answer)
    assert code is None or faults(answer)[pointer] == code


async def test_b6_text_is_kept_in_one_form_of_unicode(content):
    item = await content.draft(title="A\u030angstro\u0308m 👩\u200d👩\u200d👧")
    assert item["title"] == "Ångström 👩\u200d👩\u200d👧"


async def test_b12_an_edit_must_name_the_version_it_read(content):
    draft = await content.draft()
    path = f"/items/{draft['id']}"
    first = (await content.api.get(path)).headers["etag"]
    assert (await content.api.patch(path, json={"lead": "a"})).status_code == 428
    changed = await content.api.patch(path, json={"lead": "a"}, headers={"If-Match": first})
    assert changed.status_code == 200
    assert changed.headers["etag"] != first
    assert changed.json()["lead"] == "a"
    assert changed.json()["title"] == draft["title"], "what is not sent stays"
    stale = await content.api.patch(path, json={"lead": "b"}, headers={"If-Match": first})
    assert stale.status_code == 412
    assert stale.json()["code"] == "precondition_failed"
    weak = await content.api.patch(path, json={"lead": "b"}, headers={"If-Match": f"W/{changed.headers['etag']}"})
    assert weak.status_code == 412
    assert (await content.api.patch(path, json={"lead": "c"}, headers={"If-Match": "*"})).status_code == 200
    assert (await content.api.post(f"{path}/publish", headers={"If-Match": first})).status_code == 412


async def test_b12_two_edits_at_once_lose_nothing(content):
    draft = await content.draft()
    path, etag = f"/items/{draft['id']}", (await content.api.get(f"/items/{draft['id']}")).headers["etag"]
    answers = await asyncio.gather(
        *(content.api.patch(path, json={"lead": str(n)}, headers={"If-Match": etag}) for n in range(5))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412, 412]


@pytest.mark.parametrize(
    "changes",
    [
        {"audiences": ["newsroom", "public"]},
        {"municipalities": ["0880"]},
        {"topics": ["results"]},
        {"language": "en"},
        {"kind": "result"},
    ],
)
async def test_whom_an_item_is_for_freezes_when_it_is_published(content, changes):
    item = await content.published()
    answer = await content.api.patch(f"/items/{item['id']}", json=changes, headers={"If-Match": "*"})
    assert answer.status_code == 422
    assert faults(answer) == {f"/{next(iter(changes))}": "frozen_field"}


async def test_b12_a_transition_that_does_not_fit_tells_the_present_state(content):
    draft = await content.draft()
    path = f"/items/{draft['id']}"

    async def refused(act, body=None):
        answer = await content.api.post(f"{path}/{act}", json=body)
        assert answer.status_code == 409
        assert answer.json()["code"] == "invalid_transition"
        return answer.json()["errors"][0]["code"]

    note, reason = {"note": "n"}, {"reason": "r"}
    assert await refused("correct", note) == "draft"
    assert await refused("withdraw", reason) == "draft"
    await content.api.post(f"{path}/publish")
    assert await refused("publish") == "published"
    unchanged = await content.api.post(f"{path}/correct", json=note)
    assert (unchanged.status_code, unchanged.json()["code"]) == (409, "nothing_to_correct")
    await content.api.post(f"{path}/withdraw", json=reason)
    assert await refused("publish") == "withdrawn"
    assert await refused("correct", note) == "withdrawn"
    assert await refused("withdraw", reason) == "withdrawn"
    edit = await content.api.patch(path, json={"title": "x"}, headers={"If-Match": "*"})
    assert edit.status_code == 409
    assert len(await content.outbox()) == 2


async def test_a_correction_and_a_withdrawal_need_words(content):
    item = await content.published()
    await content.edited(item["id"], lead="ny")
    for act, body, pointer in [
        ("correct", {}, "/note"),
        ("correct", {"note": " "}, "/note"),
        ("withdraw", {"reason": "\u200b"}, "/reason"),
    ]:
        answer = await content.api.post(f"/items/{item['id']}/{act}", json=body)
        assert answer.status_code == 422
        assert pointer in faults(answer)


async def test_ten_publishes_at_once_publish_once(content):
    draft = await content.draft()
    answers = await asyncio.gather(*(content.api.post(f"/items/{draft['id']}/publish") for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 9
    assert len(await content.outbox()) == 1


async def test_b11_a_retry_under_the_same_key_is_the_same_act(content):
    body, key = {"kind": "news", "title": "En gång", "audiences": ["public"]}, {"Idempotency-Key": "k-1"}
    first = await content.api.post("/items", json=body, headers=key)
    again = await content.api.post("/items", json=body, headers=key)
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert again.headers["etag"] == first.headers["etag"]
    other = await content.api.post("/items", json={**body, "title": "Annan"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    path = f"/items/{first.json()['id']}/publish"
    answers = await asyncio.gather(*(content.api.post(path, headers={"Idempotency-Key": "k-2"}) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {202}
    assert {answer.json()["revision"] for answer in answers} == {1}
    assert len(await content.outbox()) == 1


async def test_same_title_gives_each_item_an_address_of_its_own(content):
    drafts = [await content.draft(title="Daganteckning") for _ in range(4)]
    answers = await asyncio.gather(*(content.api.post(f"/items/{draft['id']}/publish") for draft in drafts))
    slugs = {answer.json()["slug"] for answer in answers}
    assert len(slugs) == 4
    assert {"daganteckning", f"daganteckning-{(await content.present()).date()}"} < slugs
    for slug in slugs:
        assert (await content.site.get(f"/nyheter/{slug}")).status_code == 200


async def test_pages_of_the_list_hold_every_item_once(content):
    made = [(await content.draft(title=f"Nummer {n}"))["id"] for n in range(5)]
    await content.api.post(f"/items/{made[1]}/publish")
    seen, path = [], "/items?limit=2"
    while path:
        answer = await content.api.get(path)
        seen += [item["id"] for item in answer.json()["data"]]
        cursor = answer.json()["next_cursor"]
        assert ("link" in answer.headers) == bool(cursor)
        path = f"/items?limit=2&cursor={cursor}" if cursor else ""
    assert seen == sorted(made, reverse=True)
    listed = (await content.api.get("/items?state=published")).json()["data"]
    assert [item["id"] for item in listed] == [made[1]]
    assert (await content.api.get("/items?kind=report")).json()["data"] == []
    for query in ("limit=0", "limit=101", "cursor=nonsense", "state=lost"):
        assert (await content.api.get(f"/items?{query}")).status_code == 422


async def test_b15_a_key_does_what_its_scopes_say_and_no_more(content):
    draft = await content.draft()
    item = f"/items/{draft['id']}"
    read, write = await content.key("read"), await content.key("read", "write")
    assert (await content.api.get(item, headers=read)).status_code == 200
    refused = await content.api.post("/items", json={"kind": "news", "title": "T"}, headers=read)
    assert (refused.status_code, refused.json()["code"]) == (403, "missing_scope")
    assert (await content.api.post(f"{item}/publish", headers=write)).status_code == 403
    assert (await content.site.get(f"/api/content/v1{item}")).status_code == 401
    assert (await content.api.post(f"{item}/publish", headers=await content.key("publish"))).status_code == 202


async def test_b15_nothing_is_found_where_there_is_nothing(content):
    nowhere = f"/items/{uuid4()}"
    for method, path, body in [
        ("GET", nowhere, None),
        ("GET", f"{nowhere}/revisions", None),
        ("GET", f"{nowhere}/reach", None),
        ("PATCH", nowhere, {"title": "x"}),
        ("POST", f"{nowhere}/publish", None),
        ("POST", f"{nowhere}/correct", {"note": "x"}),
        ("POST", f"{nowhere}/withdraw", {"reason": "x"}),
    ]:
        answer = await content.api.request(method, path, json=body, headers={"If-Match": "*"})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, path)
