"""`/kansli/tackning`: which newsrooms, councils and groups are reached in each municipality, and the holes."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import Request, Response

from shared.contracts.vocabulary import MUNICIPALITIES
from shared.http import Reading
from shared.routes import Router
from shared.web.dates import STOCKHOLM
from shared.web.pages import reader_language
from subscriptions.coverage import CouncilCovered, Hole, MunicipalityCoverage, PlaceCovered, covered
from subscriptions.web.office.door import HOME, SignedIn, now, page
from subscriptions.web.office.wording import OfficeWording

router = Router(include_in_schema=False)

PATH = f"{HOME}/tackning"


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


HOLES = {
    Hole.NEWSROOM: _("Ingen redaktion nås"),
    Hole.LOCAL_NEWSROOM: _("Bara redaktioner för hela länet nås"),
    Hole.COUNCIL: _("Inget fullmäktige och ingen nämnd nås"),
    Hole.COUNCIL_WITHOUT_MEMBERS: _("Ett fullmäktige eller en nämnd saknar mottagare"),
    Hole.GROUP: _("Ingen samverkansgrupp nås"),
}
NEWSROOMS = {
    "none": _("Ingen redaktion"),
    "county": _("Bara länets redaktioner"),
    "own": _("Egna redaktioner: %(count)s"),
}
"""What stands on the map's squares, by who is reached there."""
NEWSROOM_HOLES = {Hole.NEWSROOM, Hole.LOCAL_NEWSROOM}
COUNCIL_HOLES = {Hole.COUNCIL, Hole.COUNCIL_WITHOUT_MEMBERS}


@dataclass(frozen=True, slots=True)
class Place:
    """A newsroom, a council or a group in a municipality."""

    path: str
    name: str
    words: str


ON_THE_MAP = (
    ("0884", "0883", ""),
    ("0860", "0882", ""),
    ("0821", "0861", "0885"),
    ("0881", "0880", "0840"),
    ("0862", "0834", ""),
)
"""Where the municipalities lie, from north to south and from the forests to Öland: a map of squares."""


@dataclass(frozen=True, slots=True)
class Area:
    """One municipality; a cell of the table is empty where nothing is missing."""

    code: str
    name: str
    cells: tuple[str, str, str]
    places: Sequence[Place]
    newsrooms: str
    reach: str


@router.api_route(PATH, methods=["GET", "HEAD"])
async def show(request: Request, office: SignedIn, session: Reading) -> Response:
    wording, day = OfficeWording(reader_language(request).locale), now(request).astimezone(STOCKHOLM).date()
    found = [_area(area, wording) for area in await covered(session, list(MUNICIPALITIES), day)]
    lacking = sum(any(area.cells) for area in found)
    by_code = {area.code: area for area in found}
    squares = [[by_code.get(code) for code in row] for row in ON_THE_MAP]
    return page(request, office, "coverage.html", areas=found, lacking=lacking, squares=squares)


def _area(area: MunicipalityCoverage, wording: OfficeWording) -> Area:
    def missing(holes: set[Hole]) -> str:
        return ". ".join(wording.gettext(HOLES[hole]) for hole in area.holes if hole in holes)

    places = [
        *(_place(place, "organisationer", wording) for place in (*area.newsrooms, *area.councils)),
        *(_place(place, "grupper", wording) for place in area.groups),
    ]
    cells = (missing(NEWSROOM_HOLES), missing(COUNCIL_HOLES), missing({Hole.GROUP}))
    own = sum(1 for place in area.newsrooms if place.reached and not place.is_countywide)
    reach = "none" if Hole.NEWSROOM in area.holes else "county" if Hole.LOCAL_NEWSROOM in area.holes else "own"
    words = wording.gettext(NEWSROOMS[reach]) % {"count": own}
    return Area(area.municipality, area.name, cells, places, words, reach)


def _place(place: PlaceCovered, room: str, wording: OfficeWording) -> Place:
    words = [
        wording.gettext(_("%(reached)s av %(members)s nås")) % {"reached": place.reached, "members": place.members}
    ]
    words += [wording.gettext(_("hela länets"))] if place.is_countywide else []
    if isinstance(place, CouncilCovered):
        until = wording.gettext(_("till och med %(day)s"))
        words += [until % {"day": place.mandate_until}] if place.mandate_until else []
        following = wording.gettext(_("nästa från %(day)s"))
        words += [following % {"day": place.next_from}] if place.next_from else []
    return Place(f"{HOME}/{room}/{place.id}", place.name, ", ".join(words))
