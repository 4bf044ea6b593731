"""Files of items: sent in, refused, shown, handed out, taken away; on both databases."""

import asyncio
import gc
import hashlib
import io
import threading
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from urllib.parse import urlsplit
from uuid import uuid4

import feedparser
import html5lib
from PIL import Image
from sqlalchemy import text
from structlog.testing import capture_logs
from tests.eventually import eventually
from tests.files import (
    EICAR,
    archive,
    jpeg,
    pdf,
    photograph,
    picture,
    pixel_bomb,
    png,
    png_chunks,
    scripted,
    written,
)
from tests.unit.distributor.mail_examples import dispatch, html_of, of_item, settings, text_of

from content.attachments import attaching, examining
from content.attachments.repository import PART_BYTES
from distributor.mail.composer import Composer
from shared.contracts.mail import Form
from shared.contracts.news import ItemSnapshot

WORDS = {"alt": "Två personer vid ett bord", "byline": "Åsa Öst", "rights": "Fri att använda i samband med nyheten"}


async def sent(content, item_id, file, name="bild.png", *, headers=None, **words):
    files = {"file": (name, file, "application/x-whatever")}
    return await content.api.post(f"/items/{item_id}/attachments", files=files, data=words, headers=headers)


async def attached(content, item_id, file, name="bild.png", **words):
    answer = await sent(content, item_id, file, name, **{**WORDS, **words})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def rows(content, table):
    async with content.service.database.reading() as session:
        return await session.scalar(text(f"SELECT count(*) FROM {table}"))


def faults(answer):
    return {fault["pointer"]: fault["code"] for fault in answer.json()["errors"]}


async def latest(content):
    """The item as the newest event tells of it, read as another service reads it."""
    return ItemSnapshot.model_validate((await content.outbox())[-1]["data"]["item"])


def noise(side):
    """An image that no compression makes small."""
    return png(Image.effect_noise((side, side), 100).convert("RGB"))


async def test_a_file_goes_with_its_item_to_the_page_the_event_and_the_reader(content):
    draft = await content.draft(title="Fler i arbete")
    told = await attached(content, draft["id"], photograph(orientation=6), "Ångström ../x\u202e.JPEG", title="Möte")
    assert (told["name"], told["type"], told["width"], told["height"]) == ("x.jpg", "image/jpeg", 40, 60)
    paper = await attached(content, draft["id"], pdf(pages=2), "Års redovisning.pdf", alt="", byline="")
    item = (await content.api.get(f"/items/{draft['id']}")).json()
    assert item["attachments"] == [told, paper]
    await content.api.post(f"/items/{draft['id']}/publish")
    image, document_ = (await latest(content)).attachments
    assert image.model_dump(exclude={"url"}) == told
    assert (
        document_.url
        == f"https://nyheter.example/nyheter/fler-i-arbete/filer/{paper['sha256'][:16]}/ars-redovisning.pdf"
    )

    got = await content.site.get(image.url)
    assert (got.status_code, got.headers["content-type"]) == (200, "image/jpeg")
    assert hashlib.sha256(got.content).hexdigest() == image.sha256
    assert len(got.content) == image.size == int(got.headers["content-length"])
    assert Image.open(io.BytesIO(got.content)).size == (40, 60)
    assert b"Kamera" not in got.content

    page = (await content.site.get("/nyheter/fler-i-arbete")).text
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    (shown,) = tree.iter("img")
    assert "https://nyheter.example" + shown.get("src") == image.url
    assert (shown.get("alt"), shown.get("width")) == (WORDS["alt"], "40")
    words = " ".join("".join(tree.itertext()).split())
    for word in ("Möte Bild: Åsa Öst. Fri att använda", "Bilden i full storlek (JPEG, 40 × 60 bildpunkter", "Filer"):
        assert word in words
    assert {image.url, document_.url} <= {link.get("href") for link in tree.iter("a")}


