"""`/prenumeration/adress/{token}` confirms a new address; `/prenumeration/adress-tillbaka/{token}` takes it back.

The first link was mailed to the new address, the second to the old one. GET shows a page with a button, POST acts.
"""

from collections.abc import Awaitable, Callable
from uuid import UUID

from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from shared.routes import Router
from shared.tokens import InvalidToken
from shared.web.origins import refuse_cross_site
from shared.web.visits import PRIVATE
from subscriptions import address_changes
from subscriptions.address_changes import AddressTaken, UnknownChange
from subscriptions.stops import UnknownSubscriber
from subscriptions.web.posting import read_form
from subscriptions.web.visiting import dead_link, now

router = Router(include_in_schema=False)
DEAD = (InvalidToken, UnknownChange, UnknownSubscriber)


@router.api_route("/prenumeration/adress/{token}", methods=["GET", "HEAD"])
async def ask_to_confirm(request: Request, token: str) -> Response:
    return await _ask(request, token, "confirm")


@router.api_route("/prenumeration/adress-tillbaka/{token}", methods=["GET", "HEAD"])
async def ask_to_take_back(request: Request, token: str) -> Response:
    return await _ask(request, token, "take_back")


@router.post("/prenumeration/adress/{token}")
async def confirm(request: Request, token: str) -> Response:
    links = request.app.state.links

    async def work(session: AsyncSession, change_id: UUID) -> str:
        subscriber = await address_changes.confirm(session, links, change_id, now(request))
        link: str = links.preferences(subscriber.id, subscriber.generation)
        return link.removeprefix(request.app.state.settings.public_url)

    return await _act(request, token, "confirm", work)


@router.post("/prenumeration/adress-tillbaka/{token}")
async def take_back(request: Request, token: str) -> Response:
    async def work(session: AsyncSession, change_id: UUID) -> str:
        await address_changes.take_back(session, request.app.state.links, change_id, now(request))
        return ""

    return await _act(request, token, "take_back", work)


async def _ask(request: Request, token: str, purpose: str) -> Response:
    try:
        change_id = _read(request, token, purpose)
        async with request.app.state.database.reading() as session:
            change = await address_changes.look(session, change_id, now(request))
    except DEAD:
        return dead_link(request)
    if purpose == "confirm" and change.confirmed_at is not None:
        return _page(request, purpose, "done")
    return _page(request, purpose, "ask")


async def _act(
    request: Request, token: str, purpose: str, work: Callable[[AsyncSession, UUID], Awaitable[str]]
) -> Response:
    refuse_cross_site(request)
    await read_form(request)
    try:
        change_id = _read(request, token, purpose)
        async with request.app.state.database.transaction() as session:
            preferences = await work(session, change_id)
    except AddressTaken:
        return _page(request, purpose, "taken", status=409)
    except DEAD:
        return dead_link(request)
    return _page(request, purpose, "done", preferences)


def _read(request: Request, token: str, purpose: str) -> UUID:
    links = request.app.state.links
    read = links.read_confirm_address if purpose == "confirm" else links.read_take_back_address
    change_id: UUID = read(token)
    return change_id


def _page(request: Request, purpose: str, step: str, preferences: str = "", *, status: int = 200) -> Response:
    answer: Response = request.app.state.pages.render(
        request, "moving.html", status=status, headers=PRIVATE, purpose=purpose, step=step, preferences=preferences
    )
    return answer
