"""One revision of an item, ready to be kept, shown and sent."""

from datetime import datetime
from typing import Any

from content.fields import ItemFields
from content.models import Item
from content.rendering import render
from shared.contracts.news import ItemSnapshot, ItemState


def public_url(site: str, slug: str) -> str:
    """The item's page."""
    return f"{site}/nyheter/{slug}"


def rendered(fields: ItemFields, site: str) -> dict[str, str]:
    """The texts of a revision, in the forms that they are kept in."""
    body, popular = render(fields.body, site), render(fields.popular_version, site)
    return {
        "body_html": body.html,
        "body_text": body.text,
        "popular_version_html": popular.html,
        "popular_version_text": popular.text,
    }


def snapshot(
    item: Item,
    fields: ItemFields,
    texts: dict[str, str],
    *,
    state: ItemState,
    revision: int,
    slug: str,
    site: str,
    published_at: datetime,
    revised_at: datetime,
) -> ItemSnapshot:
    """What the events carry."""
    same: dict[str, Any] = fields.model_dump(
        include={"kind", "language", "title", "lead", "audiences", "municipalities", "topics", "original_url"}
    )
    return ItemSnapshot(
        **same,
        **texts,
        item_id=item.id,
        revision=revision,
        state=state,
        slug=slug,
        url=public_url(site, slug),
        contacts=fields.contacts,
        links=fields.links,
        images=fields.images,
        published_at=published_at,
        revised_at=revised_at,
    )