async def test_how_a_file_is_handed_out(content):
    draft = await content.draft()
    await attached(content, draft["id"], png(), "Bild på Öland.png")
    await attached(content, draft["id"], pdf(), "a.pdf")
    await content.api.post(f"/items/{draft['id']}/publish")
    for file in (await latest(content)).attachments:
        got = await content.site.get(file.url)
        assert got.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in got.headers["content-security-policy"]
        assert "default-src 'none'" in got.headers["content-security-policy"]
        assert got.headers["cache-control"] == "public, max-age=0, must-revalidate"
        again = await content.site.get(file.url, headers={"If-None-Match": f'"x", {got.headers["etag"]}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", got.headers["etag"])
        head = await content.site.head(file.url)
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(file.size))
        said = EmailMessage()
        said["Content-Disposition"] = got.headers["content-disposition"]
        assert said.get_content_disposition() == ("attachment" if file.type == "application/pdf" else "inline")
    assert "filename*=UTF-8''a.pdf" in got.headers["content-disposition"]


async def test_a_file_is_handed_out_in_parts(content):
    draft = await content.draft()
    told = await attached(content, draft["id"], noise(500))
    assert told["size"] > 2 * PART_BYTES
    await content.api.post(f"/items/{draft['id']}/publish")
    got = await content.site.get((await latest(content)).attachments[0].url)
    assert hashlib.sha256(got.content).hexdigest() == told["sha256"]
    assert await rows(content, "file_parts") == -(-told["size"] // PART_BYTES)


async def test_whoever_leaves_while_a_part_is_read_breaks_no_connection(content):
    draft = await content.draft()
    await attached(content, draft["id"], noise(500))
    await content.api.post(f"/items/{draft['id']}/publish")
    path = urlsplit((await latest(content)).attachments[0].url).path
    broken = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context["message"]))
    for _ in range(10):
        await read_and_leave(content.service.app, path)
        gc.collect()
    assert not broken
    assert (await content.site.get(path)).status_code == 200


async def read_and_leave(app, path):
    """Hang up as soon as the first bytes are there."""
    heard = asyncio.Event()

    async def receive():
        await heard.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == "http.response.body":
            heard.set()

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [(b"host", b"x.example")]}
    scope |= {
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
    }
    await app(
        {**scope, "raw_path": path.encode(), "client": ("127.0.0.1", 1), "server": ("x.example", 80)}, receive, send
    )


async def test_only_what_is_public_is_handed_out(content):
    draft = await content.draft(title="Utkast")
    told = await attached(content, draft["id"], png(), "a.png")
    path = f"/nyheter/utkast/filer/{told['sha256'][:16]}/a.png"
    assert (await content.site.get(path)).status_code == 404
    await content.api.post(f"/items/{draft['id']}/publish")
    assert (await content.site.get(path)).status_code == 200
    assert (await content.site.get(path.replace("a.png", "an-earlier-name.png"))).status_code == 200
    for wrong in ("a.png/x", "../../x/a.png", "", "%2e%2e/%2e%2e"):
        assert (await content.site.get(path.replace("a.png", wrong))).status_code == 404, wrong
    assert (await content.site.get(path.replace("/filer/", "/filer/0"))).status_code == 404
    assert (await content.site.get(path.replace("utkast", "annan"))).status_code == 404
    await content.api.post(f"/items/{draft['id']}/withdraw", json={"reason": "Bilden visar fel person."})
    gone = await content.site.get(path)
    assert gone.status_code == 410
    assert "Bilden visar fel person." in gone.text
    known = await content.site.get(path, headers={"If-None-Match": f'"{told["sha256"]}"'})
    assert known.status_code == 410


async def test_a_correction_changes_the_files_and_earlier_revisions_keep_theirs(content):
    draft = await content.draft(title="Nyhet")
    first = await attached(content, draft["id"], png(), "a.png")
    await content.api.post(f"/items/{draft['id']}/publish")
    page, old = f"/items/{draft['id']}", (await latest(content)).attachments[0].url
    await attached(content, draft["id"], pdf(), "b.pdf")
    assert (await content.api.delete(f"{page}/attachments/{first['sha256']}")).status_code == 204
    assert (await content.site.get(old)).status_code == 200, "what is public stays until it is corrected"
    assert len((await latest(content)).attachments) == 1
    await content.api.post(f"{page}/correct", json={"note": "Fel bild."})
    (file,) = (await latest(content)).attachments
    assert (file.name, (await content.site.get(file.url)).status_code) == ("b.pdf", 200)
    assert (await content.site.get(old)).status_code == 410
    made = (await content.api.get(f"{page}/revisions")).json()["data"]
    assert [[kept["name"] for kept in revision["attachments"]] for revision in made] == [["a.png"], ["b.pdf"]]
    assert await rows(content, "files") == 2, "the first revision keeps what it had"
    await attached(content, draft["id"], png(), "a.png")
    await content.api.post(f"{page}/correct", json={"note": "Bilden var rätt."})
    assert (await content.site.get(old)).status_code == 200


