"""What an intranet receives, read by the CloudEvents rules rather than by our own models."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from distributor.channels import Content
from distributor.webhooks.body import news_body, trial_body
from shared.contracts.mail import Form, SubjectKind
from shared.contracts.news import (
    Attachment,
    Audience,
    ContactPerson,
    Image,
    ItemSnapshot,
    ItemState,
    Kind,
    Link,
    Locale,
)

AT = datetime(2026, 11, 22, 8, 30, tzinfo=UTC)


def content(
    state: ItemState = ItemState.PUBLISHED, *, note: str = "", revision: int = 1, item_id: UUID | None = None
) -> Content:
    item = ItemSnapshot(
        item_id=item_id or uuid4(),
        revision=revision,
        kind=Kind.NEWS,
        state=state,
        language=Locale.SV,
        title="Åtta av tio går vidare",
        lead="Ingressen",
        body_html="<p>Brödtexten</p>",
        body_text="Brödtexten",
        slug="atta-av-tio",
        url="https://forbundet.example/nyheter/atta-av-tio",
        audiences=(Audience.AGENCY_OFFICIAL,),
        municipalities=("0880",),
        topics=("results",),
        contacts=(ContactPerson(name="Eva Ek", phone="0480-123 45"),),
        links=(Link(label="Rapporten", url="https://forbundet.example/r"),),
        images=(Image(url="https://forbundet.example/b.jpg", alt="Eva", credit="Foto: Åke"),),
        attachments=(
            Attachment(
                url="https://forbundet.example/nyheter/atta-av-tio/filer/0a/plan.pdf",
                sha256="0a" * 32,
                name="plan.pdf",
                type="application/pdf",
                size=1_000,
            ),
        ),
        published_at=AT,
        revised_at=AT,
    )
    return Content(SubjectKind.ITEM, item.item_id, revision, item, note, correlation_id="c-1", traceparent="00-1-2-01")


def read(body: bytes) -> dict[str, Any]:
    """The document, when it keeps the rules of CloudEvents 1.0 for attribute names and required attributes."""
    document = json.loads(body)
    assert document["specversion"] == "1.0"
    assert all(name.isalnum() and name.islower() and len(name) <= 20 for name in document)
    assert all(isinstance(document[name], str) and document[name] for name in ("id", "source", "type", "subject"))
    assert datetime.fromisoformat(document["time"]).utcoffset() is not None
    assert document["datacontenttype"] == "application/json"
    return document


def test_news_carries_all_that_an_intranet_shows() -> None:
    told = content()
    document = read(news_body(told, Form.NEWS, AT))
    assert document["type"] == "se.budkavle.news.published.v1"
    assert document["source"] == "/budkavle/content"
    assert document["subject"] == str(told.subject_id)
    assert document["correlationid"] == "c-1"
    assert document["traceparent"] == "00-1-2-01"
    data = document["data"]
    assert data["item_id"] == str(told.subject_id)
    assert (data["title"], data["lead"], data["body_html"]) == (
        "Åtta av tio går vidare",
        "Ingressen",
        "<p>Brödtexten</p>",
    )
    assert (data["municipalities"], data["topics"]) == (["0880"], ["results"])
    assert data["contacts"][0]["phone"] == "0480-123 45"
    assert data["images"][0]["credit"] == "Foto: Åke"
    (file,) = data["attachments"]
    assert (file["name"], file["type"], file["size"], file["sha256"]) == (
        "plan.pdf",
        "application/pdf",
        1_000,
        "0a" * 32,
    )
    assert file["url"].endswith("/plan.pdf")
    assert not {"audiences", "slug"} & data.keys()


def test_a_correction_says_what_was_wrong() -> None:
    document = read(news_body(content(ItemState.CORRECTED, note="Fel siffra", revision=2), Form.CORRECTION, AT))
    assert document["type"] == "se.budkavle.news.corrected.v1"
    assert document["data"]["note"] == "Fel siffra"
    assert document["data"]["revision"] == 2


def test_whoever_never_had_the_faulty_revision_is_told_news() -> None:
    document = read(news_body(content(ItemState.CORRECTED, revision=2), Form.NEWS, AT))
    assert document["type"] == "se.budkavle.news.published.v1"


def test_a_withdrawal_repeats_nothing_of_what_is_withdrawn() -> None:
    body = news_body(content(ItemState.WITHDRAWN, note="Uppgiften var fel", revision=3), Form.WITHDRAWAL, AT)
    document = read(body)
    assert document["type"] == "se.budkavle.news.withdrawn.v1"
    assert document["data"].keys() == {"item_id", "revision", "state", "title", "url", "reason", "revised_at"}
    assert document["data"]["reason"] == "Uppgiften var fel"
    assert "Brödtexten".encode() not in body
    assert b"Ingressen" not in body


def test_repeats_are_the_same_bytes_and_revisions_are_not() -> None:
    item_id = uuid4()
    first, again = (news_body(content(item_id=item_id), Form.NEWS, AT) for _ in range(2))
    assert first == again
    second = news_body(content(ItemState.CORRECTED, item_id=item_id, revision=2), Form.CORRECTION, AT)
    assert read(first)["id"] != read(second)["id"]


def test_a_trial_tells_of_no_item() -> None:
    endpoint_id = uuid4()
    document = read(trial_body(endpoint_id, AT, "c-2"))
    assert document["type"] == "se.budkavle.endpoint.tested.v1"
    assert document["data"]["endpoint_id"] == str(endpoint_id)
    assert "traceparent" not in document
