"""`/avregistrera/{token}`: the way out of one audience's mails, or of all, where the mail was a digest of several.

GET shows a page with a button and changes nothing, since mail scanners follow links. A POST with
`List-Unsubscribe=One-Click` (RFC 8058; urlencoded or multipart) leaves at once, without redirect, cookie or question,
and answers 200 however often it comes, also when the person has been erased. The page's own button does the same and
then offers the way back. Anything else is 400.
"""

from dataclasses import dataclass

from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from shared.routes import Router
from shared.tokens import InvalidToken
from shared.web.origins import refuse_cross_site
from shared.web.pages import FormError, ReaderLanguage, reader_language
from shared.web.visits import PRIVATE
from subscriptions import choosing, people
from subscriptions.limits import TooOften
from subscriptions.links import Departing
from subscriptions.people import RoleRow
from subscriptions.states import SubscriberState, state_of
from subscriptions.stops import UnknownSubscriber
from subscriptions.web.limiting import count_undoing, pausing, refusal_to_undo
from subscriptions.web.posting import read_form, text
from subscriptions.web.visiting import DeadLink, dead_link, language_of, now, own_page
from subscriptions.wording import Wording

router = Router(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Leaver:
    """Whoever holds the link. Nobody is left behind an erased person's: `roles` is empty, and nothing is changed."""

    departing: Departing
    roles: list[RoleRow]
    language: ReaderLanguage
    has_left: bool
    own_page: str = ""
    is_held_back: bool = False
    """Paused, or stopped by what nobody chose on a page."""
    is_gone: bool = False


@router.api_route("/avregistrera/{token}", methods=["GET", "HEAD"])
async def ask(request: Request, token: str) -> Response:
    try:
        async with request.app.state.database.reading() as session:
            leaver = await _leaver(request, session, token)
    except DeadLink:
        return dead_link(request)
    return _page(request, leaver, "left" if leaver.has_left or leaver.is_gone else "ask")


@router.post("/avregistrera/{token}")
async def act(request: Request, token: str) -> Response:
    form = await read_form(request)
    one_click = text(form, "List-Unsubscribe") == "One-Click"
    action = "leave" if one_click else text(form, "action")
    if not one_click:
        refuse_cross_site(request)
    try:
        async with request.app.state.database.transaction() as session:
            leaver = await _leaver(request, session, token)
            if action in ("leave", "come_back") and not leaver.is_gone:
                await _apply(request, session, leaver.departing, action, text(form, "ord"))
    except DeadLink:
        return dead_link(request)
    except TooOften as error:
        refused = refusal_to_undo(error, leaver.language, request.app.state.pages)
        return pausing(request, error, _page(request, leaver, "left", errors=[refused], status=429))
    except UnknownSubscriber:
        pass  # erased this very moment: there is nobody to write to
    if action not in ("leave", "come_back"):
        return _page(request, leaver, "unclear", status=400)
    return _page(request, leaver, "left" if action == "leave" or leaver.is_gone else "back")


async def _apply(request: Request, session: AsyncSession, departing: Departing, action: str, written: str) -> None:
    links, at, subscriber_id = request.app.state.links, now(request), departing.subscriber_id
    if action == "leave":
        await choosing.leave(session, links, subscriber_id, departing.audience, at)
        return
    await count_undoing(session, request, subscriber_id, written, at)
    await choosing.come_back(session, links, subscriber_id, departing.audience, at)


async def _leaver(request: Request, session: AsyncSession, token: str) -> Leaver:
    try:
        departing: Departing = request.app.state.links.read_unsubscribe(token)
    except InvalidToken as error:
        raise DeadLink from error
    row = await people.subscriber(session, departing.subscriber_id)
    if row is None:
        return Leaver(departing, [], reader_language(request), has_left=False, is_gone=True)
    if row.generation != departing.generation:
        raise DeadLink
    left = (await people.left_by(session, [row.id]))[row.id]
    roles = (await people.roles_of(session, [row.id]))[row.id]
    has_left = row.unsubscribed_at is not None if departing.audience is None else departing.audience in left
    return Leaver(
        departing,
        roles,
        language_of(request, row),
        has_left,
        own_page=own_page(request, row),
        is_held_back=state_of(row, now(request)) in (SubscriberState.PAUSED, SubscriberState.SUPPRESSED),
    )


def _page(
    request: Request, leaver: Leaver, step: str, *, errors: list[FormError] | None = None, status: int = 200
) -> Response:
    answer: Response = request.app.state.pages.render(
        request,
        "unsubscribe.html",
        leaver.language,
        status=status,
        headers=PRIVATE,
        step=step,
        is_gone=leaver.is_gone,
        is_held_back=leaver.is_held_back,
        own_page=leaver.own_page,
        mails=_mails(leaver),
        errors=errors or [],
    )
    return answer


def _mails(leaver: Leaver) -> str:
    """What is left, in words; nothing says all."""
    audience = leaver.departing.audience
    return Wording(leaver.language.locale).mails(audience, leaver.roles) if audience else ""
