"""`/prenumeration/angra/{token}`: undoes one change. The link stands in the mail that confirmed it, and never ends.

GET shows what was changed and what it will be changed back to; POST does it, once, however often it comes.
"""

from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from shared.routes import Router
from shared.tokens import InvalidToken
from shared.web.origins import refuse_cross_site
from shared.web.pages import FormError
from shared.web.visits import PRIVATE
from subscriptions import undoing
from subscriptions.limits import TooOften
from subscriptions.stops import UnknownSubscriber
from subscriptions.undoing import AlreadyUndone, Undoing
from subscriptions.web.limiting import count_undoing, pausing, refusal_to_undo
from subscriptions.web.posting import read_form, text
from subscriptions.web.visiting import Visitor, dead_link, now, own_page, visitor_of
from subscriptions.wording import Wording

router = Router(include_in_schema=False)


@router.api_route("/prenumeration/angra/{token}", methods=["GET", "HEAD"])
async def ask(request: Request, token: str) -> Response:
    return await _answer(request, token)


@router.post("/prenumeration/angra/{token}")
async def act(request: Request, token: str) -> Response:
    refuse_cross_site(request)
    written = text(await read_form(request), "ord")
    state = request.app.state
    try:
        async with state.database.transaction() as session:
            found, visitor = await _found(request, session, token)
            if not found.is_undone:
                await count_undoing(session, request, visitor.id, written, now(request))
                await undoing.undo(session, state.links, found, now(request))
    except (InvalidToken, UnknownSubscriber):
        return dead_link(request)
    except TooOften as error:
        refused = await _answer(request, token, [refusal_to_undo(error, visitor.language, state.pages)], 429)
        return pausing(request, error, refused)
    except AlreadyUndone:
        pass
    return await _answer(request, token)


async def _answer(request: Request, token: str, errors: list[FormError] | None = None, status: int = 200) -> Response:
    """The page, by what the database has now."""
    try:
        async with request.app.state.database.reading() as session:
            found, visitor = await _found(request, session, token)
    except (InvalidToken, UnknownSubscriber):
        return dead_link(request)
    return _page(request, found, visitor, errors=errors or [], status=status)


async def _found(request: Request, session: AsyncSession, token: str) -> tuple[Undoing, Visitor]:
    claim = request.app.state.links.read_undo(token)
    found = await undoing.look(session, claim.subject, claim.generation)
    return found, await visitor_of(request, session, found.subscriber)


def _page(request: Request, found: Undoing, visitor: Visitor, *, errors: list[FormError], status: int) -> Response:
    wording, state = Wording(visitor.language.locale), request.app.state
    answer: Response = state.pages.render(
        request,
        "undo.html",
        visitor.language,
        status=status,
        headers=PRIVATE,
        is_undone=found.is_undone,
        at=found.change.at,
        after=wording.standing(found.change.after, visitor.roles),
        before=wording.standing(found.change.before, visitor.roles),
        preferences=own_page(request, found.subscriber),
        errors=errors,
    )
    return answer