async def test_words_about_a_file_are_corrected_like_the_text(content):
    draft = await content.draft()
    await attached(content, draft["id"], png(), byline="Fel Person")
    await content.api.post(f"/items/{draft['id']}/publish")
    answer = await sent(content, draft["id"], png(), **{**WORDS, "byline": "Rätt Person"})
    assert answer.status_code == 201
    assert (await content.api.post(f"/items/{draft['id']}/correct", json={"note": "Fel byline."})).status_code == 202
    assert [file.byline for file in (await latest(content)).attachments] == ["Rätt Person"]


async def test_the_same_file_is_stored_once_and_goes_with_its_last_item(content):
    one, other = await content.draft(), await content.draft()
    for item in (one, one, other):
        told = await attached(content, item["id"], png())
    assert len((await content.api.get(f"/items/{one['id']}")).json()["attachments"]) == 1
    assert (await rows(content, "files"), await rows(content, "file_parts")) == (1, 1)
    assert (await content.api.delete(f"/items/{one['id']}/attachments/{told['sha256']}")).status_code == 204
    assert (await rows(content, "files"), await rows(content, "file_parts")) == (1, 1)
    assert (await content.api.delete(f"/items/{one['id']}/attachments/{told['sha256']}")).status_code == 404
    assert (await content.api.delete(f"/items/{other['id']}/attachments/{told['sha256']}")).status_code == 204
    assert [await rows(content, table) for table in ("files", "file_parts", "item_files")] == [0, 0, 0]


async def test_files_that_come_and_go_at_once_all_do(content):
    """One file, ten items: five get it while five lose it. Whoever has it afterwards has its bytes."""
    items = [(await content.draft())["id"] for _ in range(10)]
    for item in items[:5]:
        told = await attached(content, item, png())
    gone = [content.api.delete(f"/items/{item}/attachments/{told['sha256']}") for item in items[:5]]
    come = [sent(content, item, png(), **WORDS) for item in items[5:]]
    answers = await asyncio.gather(*(answer for pair in zip(gone, come, strict=True) for answer in pair))
    assert {answer.status_code for answer in answers} == {201, 204}
    assert [await rows(content, table) for table in ("files", "file_parts", "item_files")] == [1, 1, 5]


async def test_several_files_for_one_item_at_once_all_get_in(content):
    draft = await content.draft()
    images = [png(picture(width=10 + number)) for number in range(4)]
    answers = await asyncio.gather(*(sent(content, draft["id"], image, **WORDS) for image in images))
    assert [answer.status_code for answer in answers] == [201] * 4
    assert len((await content.api.get(f"/items/{draft['id']}")).json()["attachments"]) == 4


async def test_nobody_waits_for_a_file_that_is_being_looked_through(content, monkeypatch):
    draft, written_meanwhile = await content.draft(), threading.Event()
    examine = examining._examine

    def slow(*file):
        assert written_meanwhile.wait(20), "an open transaction kept the others out"
        return examine(*file)

    monkeypatch.setattr(examining, "_examine", slow)
    upload = asyncio.create_task(sent(content, draft["id"], png(), **WORDS))
    await content.draft(title="Under tiden")
    written_meanwhile.set()
    assert (await upload).status_code == 201


async def test_four_files_are_taken_in_hand_and_a_fifth_waits(content, monkeypatch):
    draft, begun, go_on = await content.draft(), [], threading.Event()
    examine = examining._examine

    def held(*file):
        assert go_on.wait(20)
        return examine(*file)

    async def body():
        begun.append(1)
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n' + pdf() + b"\r\n--x--\r\n"

    monkeypatch.setattr(examining, "_examine", held)
    path, form = f"/items/{draft['id']}/attachments", {"Content-Type": "multipart/form-data; boundary=x"}
    uploads = [asyncio.create_task(content.api.post(path, content=body(), headers=form)) for _ in range(6)]
    await eventually(lambda: len(begun) == 4)
    go_on.set()
    assert [answer.status_code for answer in await asyncio.gather(*uploads)] == [201] * 6
    assert len(begun) == 6


async def test_b12_a_file_names_the_version_it_was_meant_for(content):
    draft = await content.draft()
    etag = (await content.api.get(f"/items/{draft['id']}")).headers["etag"]
    first = await sent(content, draft["id"], png(), headers={"If-Match": etag}, **WORDS)
    assert (first.status_code, first.headers["location"]) == (201, f"/api/content/v1/items/{draft['id']}")
    assert first.headers["etag"] == (await content.api.get(f"/items/{draft['id']}")).headers["etag"] != etag
    assert (await sent(content, draft["id"], pdf(), headers={"If-Match": etag})).status_code == 412
    await content.api.post(f"/items/{draft['id']}/publish")
    await content.api.post(f"/items/{draft['id']}/withdraw", json={"reason": "Fel."})
    late = await sent(content, draft["id"], pdf())
    assert (late.status_code, late.json()["code"]) == (409, "invalid_transition")
    path = f"/items/{draft['id']}/attachments/{first.json()['sha256']}"
    assert (await content.api.delete(path)).status_code == 409
    assert await rows(content, "files") == 1


