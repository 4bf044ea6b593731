"""`/kansli/stopp`: whom no mail flows to beside their own choice, and why; the way back is on the person's page."""

from dataclasses import dataclass
from datetime import datetime

from fastapi import Request, Response

from shared import paging
from shared.http import Reading
from shared.routes import Router
from shared.web.pages import reader_language
from subscriptions import suppressions
from subscriptions.models import Subscriber, Suppression
from subscriptions.suppressions import SuppressionReason
from subscriptions.web.fields import Choice
from subscriptions.web.office.door import HOME, SignedIn, page
from subscriptions.web.office.listing import kept, linked
from subscriptions.web.office.wording import STOPS, OfficeWording

router = Router(include_in_schema=False)

PATH = f"{HOME}/stopp"
SHOWN = 50


@dataclass(frozen=True, slots=True)
class Line:
    """One stop that stands."""

    path: str
    who: str
    address: str
    reason: str
    note: str
    since: datetime


@router.api_route(PATH, methods=["GET", "HEAD"])
async def listing(request: Request, office: SignedIn, session: Reading) -> Response:
    asked = kept(request, "orsak")
    wording, after = OfficeWording(reader_language(request).locale), paging.decode(request.query_params.get("efter"))
    reason = SuppressionReason(asked["orsak"]) if asked["orsak"] in tuple(SuppressionReason) else None
    reasons = [reason] if reason else list(SuppressionReason)
    rows = await suppressions.standing_for(session, reasons, after=after, limit=SHOWN + 1)
    last = rows[SHOWN - 1][0].id if rows[SHOWN:] else None
    return page(
        request,
        office,
        "stops.html",
        stops=[_line(stop, person, wording) for stop, person in rows[:SHOWN]],
        is_filtered=reason is not None,
        reasons=[Choice(str(key), wording.gettext(label), key == reason) for key, label in STOPS.items()],
        beginning=linked(request, PATH, asked) if after else "",
        following=linked(request, PATH, {**asked, "efter": paging.encode(last)}) if last else "",
    )


def _line(stop: Suppression, person: Subscriber, wording: OfficeWording) -> Line:
    return Line(
        path=f"{HOME}/personer/{person.id}",
        who=person.name or person.address,
        address=person.address if person.name else "",
        reason=wording.gettext(STOPS[SuppressionReason(stop.reason)]),
        note=stop.note,
        since=stop.suppressed_at,
    )
