"""The next revision of an item, rendered and whole: what is kept, shown and sent is made here, once."""

from datetime import datetime

from content.attachments.file_names import in_address
from content.fields import ItemFields
from content.models import Item
from content.rendering import render
from shared.contracts.news import AttachedFile, Attachment, ItemSnapshot, ItemState

TEXTS = ("body_html", "body_text", "popular_version_html", "popular_version_text")
SENT_AS_THEY_ARE = frozenset(ItemFields.model_fields) & frozenset(ItemSnapshot.model_fields) - {"attachments"}


def public_url(site: str, slug: str) -> str:
    """The item's page."""
    return f"{site}/nyheter/{slug}"


def attachments(fields: ItemFields, page: str) -> tuple[Attachment, ...]:
    """The item's files, each with its address: the bytes decide it, the name behind them is for people."""
    return tuple(
        Attachment(url=f"{page}/filer/{digits(file)}/{in_address(file.name)}", **file.model_dump())
        for file in fields.attachments
    )


def digits(file: AttachedFile) -> str:
    """As many of the file's SHA-256 as tell an item's files apart."""
    return file.sha256[:16]


def next_revision(
    item: Item, fields: ItemFields, *, state: ItemState, slug: str, site: str, at: datetime
) -> ItemSnapshot:
    """What `item` becomes when `fields` are made public at `at`."""
    body, popular = render(fields.body, site), render(fields.popular_version, site)
    url = public_url(site, slug)
    return ItemSnapshot(
        **fields.model_dump(include=set(SENT_AS_THEY_ARE)),
        item_id=item.id,
        revision=item.revision + 1,
        state=state,
        slug=slug,
        url=url,
        attachments=attachments(fields, url),
        body_html=body.html,
        body_text=body.text,
        popular_version_html=popular.html,
        popular_version_text=popular.text,
        published_at=item.published_at or at,
        revised_at=at,
    )
