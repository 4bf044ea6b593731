"""`/utskick/{token}`: a recipient's own mails, as a page and as a file, behind a link that ends within half an hour.

The link stands on the page with a person's own data (`subscriptions`), which opens by a link that was mailed to them.
GET changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse

from distributor.readers import mails
from distributor.readers.mails import LeftOut, OwnMail
from shared import extracts, paging
from shared.contracts.delivery import DeliveryState
from shared.contracts.mail import ExclusionReason
from shared.http import no_store
from shared.routes import Router
from shared.tokens import InvalidToken
from shared.web.visits import PRIVATE

router = Router(prefix=extracts.PATH, include_in_schema=False, dependencies=[Depends(no_store)])

SHOWN = 50


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


STATES = {
    DeliveryState.PLANNED: _("Väntar på att skickas"),
    DeliveryState.LEASED: _("Skickas just nu"),
    DeliveryState.SENT: _("Din mejlserver tog emot det"),
    DeliveryState.DEFERRED: _("Din mejlserver bad oss vänta"),
    DeliveryState.BOUNCED: _("Kom tillbaka"),
    DeliveryState.FAILED: _("Gick inte att skicka"),
    DeliveryState.UNCERTAIN: _("Vi vet inte om det kom fram"),
    DeliveryState.CANCELLED: _("Skickades inte"),
}


@dataclass(frozen=True, slots=True)
class ShownMail:
    """One mail, as it stands on the page."""

    at: datetime
    titles: Sequence[str]
    state: str
    address: str
    reason: str
    replies: Sequence[str]


@dataclass(frozen=True, slots=True)
class ShownItem:
    """An item that was left out, and why."""

    at: datetime
    title: str
    why: str


@router.api_route("/{token}", methods=["GET", "HEAD"])
async def show(request: Request, token: str) -> Response:
    try:
        recipient_id = _whose(request, token)
        place: Response | None = request.app.state.visits.onward(request, extracts.MAILS, token)
    except InvalidToken:
        return _ended(request)
    if place is not None:
        return place
    before = paging.decode(request.query_params.get("fore"))
    async with request.app.state.database.reading() as session:
        found = await mails.page_of(session, recipient_id, before=before, limit=SHOWN + 1)
        left_out = [] if before else await mails.left_out_of(session, recipient_id)
    answer: Response = request.app.state.own_pages.render(
        request,
        "own_mails.html",
        headers=PRIVATE,
        mails=[_shown(mail) for mail in found[:SHOWN]],
        left_out=[
            ShownItem(one.row.created_at, one.title, one.row.detail)
            for one in left_out
            if one.row.reason != ExclusionReason.FREQUENCY  # it came, or comes, in a digest
        ],
        older=paging.encode(found[SHOWN - 1].row.id) if len(found) > SHOWN else "",
        is_first=before is None,
    )
    return answer


@router.api_route("/{token}/export.json", methods=["GET", "HEAD"])
async def download(request: Request, token: str) -> Response:
    try:
        recipient_id = _whose(request, token)
    except InvalidToken:
        return _ended(request)
    async with request.app.state.database.reading() as session:
        found = await mails.all_of(session, recipient_id)
        left_out = await mails.left_out_of(session, recipient_id)
    document = {
        "id": str(recipient_id),
        "mails": [_told(mail) for mail in found],
        "left_out": [_told_left_out(one) for one in left_out],
    }
    attached = {"Content-Disposition": 'attachment; filename="mina-mejl.json"'}
    return JSONResponse(document, headers={**PRIVATE, **attached})


def _whose(request: Request, token: str) -> UUID:
    state = request.app.state
    given: str = state.visits.token(request, extracts.MAILS, token)
    return extracts.read_mails(state.visits.signer, given, state.clock.now())


def _ended(request: Request) -> Response:
    """The same whatever is wrong with the link."""
    answer: Response = request.app.state.own_pages.render(request, "own_mails_ended.html", status=404, headers=PRIVATE)
    return answer


def _shown(mail: OwnMail) -> ShownMail:
    row = mail.row
    replies = [f"{tried.code or ''} {_said(tried.enhanced, tried.reply)}" for tried in mail.attempts]
    replies += [_said(back.status, back.diagnostic) for back in mail.bounces]
    return ShownMail(
        row.planned_at,
        mail.titles,
        STATES[DeliveryState(row.state)],
        row.address or "",
        row.reason or "",
        [" ".join(reply.split()) for reply in replies],
    )


def _said(status: str, words: str) -> str:
    """The server's status and words; most servers begin with the status themselves."""
    return words if words.startswith(status) else f"{status} {words}"


def _told(mail: OwnMail) -> dict[str, Any]:
    row = mail.row
    return {
        "titles": list(mail.titles),
        "form": row.form,
        "revision": row.revision,
        "audience": row.audience,
        "address": row.address,
        "language": row.locale,
        "reason": row.reason,
        "state": row.state,
        "ended_because": row.ended_reason,
        "planned_at": row.planned_at.isoformat(),
        "changed_at": row.changed_at.isoformat(),
        "attempts": [_tried(tried) for tried in mail.attempts],
        "bounces": [
            {"status": back.status, "said": back.diagnostic, "received_at": back.received_at.isoformat()}
            for back in mail.bounces
        ],
    }


def _tried(tried: Any) -> dict[str, Any]:
    return {
        "state": tried.state,
        "code": tried.code,
        "enhanced": tried.enhanced,
        "said": tried.reply,
        "ended_at": tried.ended_at.isoformat(),
    }


def _told_left_out(one: LeftOut) -> dict[str, Any]:
    row = one.row
    return {
        "title": one.title,
        "audience": row.audience,
        "reason": row.reason,
        "detail": row.detail,
        "at": row.created_at.isoformat(),
    }
