"""`/feed.atom` (RFC 4287) and `/feed.json` (JSON Feed 1.1): the newest items for readers' own programs.

An entry's id is the item's and never changes; a correction moves `updated`. A withdrawn item leaves both feeds; Atom
says so with a tombstone (RFC 6721), so that a reader's program can take it away.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree as ET

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from content import repository
from content.fields import ItemFields
from content.repository import Published
from content.snapshots import attachments, public_url
from content.web.caching import revalidated
from content.web.presenters import KIND_LABELS, pictures_of, summary_of
from shared.http import Reading
from shared.ids import derived_id
from shared.routes import Router
from shared.settings import OrganisationSettings

ATOM, TOMBSTONES = "http://www.w3.org/2005/Atom", "http://purl.org/atompub/tombstones/1.0"
ATOM_TYPE, JSON_TYPE = "application/atom+xml; charset=utf-8", "application/feed+json"
ENTRIES = 50
LONG_AGO = datetime(2014, 9, 19, tzinfo=UTC)
"""`updated` of a feed without entries; Atom demands one."""

router = Router(include_in_schema=False)

ET.register_namespace("", ATOM)
ET.register_namespace("at", TOMBSTONES)


@router.api_route("/feed.atom", methods=["GET", "HEAD"])
async def atom(request: Request, session: Reading) -> Response:
    """The newest items as Atom."""
    settings: OrganisationSettings = request.app.state.settings
    published = await repository.newest_published(session, limit=ENTRIES)
    withdrawn = await repository.newest_withdrawn(session, limit=ENTRIES)
    document = _atom(settings, published, withdrawn)
    return revalidated(request, Response(document, media_type=ATOM_TYPE))


@router.api_route("/feed.json", methods=["GET", "HEAD"])
async def json_feed(request: Request, session: Reading) -> Response:
    """The newest items as JSON Feed."""
    settings: OrganisationSettings = request.app.state.settings
    published = await repository.newest_published(session, limit=ENTRIES)
    return revalidated(request, JSONResponse(_json(settings, published), media_type=JSON_TYPE))


def _atom(settings: OrganisationSettings, published: Sequence[Published], withdrawn: Sequence[Published]) -> bytes:
    site = settings.public_url
    feed = ET.Element(f"{{{ATOM}}}feed", {"xml:lang": "sv"})
    _add(feed, "id", derived_id("feed", site).urn)
    _add(feed, "title", settings.organisation)
    _add(feed, "updated", _rfc3339(_newest_change([*published, *withdrawn])))
    _add(feed, "link", rel="self", type="application/atom+xml", href=f"{site}/feed.atom")
    _add(feed, "link", rel="alternate", type="text/html", href=f"{site}/")
    _add(_add(feed, "author"), "name", settings.organisation)
    for found in published:
        _add_entry(feed, found, site)
    for item, newest in withdrawn:
        entry = ET.SubElement(feed, f"{{{TOMBSTONES}}}deleted-entry", ref=item.id.urn, when=_rfc3339(newest.made_at))
        ET.SubElement(entry, f"{{{TOMBSTONES}}}comment").text = newest.note
    return bytes(ET.tostring(feed, encoding="utf-8", xml_declaration=True))


def _add_entry(feed: ET.Element, found: Published, site: str) -> None:
    item, newest = found
    assert item.published_at is not None
    fields = ItemFields.model_validate(newest.fields)
    url = public_url(site, str(item.slug))
    entry = _add(feed, "entry", **{"xml:lang": str(fields.language)})
    _add(entry, "id", item.id.urn)
    _add(entry, "title", fields.title)
    _add(entry, "published", _rfc3339(item.published_at))
    _add(entry, "updated", _rfc3339(newest.made_at))
    _add(entry, "link", rel="alternate", type="text/html", href=url)
    for file in attachments(fields, url):
        told = {"type": file.type, "length": str(file.size), "title": file.title or file.name}
        _add(entry, "link", rel="enclosure", href=file.url, **told)
    _add(entry, "category", term=fields.kind, label=KIND_LABELS[fields.kind])
    _add(entry, "summary", summary_of(fields, newest))
    _add(entry, "content", newest.popular_version_html + newest.body_html, type="html")


def _json(settings: OrganisationSettings, published: Sequence[Published]) -> dict[str, Any]:
    site = settings.public_url
    return {
        "version": "https://jsonfeed.org/version/1.1",
        "title": settings.organisation,
        "home_page_url": f"{site}/",
        "feed_url": f"{site}/feed.json",
        "language": "sv",
        "authors": [{"name": settings.organisation, "url": f"{site}/"}],
        "items": [_json_item(found, site) for found in published],
    }


def _json_item(found: Published, site: str) -> dict[str, Any]:
    item, newest = found
    assert item.published_at is not None
    fields = ItemFields.model_validate(newest.fields)
    url = public_url(site, str(item.slug))
    entry: dict[str, Any] = {
        "id": item.id.urn,
        "url": url,
        "title": fields.title,
        "summary": summary_of(fields, newest),
        "content_html": newest.popular_version_html + newest.body_html,
        "date_published": _rfc3339(item.published_at),
        "date_modified": _rfc3339(newest.made_at),
        "language": str(fields.language),
        "tags": [KIND_LABELS[fields.kind]],
    }
    if pictures := pictures_of(fields, url):
        entry["image"] = pictures[0].url
    if files := attachments(fields, url):
        entry["attachments"] = [
            {"url": file.url, "mime_type": file.type, "title": file.title or file.name, "size_in_bytes": file.size}
            for file in files
        ]
    return entry


def _newest_change(found: Sequence[Published]) -> datetime:
    return max((newest.made_at for _, newest in found), default=LONG_AGO)


def _add(parent: ET.Element, name: str, text: str | None = None, **attributes: str) -> ET.Element:
    child = ET.SubElement(parent, f"{{{ATOM}}}{name}", attributes)
    child.text = text
    return child


def _rfc3339(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
