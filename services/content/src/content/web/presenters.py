"""What the templates get: frozen words and links, ready to be shown. No rows, no decisions left to a template."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from markupsafe import Markup

from content.fields import ItemFields
from content.models import Item, ItemRevision
from content.repository import Published
from content.snapshots import attachments, public_url
from shared.contracts.news import Attachment, ContactPerson, ItemState, Kind, Link

_ = str
"""Marks a text for the catalogue; the template translates it."""

KIND_LABELS = {
    Kind.PRESS_RELEASE: _("Pressmeddelande"),
    Kind.NEWS_TIP: _("Nyhetstips"),
    Kind.NEWS: _("Nyhet"),
    Kind.REPORT: _("Rapport"),
    Kind.RESULT: _("Resultat"),
    Kind.DAILY_NOTE: _("Daganteckning"),
}
SUMMARY_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Card:
    """One item in a list."""

    path: str
    kind_label: str
    language: str
    title: str
    lead: str
    published_at: datetime
    corrected_at: datetime | None


@dataclass(frozen=True, slots=True)
class CorrectionNote:
    """What was corrected, and when."""

    note: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Contact:
    """A contact person, with a number that a phone can dial."""

    person: ContactPerson
    dialled: str


@dataclass(frozen=True, slots=True)
class Original:
    """The original document of a report: where it is, and what the reader will meet there."""

    url: str
    host: str
    file_type: str


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of an item: one that lies elsewhere, or a file of ours, which can be saved in full size."""

    url: str
    source: str
    alt: str
    caption: str
    credit: str
    file: Attachment | None = None


@dataclass(frozen=True, slots=True)
class ItemPage:
    """An item's page. The `_html` fields were sanitised when the revision was made."""

    url: str
    kind_label: str
    language: str
    title: str
    lead: str
    summary: str
    body_html: Markup
    popular_version_html: Markup
    original: Original | None
    contacts: Sequence[Contact]
    links: Sequence[Link]
    pictures: Sequence[Picture]
    documents: Sequence[Attachment]
    corrections: Sequence[CorrectionNote]
    published_at: datetime
    revised_at: datetime
    json_ld: dict[str, Any]


@dataclass(frozen=True, slots=True)
class WithdrawnPage:
    """What is told of an item that was taken back: when, and why, and no more of its text than the title."""

    kind_label: str
    language: str
    title: str
    reason: str
    withdrawn_at: datetime


def card(published: Published) -> Card:
    """A list's entry."""
    item, revision = published
    fields = _fields(revision)
    assert item.published_at is not None
    return Card(
        path=f"/nyheter/{item.slug}",
        kind_label=KIND_LABELS[fields.kind],
        language=fields.language,
        title=fields.title,
        lead=fields.lead,
        published_at=item.published_at,
        corrected_at=item.revised_at if item.state == ItemState.CORRECTED else None,
    )


def item_page(published: Published, revisions: Sequence[ItemRevision], site: str, organisation: str) -> ItemPage:
    """The whole page."""
    item, newest = published
    fields = _fields(newest)
    assert item.published_at is not None
    url, summary = public_url(site, str(item.slug)), summary_of(fields, newest)
    pictures = pictures_of(fields, url)
    return ItemPage(
        url=url,
        kind_label=KIND_LABELS[fields.kind],
        language=fields.language,
        title=fields.title,
        lead=fields.lead,
        summary=summary,
        body_html=Markup(newest.body_html),  # noqa: S704 - sanitised by `rendering`
        popular_version_html=Markup(newest.popular_version_html),  # noqa: S704 - the same
        original=_original(fields.original_url),
        contacts=[Contact(person, _dialled(person.phone)) for person in fields.contacts],
        links=fields.links,
        pictures=pictures,
        documents=[file for file in attachments(fields, url) if not is_picture(file)],
        corrections=[CorrectionNote(row.note, row.made_at) for row in revisions if row.state == ItemState.CORRECTED],
        published_at=item.published_at,
        revised_at=newest.made_at,
        json_ld=_json_ld(item, fields, pictures, url, summary, organisation),
    )


def withdrawn_page(published: Published) -> WithdrawnPage:
    """What stands where the item was."""
    _item, newest = published
    fields = _fields(newest)
    return WithdrawnPage(KIND_LABELS[fields.kind], fields.language, fields.title, newest.note, newest.made_at)


def summary_of(fields: ItemFields, revision: ItemRevision) -> str:
    """Two lines for feeds and shared links: the lead, or the beginning of the text."""
    text = " ".join((fields.lead or revision.popular_version_text or revision.body_text).split())
    if len(text) <= SUMMARY_LENGTH:
        return text
    return text[:SUMMARY_LENGTH].rpartition(" ")[0] + " …"


def pictures_of(fields: ItemFields, page: str) -> list[Picture]:
    """Those that lie elsewhere, then our own. Those are shown by their path, whatever name the reader has for us."""
    elsewhere = [Picture(image.url, image.url, image.alt, image.caption, image.credit) for image in fields.images]
    files = filter(is_picture, attachments(fields, page))
    own = [Picture(file.url, urlsplit(file.url).path, file.alt, file.title, file.byline, file) for file in files]
    return elsewhere + own


def is_picture(file: Attachment) -> bool:
    """Whether it is shown, and not only linked to."""
    return file.type.startswith("image/")


def insecure_origins(pictures: Sequence[Picture]) -> list[str]:
    """Origins of images without TLS, which the site's content security policy must be widened by to show them."""
    parts = [urlsplit(picture.source) for picture in pictures]
    return sorted({f"{part.scheme}://{part.netloc}" for part in parts if part.scheme == "http"})


def _fields(revision: ItemRevision) -> ItemFields:
    return ItemFields.model_validate(revision.fields)


def _original(url: str) -> Original | None:
    if not url:
        return None
    parts = urlsplit(url)
    suffix = PurePosixPath(parts.path).suffix.removeprefix(".").upper()
    file_type = suffix if suffix in ("PDF", "DOCX", "XLSX", "PPTX", "ODT") else ""
    return Original(url, (parts.hostname or "").removeprefix("www."), file_type)


def _dialled(phone: str) -> str:
    return "".join(character for character in phone if character.isdigit() or character == "+")


def _json_ld(
    item: Item, fields: ItemFields, pictures: Sequence[Picture], url: str, summary: str, organisation: str
) -> dict[str, Any]:
    """The item for search engines (schema.org/NewsArticle)."""
    assert item.published_at is not None
    assert item.revised_at is not None
    return {
        "@context": "https://schema.org",
        "@type": "Report" if fields.kind is Kind.REPORT else "NewsArticle",
        "headline": fields.title,
        "description": summary,
        "inLanguage": str(fields.language),
        "datePublished": item.published_at.isoformat(),
        "dateModified": item.revised_at.isoformat(),
        "mainEntityOfPage": url,
        "image": [picture.url for picture in pictures],
        "author": {"@type": "Organization", "name": organisation},
        "publisher": {"@type": "Organization", "name": organisation},
    }
