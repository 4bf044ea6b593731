"""The public pages: the newest of everything, the press room, reports, results, and each item's own page.

A withdrawn item's address answers 410 and says when and why it was taken back. Nothing here is personal, so anybody may
cache it; everything is asked for anew, so a correction shows at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response

from content import repository
from content.repository import Published
from content.web import presenters
from content.web.caching import revalidated
from shared import paging
from shared.contracts.news import ItemState, Kind
from shared.http import SECURITY_HEADERS, Reading
from shared.problems import Problem
from shared.routes import Router
from shared.settings import OrganisationSettings
from shared.web.pages import Pages, Reader, href

PAGE_SIZE = 20
READS = ["GET", "HEAD"]

router = Router(include_in_schema=False)

_ = str
"""Marks a text for the catalogue; the template translates it."""


@dataclass(frozen=True, slots=True)
class Section:
    """One list of the site."""

    path: str
    title: str
    intro: str
    kinds: Sequence[Kind] = ()
    for_press: bool = False


FRONT = Section("/", _("Nyheter"), _("Det senaste om samarbetet mellan myndigheterna i länet."))
PRESS_ROOM = Section(
    "/pressrum",
    _("Pressrum"),
    _("Pressmeddelanden och nyhetstips för redaktioner. Texterna är fria att använda."),
    (Kind.PRESS_RELEASE, Kind.NEWS_TIP),
    for_press=True,
)
REPORTS = Section(
    "/rapporter",
    _("Rapporter"),
    _("Rapporter och uppföljningar i kortversion, med länk till originalet för den som vill veta mer."),
    (Kind.REPORT,),
)
RESULTS = Section("/resultat", _("Resultat"), _("Vad samarbetet har lett till, i siffror och text."), (Kind.RESULT,))

Older = Annotated[str | None, Query(max_length=100)]


def _pages(request: Request) -> Pages:
    pages: Pages = request.app.state.pages
    return pages


SitePages = Annotated[Pages, Depends(_pages)]


@router.api_route("/", methods=READS)
async def front_page(
    request: Request, pages: SitePages, reader: Reader, session: Reading, fore: Older = None
) -> Response:
    """The newest of everything."""
    return await _section(FRONT, request, pages, reader, session, fore)


@router.api_route("/pressrum", methods=READS)
async def press_room(
    request: Request, pages: SitePages, reader: Reader, session: Reading, fore: Older = None
) -> Response:
    """What journalists look for."""
    return await _section(PRESS_ROOM, request, pages, reader, session, fore)


@router.api_route("/rapporter", methods=READS)
async def reports(request: Request, pages: SitePages, reader: Reader, session: Reading, fore: Older = None) -> Response:
    """Reports in their popular versions."""
    return await _section(REPORTS, request, pages, reader, session, fore)


@router.api_route("/resultat", methods=READS)
async def results(request: Request, pages: SitePages, reader: Reader, session: Reading, fore: Older = None) -> Response:
    """What came out of it."""
    return await _section(RESULTS, request, pages, reader, session, fore)


@router.api_route("/nyheter/{slug}", methods=READS)
async def item_page(request: Request, slug: str, pages: SitePages, reader: Reader, session: Reading) -> Response:
    """An item, or what is told of it since it was withdrawn."""
    found = await repository.by_slug(session, slug)
    if found is None:
        raise Problem(404)
    item = found[0]
    if item.state == ItemState.WITHDRAWN:
        return withdrawn(request, found, pages, reader)
    settings: OrganisationSettings = request.app.state.settings
    revisions = await repository.revisions(session, item.id)
    shown = presenters.item_page(found, revisions, settings.public_url, settings.organisation)
    return revalidated(request, pages.render(request, "item.html", reader, headers=_policy(shown), item=shown))


def withdrawn(request: Request, found: Published, pages: Pages, reader: Reader) -> Response:
    """What stands where an item, or a file of it, was."""
    page = pages.render(request, "withdrawn.html", reader, status=410, item=presenters.withdrawn_page(found))
    page.headers["Cache-Control"] = "no-cache"
    return page


async def _section(
    section: Section, request: Request, pages: Pages, reader: Reader, session: Reading, fore: str | None
) -> Response:
    before = await _position(session, fore)
    found = await repository.newest_published(session, limit=PAGE_SIZE + 1, kinds=section.kinds, before=before)
    shown = found[:PAGE_SIZE]
    words: dict[str, Any] = {
        "section": section,
        "cards": [presenters.card(published) for published in shown],
        "older": _link_to_older(section, reader, shown) if len(found) > PAGE_SIZE else "",
        "newest": fore is None,
    }
    return revalidated(request, pages.render(request, "section.html", reader, **words))


async def _position(session: Reading, fore: str | None) -> Any:
    """Where the page before ended. An item that was never published is no position."""
    last = paging.decode(fore)
    if last is None:
        return None
    item = await repository.item(session, last)
    if item is None or item.published_at is None:
        raise Problem(404)
    return item.published_at, item.id


def _link_to_older(section: Section, reader: Reader, shown: Sequence[Published]) -> str:
    return href(reader, section.path, fore=paging.encode(shown[-1][0].id))


def _policy(shown: presenters.ItemPage) -> dict[str, str]:
    """The house's policy, widened by exactly the plain-http origins that this page's images come from."""
    origins = presenters.insecure_origins(shown.pictures)
    if not origins:
        return {}
    policy = SECURITY_HEADERS["content-security-policy"]
    return {"Content-Security-Policy": policy.replace("img-src 'self'", f"img-src 'self' {' '.join(origins)}")}
