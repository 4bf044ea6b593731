"""The pages behind the single links of a group: answer an invitation, undo a change, ask to stay.

Each shows what it is about and a button; GET changes nothing, and a second POST finds it done. None names a member.
"""

from collections.abc import Sequence
from typing import Any

from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from shared.routes import Router
from shared.tokens import InvalidToken
from shared.web.origins import refuse_cross_site
from shared.web.pages import FormError, ReaderLanguage
from shared.web.visits import PRIVATE
from subscriptions.groups import invitations, members, undoing
from subscriptions.groups.invitations import UnknownInvitation
from subscriptions.groups.members import Held, UnknownGroup
from subscriptions.groups.models import GroupAct, GroupChange
from subscriptions.limits import TooOften
from subscriptions.web.limiting import count_undoing, pausing, refusal_to_undo
from subscriptions.web.posting import read_form, text
from subscriptions.web.visiting import dead_link, language_of, now

router = Router(include_in_schema=False)


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


HAPPENED = {
    GroupAct.INVITED: _("Någon bjöds in till gruppen."),
    GroupAct.JOINED: _("En ny medlem kom med i gruppen."),
    GroupAct.REMOVED: _("En medlem togs bort ur gruppen."),
    GroupAct.RESTORED: _("En medlem kom tillbaka till gruppen."),
}
UNDOING = {
    GroupAct.INVITED: _("Inbjudan tas tillbaka. Den som redan har tackat ja tas bort ur gruppen."),
    GroupAct.JOINED: _("Medlemmen tas bort ur gruppen och får veta det."),
    GroupAct.REMOVED: _("Medlemmen kommer tillbaka till gruppen och får veta det."),
    GroupAct.RESTORED: _("Medlemmen tas bort ur gruppen och får veta det."),
}


@router.api_route("/prenumeration/inbjudan/{token}", methods=["GET", "HEAD"])
async def look(request: Request, token: str) -> Response:
    state = request.app.state
    try:
        async with state.database.reading() as session:
            found, group = await invitations.look(session, state.links.read_invitation(token), now(request))
    except (InvalidToken, UnknownInvitation):
        return _page(request, "invitation_ended.html", status=404)
    return _page(request, "invitation.html", group=group.name, step="ask" if found.subscriber_id is None else "joined")


@router.post("/prenumeration/inbjudan/{token}")
async def answer(request: Request, token: str) -> Response:
    refuse_cross_site(request)
    answered = text(await read_form(request), "answer")
    state, at = request.app.state, now(request)
    try:
        invitation_id = state.links.read_invitation(token)
        async with state.database.transaction() as session:
            _invitation, group = await invitations.look(session, invitation_id, at)
            if answered == "yes":
                await invitations.accept(session, state.links, invitation_id, at)
            elif answered == "no":
                await invitations.decline(session, state.links, invitation_id, at)
    except (InvalidToken, UnknownInvitation):
        return _page(request, "invitation_ended.html", status=404)
    step = {"yes": "joined", "no": "declined"}.get(answered, "ask")
    return _page(request, "invitation.html", status=200 if step != "ask" else 400, group=group.name, step=step)


@router.api_route("/prenumeration/grupp/angra/{token}", methods=["GET", "HEAD"])
async def ask_undo(request: Request, token: str) -> Response:
    try:
        async with request.app.state.database.reading() as session:
            held, change = await _undoable(request, session, token)
    except (InvalidToken, UnknownGroup):
        return dead_link(request)
    return _undo_page(request, held, change, is_undone=change.undone_at is not None)


@router.post("/prenumeration/grupp/angra/{token}")
async def undo(request: Request, token: str) -> Response:
    refuse_cross_site(request)
    written = text(await read_form(request), "ord")
    try:
        async with request.app.state.database.transaction() as session:
            held, change = await _undoable(request, session, token)
            if change.undone_at is None:
                await count_undoing(session, request, held.subscriber.id, written, now(request))
            await undoing.undo(session, request.app.state.links, held, change, now(request))
    except (InvalidToken, UnknownGroup):
        return dead_link(request)
    except TooOften as error:
        refused = [refusal_to_undo(error, language_of(request, held.subscriber), request.app.state.pages)]
        return pausing(request, error, _undo_page(request, held, change, is_undone=False, errors=refused, status=429))
    return _undo_page(request, held, change, is_undone=True)


@router.api_route("/prenumeration/grupp/kvar/{token}", methods=["GET", "HEAD"])
async def ask_return(request: Request, token: str) -> Response:
    return await _return(request, token, asks=False)


@router.post("/prenumeration/grupp/kvar/{token}")
async def want_back(request: Request, token: str) -> Response:
    refuse_cross_site(request)
    await read_form(request)
    return await _return(request, token, asks=True)


async def _return(request: Request, token: str, *, asks: bool) -> Response:
    state = request.app.state
    try:
        claim = state.links.read_group_return(token)
        async with state.database.transaction() if asks else state.database.reading() as session:
            change, group, subscriber = await undoing.removed(session, claim.subject, claim.generation)
            if asks:
                await undoing.ask_back(session, state.links, change, group, subscriber, now(request))
    except (InvalidToken, UnknownGroup):
        return dead_link(request)
    step = "back" if change.undone_at is not None else "asked" if asks else "ask"
    return _page(request, "group_return.html", language_of(request, subscriber), group=group.name, step=step)


async def _undoable(request: Request, session: AsyncSession, token: str) -> tuple[Held, GroupChange]:
    claim = request.app.state.links.read_group_undo(token)
    change = await members.change(session, claim.subject)
    return await members.held(session, change.group_id, claim.generation), change


def _undo_page(
    request: Request,
    held: Held,
    change: GroupChange,
    *,
    is_undone: bool,
    errors: Sequence[FormError] = (),
    status: int = 200,
) -> Response:
    language, state = language_of(request, held.subscriber), request.app.state
    standing = state.links.group(held.group.id, held.contact.generation)
    return _page(
        request,
        "group_undo.html",
        language,
        status=status,
        errors=errors,
        group=held.group.name,
        at=change.at,
        is_undone=is_undone,
        happened=state.pages.gettext(language.locale, HAPPENED[GroupAct(change.act)]),
        consequence=state.pages.gettext(language.locale, UNDOING[GroupAct(change.act)]),
        standing=standing.removeprefix(state.settings.public_url),
    )


def _page(
    request: Request, template: str, language: ReaderLanguage | None = None, *, status: int = 200, **names: Any
) -> Response:
    page: Response = request.app.state.pages.render(
        request, template, language, status=status, headers=PRIVATE, **names
    )
    return page