async def test_nobody_slips_a_file_into_what_is_scheduled(content):
    draft = await content.draft()
    told = await attached(content, draft["id"], png())
    path = f"/items/{draft['id']}"
    when = {"publish_at": (datetime.now(UTC) + timedelta(days=1)).isoformat()}
    assert (await content.api.post(f"{path}/publish", json=when)).status_code == 202
    late = await sent(content, draft["id"], pdf())
    assert (late.status_code, late.json()["code"]) == (409, "scheduled")
    assert (await content.api.delete(f"{path}/attachments/{told['sha256']}")).status_code == 409
    assert await rows(content, "files") == 1


async def test_b15_who_may_not_write_may_attach_nothing(content):
    draft = await content.draft()
    assert (await sent(content, draft["id"], pdf(), headers=await content.key("read"))).status_code == 403
    assert (await sent(content, draft["id"], pdf(), headers={"Authorization": "Bearer x"})).status_code == 401
    assert (await sent(content, uuid4(), pdf())).status_code == 404
    assert (await content.api.delete(f"/items/{uuid4()}/attachments/{'0' * 64}")).status_code == 404
    assert (await content.api.delete(f"/items/{draft['id']}/attachments/x")).status_code == 422
    assert await rows(content, "files") == 0


async def test_b15_of_who_may_not_write_nothing_is_read(content):
    async def unread():
        raise AssertionError("its body was read")
        yield b""

    draft, form = await content.draft(), {"Content-Type": "multipart/form-data; boundary=x"}
    for key, status in ((await content.key("read"), 403), ({"Authorization": "Bearer x"}, 401)):
        answer = await content.api.post(f"/items/{draft['id']}/attachments", content=unread(), headers={**form, **key})
        assert answer.status_code == status


async def test_b13_what_is_no_pdf_jpeg_or_png_is_refused_whatever_it_is_called(content):
    draft = await content.draft()
    strangers = {
        "program": b"MZ\x90\x00" + bytes(100),
        "eicar": EICAR,
        "zip": archive(),
        "zip bomb": archive("bomb", bytes(5_000_000)),
        "word": archive("word/document.xml", b"<w/>"),
        "html": b"<!doctype html><script>alert(1)</script>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        "gif and script": b"GIF89a/*" + bytes(10) + b"*/=1;alert(1)",
        "webp": b"RIFF\x00\x00\x00\x00WEBPVP8 ",
        "pdf behind something": b"\n" + pdf(),
        "text": b"Hej",
    }
    for name, file in strangers.items():
        answer = await sent(content, draft["id"], file, "bild.png", **WORDS)
        assert (answer.status_code, faults(answer)) == (422, {"/file": "unknown_file_type"}), name
        assert answer.headers["content-type"] == "application/problem+json"
        assert "PDF, JPEG och PNG" in answer.json()["errors"][0]["message_sv"]
    nothing = await sent(content, draft["id"], b"", **WORDS)
    assert (nothing.status_code, faults(nothing)) == (422, {"/file": "empty_file"})
    assert await rows(content, "files") == 0


async def test_b13_what_is_less_or_more_than_it_says_is_refused(content):
    draft = await content.draft()
    bad = {
        "damaged_file": jpeg()[:-100],
        "too_many_pixels": pixel_bomb(),
        "hidden_data": pdf() + archive(),
        "active_content": written(scripted()),
    }
    for code, file in bad.items():
        answer = await sent(content, draft["id"], file, "a.pdf", **WORDS)
        assert (answer.status_code, faults(answer)) == (422, {"/file": code})
        assert answer.json()["errors"][0]["message_sv"]
    assert await rows(content, "files") == 0
    assert (await content.api.get(f"/items/{draft['id']}")).json()["attachments"] == []


async def test_b13_an_image_that_is_another_file_too_is_one_no_more(content):
    draft = await content.draft()
    await attached(content, draft["id"], png() + archive() + EICAR)
    await content.api.post(f"/items/{draft['id']}/publish")
    got = await content.site.get((await latest(content)).attachments[0].url)
    assert set(png_chunks(got.content)) == {b"IHDR", b"IDAT", b"IEND"}


