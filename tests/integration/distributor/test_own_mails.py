"""What a recipient reads of their own mails: all of it, nothing of anybody else's, and nothing after half an hour."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import html5lib
import httpx2
import pytest
from tests.integration.distributor.conftest import CLOCK, Room, batch, people, snapshot

from distributor.app import build
from distributor.channels import Outcome
from distributor.readers import mails, page
from distributor.states import BOUNCED, SENT
from shared import extracts
from shared.contracts.mail import (
    Exclusion,
    ExclusionReason,
    Form,
    Lane,
    RecipientErased,
    RequestContent,
    SubjectKind,
)
from shared.contracts.news import Audience
from shared.tokens import Claim, TokenSigner

SIGNER = TokenSigner(["k" * 40])
ORIGIN = "https://forbundet.example"


class Reader(httpx2.AsyncClient):
    """Keeps cookies and follows where a link leads."""

    async def opened(self, path: str) -> httpx2.Response:
        return await self.get(path, follow_redirects=True)


@pytest.fixture
async def reader(room: Room) -> AsyncIterator[Reader]:
    service = build(room.settings.model_copy(update={"public_url": ORIGIN}))
    async with Reader(transport=httpx2.ASGITransport(app=service.app), base_url=ORIGIN) as client:
        yield client
    await service.database.dispose()


def link(recipient_id: UUID, ago: timedelta = timedelta()) -> str:
    return extracts.mails_path(SIGNER, recipient_id, extracts.begun(CLOCK.now() - ago))


def words(answer: httpx2.Response) -> str:
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(answer.text)
    return " ".join("".join(tree.find(".//main").itertext()).split())


async def test_a_recipient_reads_every_mail_and_what_became_of_it(room: Room, reader: Reader) -> None:
    mine, other = people(2)
    item, missed = snapshot(uuid4(), title="Öppet hus"), snapshot(uuid4(), title="Nya siffror")
    room.sender.answer = lambda d: (
        Outcome(BOUNCED, 550, "5.1.1", reply=f"no {d.address} here")
        if d.recipient_id == other.recipient_id
        else Outcome(SENT, 250, "2.0.0", reply="2.0.0 Ok: queued as A1")
    )
    await room.hear(batch(item, (mine, other)))
    left_out = Exclusion(
        recipient_id=mine.recipient_id,
        audience=Audience.POLITICIAN,
        reason=ExclusionReason.PAUSED,
        detail="pausad till 12 maj",
    )
    await room.hear(batch(missed, (), exclusions=(left_out,)))
    digest = left_out.model_copy(update={"reason": ExclusionReason.FREQUENCY, "detail": "får dagligt sammandrag"})
    await room.hear(batch(snapshot(uuid4(), title="I sammandraget"), (), exclusions=(digest,)))
    asked = RequestContent(subject="Länk till dina uppgifter", paragraphs=("Här är den.",))
    about = {"subject_kind": SubjectKind.REQUEST, "revision": 0, "form": Form.PREFERENCES, "lane": Lane.TRANSACTIONAL}
    receipt = batch(snapshot(uuid4()), (mine.model_copy(update={"audience": None}),), **about)
    await room.hear(receipt.model_copy(update={"item": None, "request": asked}))
    await room.drain()
    shown = await reader.opened(link(mine.recipient_id))
    assert (shown.status_code, shown.headers["cache-control"]) == (200, "no-store")
    assert shown.url.path == "/utskick/min-sida"
    for told in (
        "Öppet hus", "Länk till dina uppgifter", mine.address, mine.reason, "Din mejlserver tog emot det",
        "svar: 250 2.0.0 Ok: queued as A1", "Nya siffror", "pausad till 12 maj",
    ):  # fmt: skip
        assert told in words(shown)
    assert other.address not in shown.text
    assert "I sammandraget" not in words(shown), "it is no news that was missed"
    document = (await reader.opened(f"{shown.url.path}/export.json")).json()
    assert {title for mail in document["mails"] for title in mail["titles"]} == {
        "Öppet hus",
        "Länk till dina uppgifter",
    }
    assert {(mail["address"], mail["state"]) for mail in document["mails"]} == {(mine.address, "sent")}
    assert [tried["said"] for mail in document["mails"] for tried in mail["attempts"]] == ["2.0.0 Ok: queued as A1"] * 2
    left_out_of = {(one["title"], one["reason"]) for one in document["left_out"]}
    assert left_out_of == {("Nya siffror", "paused"), ("I sammandraget", "frequency")}
    returned = (await reader.opened(f"{link(other.recipient_id)}/export.json")).json()["mails"]
    assert [(mail["state"], mail["attempts"][0]["code"]) for mail in returned] == [("bounced", 550)]


async def test_many_mails_go_on_page_by_page(room: Room, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "SHOWN", 2)
    monkeypatch.setattr(mails, "PAGE", 2)
    (mine,) = people(1)
    titles = [f"Nyhet {number}" for number in range(5)]
    for title in titles:
        await room.hear(batch(snapshot(uuid4(), title=title), (mine,)))
    path, seen = link(mine.recipient_id), []
    while path:
        answer = await reader.opened(path)
        tree = html5lib.parse(answer.text, namespaceHTMLElements=False)
        seen += [entry.text.strip() for entry in tree.findall(".//p[@class='entry__name']")]
        following = tree.findall(".//a[@rel='next']")
        path = following[0].get("href") if following else ""
    assert sorted(seen) == titles
    assert len((await reader.opened(f"{link(mine.recipient_id)}/export.json")).json()["mails"]) == 5


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_link_that_is_none_or_too_old_opens_nothing(room: Room, reader: Reader) -> None:
    (mine,) = people(1)
    await room.hear(batch(snapshot(uuid4()), (mine,)))
    good = link(mine.recipient_id).rpartition("/")[2]
    began = extracts.begun(CLOCK.now())
    for bad in (
        link(mine.recipient_id, timedelta(minutes=30)).rpartition("/")[2],
        good[:-1],
        f"{good}=",
        "a" * 10_000,
        "%00",
        SIGNER.sign("preferences", Claim(mine.recipient_id, 1, began)),
    ):
        for path in (f"/utskick/{bad}", f"/utskick/{bad}/export.json"):
            answer = await reader.opened(path)
            assert (answer.status_code, "Länken gäller inte längre" in answer.text) == (404, True)
            assert mine.address not in answer.text


async def test_after_an_erasure_nothing_personal_is_shown(room: Room, reader: Reader) -> None:
    (mine,) = people(1)
    room.sender.answer = lambda d: Outcome(SENT, 250, reply=f"Ok <{d.address}>")
    await room.hear(batch(snapshot(uuid4()), (mine,)))
    await room.drain()
    assert mine.address in (await reader.opened(link(mine.recipient_id))).text
    await room.hear(RecipientErased(recipient_id=mine.recipient_id, version=2))
    for path in (link(mine.recipient_id), f"{link(mine.recipient_id)}/export.json"):
        answer = await reader.opened(path)
        assert mine.address not in answer.text
        assert mine.reason not in answer.text
