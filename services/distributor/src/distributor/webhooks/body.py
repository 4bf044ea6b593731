"""What an intranet receives: a CloudEvents 1.0 document about one revision of an item.

The same revision gives the same bytes, for every endpoint and on every repeat. A withdrawal carries no text of what
was withdrawn: only which item it was, where its page explains, and the reason. The shapes here are published; a field
may be added, never renamed.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

import json
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime

from distributor.channels import Content
from shared.contracts.envelope import Contract
from shared.contracts.mail import Form
from shared.contracts.news import (
    Attachment,
    ContactPerson,
    Image,
    ItemSnapshot,
    ItemState,
    Kind,
    Link,
    Locale,
    NewsCorrected,
    NewsPublished,
    NewsWithdrawn,
)
from shared.ids import derived_id, new_id

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
NEWS_SOURCE = "/budkavle/content"
OWN_SOURCE = "/budkavle/distributor"
TEST_TYPE = "se.budkavle.endpoint.tested.v1"

TYPES = {
    Form.CORRECTION: NewsCorrected.event_type(),
    Form.WITHDRAWAL: NewsWithdrawn.event_type(),
}
"""By form. Every other form is news to its endpoint, in whatever revision is the newest."""

KEPT_BODIES = 64
"""Revisions whose bytes are kept while their webhooks go out: a few MB, and no item is rendered once an endpoint."""


class IntranetNews(Contract):
    """An item as an intranet shows it. `note` says what a correction mends."""

    item_id: UUID
    revision: int
    kind: Kind
    state: ItemState
    language: Locale
    title: str
    lead: str
    body_html: str
    body_text: str
    url: str
    topics: tuple[str, ...]
    municipalities: tuple[str, ...]
    contacts: tuple[ContactPerson, ...]
    links: tuple[Link, ...]
    images: tuple[Image, ...]
    attachments: tuple[Attachment, ...]
    popular_version_html: str
    popular_version_text: str
    original_url: str
    published_at: AwareDatetime
    revised_at: AwareDatetime
    note: str


class IntranetWithdrawal(Contract):
    """An item that must be taken down. `url` is its page, which says that it is withdrawn."""

    item_id: UUID
    revision: int
    state: ItemState
    title: str
    url: str
    reason: str
    revised_at: AwareDatetime


@lru_cache(maxsize=KEPT_BODIES)
def news_body(content: Content, form: Form, planned_at: datetime) -> bytes:
    """The body for an item's revision; `content` serves as its own key (it compares by identity)."""
    item = content.item
    if item is None:
        raise ValueError("a webhook tells of an item")
    withdrawn = item.state is ItemState.WITHDRAWN
    event_type = TYPES.get(Form.WITHDRAWAL if withdrawn else form, NewsPublished.event_type())
    return _document(
        id=str(derived_id("webhook", event_type, item.item_id, item.revision)),
        source=NEWS_SOURCE,
        type=event_type,
        subject=str(item.item_id),
        time=planned_at,
        correlationid=content.correlation_id,
        traceparent=content.traceparent,
        data=_data(item, content.note),
    )


def trial_body(endpoint_id: UUID, at: datetime, correlation_id: str) -> bytes:
    """The body that tries an endpoint out; it tells of no item."""
    return _document(
        id=str(new_id()),
        source=OWN_SOURCE,
        type=TEST_TYPE,
        subject=str(endpoint_id),
        time=at,
        correlationid=correlation_id,
        data={"endpoint_id": str(endpoint_id), "message": "Det här är ett prov. This is a test."},
    )


def _data(item: ItemSnapshot, note: str) -> dict[str, Any]:
    if item.state is ItemState.WITHDRAWN:
        told: Contract = IntranetWithdrawal(**_shared_fields(item, IntranetWithdrawal), reason=note)
    else:
        told = IntranetNews(**_shared_fields(item, IntranetNews), note=note)
    return told.model_dump(mode="json")


def _shared_fields(item: ItemSnapshot, shape: type[Contract]) -> dict[str, Any]:
    return {name: getattr(item, name) for name in shape.model_fields if name in ItemSnapshot.model_fields}


def _document(*, time: datetime, **attributes: Any) -> bytes:
    """Attributes without a value are left out, as the specification asks."""
    known = {"specversion": "1.0", **attributes, "time": time.isoformat(), "datacontenttype": "application/json"}
    present = {name: value for name, value in known.items() if value not in (None, "")}
    return json.dumps(present, ensure_ascii=False, separators=(",", ":")).encode()