async def test_b13_thirty_megabytes_are_too_many_and_none_is_kept(content):
    draft = await content.draft()
    for size in (30_000_000, 10_000_001):
        answer = await sent(content, draft["id"], b"%PDF-" + bytes(size), "a.pdf")
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
        assert "10000000 bytes" in answer.json()["detail"]

    async def endless():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n%PDF-'
        for _ in range(30):
            yield bytes(1_000_000)
        raise AssertionError("more than the limit was read")

    form = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = await content.api.post(f"/items/{draft['id']}/attachments", content=endless(), headers=form)
    assert answer.status_code == 413
    assert await rows(content, "files") == 0


async def test_b13_an_image_needs_words_and_they_are_checked(content):
    draft = await content.draft()
    answer = await sent(content, draft["id"], png())
    assert faults(answer) == {"/alt": "missing_field", "/byline": "missing_field"}
    for words, fault in (
        ({"alt": "a\u202eb"}, {"/alt": "invalid_text"}),
        ({"byline": "x" * 201}, {"/byline": "string_too_long"}),
        ({"title": "\u200b"}, {"/title": "blank_text"}),
        ({"credit": "Åsa"}, {"/credit": "unknown_field"}),
        ({"alt": ["ett", "två"]}, {"/alt": "duplicate_field"}),
    ):
        answer = await sent(content, draft["id"], png(), **{**WORDS, **words})
        assert (answer.status_code, faults(answer)) == (422, fault)
    without = await content.api.post(f"/items/{draft['id']}/attachments", data=WORDS)
    assert (without.status_code, faults(without)) == (422, {"/file": "missing_field"})


async def test_b13_an_item_has_only_so_many_files(content, monkeypatch):
    monkeypatch.setattr(attaching, "MAX_FILES", 2)
    draft = await content.draft()
    for pages in (1, 2):
        await attached(content, draft["id"], pdf(pages))
    answer = await sent(content, draft["id"], pdf(3))
    assert (answer.status_code, faults(answer)) == (422, {"/file": "too_many_files"})
    assert (await sent(content, draft["id"], pdf(1), title="Nytt namn")).status_code == 201


async def test_b13_a_file_that_kills_its_examiner_or_keeps_it_is_refused(content, monkeypatch):
    draft = await content.draft()
    for name, value in (("EXAMINER", "content.no_such_module"), ("PATIENCE_S", 0.001)):
        with capture_logs() as logs, monkeypatch.context() as patched:
            patched.setattr(examining, name, value)
            answer = await sent(content, draft["id"], pdf())
        assert (answer.status_code, faults(answer)) == (422, {"/file": "damaged_file"})
        assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["file_examination_failed"]


async def test_a_mail_links_to_what_the_site_hands_out(content):
    draft = await content.draft(title="Fler i arbete")
    await attached(content, draft["id"], png(), title="Möte i Kalmar")
    await attached(content, draft["id"], pdf(), "rapport.pdf", title="", alt="", byline="")
    await content.api.post(f"/items/{draft['id']}/publish")
    item = await latest(content)
    for form in (Form.PRESS, Form.NEWS):
        data = Composer(settings()).compose(dispatch(of_item(item), form=form)).data
        links = html5lib.parse(html_of(data), namespaceHTMLElements=False).iter("a")
        assert {file.url for file in item.attachments} <= {link.get("href") for link in links}
        for file in item.attachments:
            assert f"\n{file.url}\n" in text_of(data)
            assert (await content.site.get(file.url)).status_code == 200
    older = item.model_dump(mode="json")
    del older["attachments"]
    assert ItemSnapshot.model_validate(older).attachments == (), "an event of before there were any is read"


async def test_feeds_tell_of_files(content):
    draft = await content.draft()
    await attached(content, draft["id"], png(), title="Möte")
    await attached(content, draft["id"], pdf(), "rapport.pdf", title="", alt="", byline="")
    await content.api.post(f"/items/{draft['id']}/publish")
    files = (await latest(content)).attachments
    parsed = feedparser.parse((await content.site.get("/feed.atom")).content)
    assert not parsed.bozo
    told = [(found.href, found.type, int(found.length)) for found in parsed.entries[0].enclosures]
    assert told == [(file.url, file.type, file.size) for file in files]
    (entry,) = (await content.site.get("/feed.json")).json()["items"]
    assert entry["image"] == files[0].url
    assert [found["title"] for found in entry["attachments"]] == ["Möte", "rapport.pdf"]
    assert [found["size_in_bytes"] for found in entry["attachments"]] == [file.size for file in files]
