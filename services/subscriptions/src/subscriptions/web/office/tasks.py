"""`/kansli/uppgifter`: what only a person can settle, what there is to do about it, and how it was settled."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from shared import paging
from shared.contracts.vocabulary import MUNICIPALITIES
from shared.http import Reading
from shared.routes import Router
from shared.web.pages import FormError, reader_language
from subscriptions import people
from subscriptions.tasks import tasks
from subscriptions.tasks.models import REASON_LENGTH, Task
from subscriptions.tasks.tasks import TaskClosed, TaskKind, TaskState
from subscriptions.web.fields import Choice
from subscriptions.web.office.door import HOME, Office, SignedIn, done, now, page
from subscriptions.web.office.faults import fault
from subscriptions.web.office.listing import kept, linked
from subscriptions.web.office.people import gone
from subscriptions.web.office.wording import TASKS, OfficeWording
from subscriptions.web.posting import read_form, text

router = Router(include_in_schema=False)

PATH = f"{HOME}/uppgifter"
SHOWN = 50


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


NO_REASON = _("Skriv hur uppgiften löstes.")
LONG_REASON = _("Skriv högst 500 tecken.")
CLOSED_BEFORE = _("Någon annan har stängt uppgiften.")
STATES = {TaskState.OPEN: _("Öppna"), TaskState.CLOSED: _("Stängda")}


@dataclass(frozen=True, slots=True)
class Line:
    """One task in a list."""

    path: str
    what: str
    about: str
    raised_at: datetime
    is_open: bool


@dataclass(frozen=True, slots=True)
class Link:
    path: str
    label: str


@dataclass(frozen=True, slots=True)
class Whole:
    """One task in full."""

    line: Line
    advice: str
    links: list[Link]
    facts: list[tuple[str, str]]
    closed_at: datetime | None
    reason: str


@router.api_route(PATH, methods=["GET", "HEAD"])
async def listing(request: Request, office: SignedIn, session: Reading) -> Response:
    asked = kept(request, "slag", "lage")
    wording, after = OfficeWording(reader_language(request).locale), paging.decode(request.query_params.get("efter"))
    state = TaskState(asked["lage"]) if asked["lage"] in tuple(TaskState) else TaskState.OPEN
    kind = TaskKind(asked["slag"]) if asked["slag"] in tuple(TaskKind) else None
    rows = await tasks.listing(session, after=after, limit=SHOWN + 1, state=state, kind=kind)
    following = linked(request, PATH, {**asked, "efter": paging.encode(rows[SHOWN - 1].id)}) if rows[SHOWN:] else ""
    return page(
        request,
        office,
        "tasks.html",
        tasks=[await line_of(session, row, wording) for row in rows[:SHOWN]],
        is_filtered=bool(asked["slag"]),
        is_open=state is TaskState.OPEN,
        kinds=[Choice(str(key), wording.gettext(what), key == kind) for key, (what, _advice) in TASKS.items()],
        states=[Choice(str(key), wording.gettext(label), key == state) for key, label in STATES.items()],
        beginning=linked(request, PATH, asked) if after else "",
        following=following,
    )


@router.api_route(PATH + "/{task_id}", methods=["GET", "HEAD"])
async def show(request: Request, office: SignedIn, session: Reading, task_id: UUID) -> Response:
    row = await tasks.task(session, task_id)
    return gone(request, office) if row is None else await _page(request, office, session, row)


@router.post(PATH + "/{task_id}/stang")
async def close(request: Request, office: SignedIn, task_id: UUID) -> Response:
    reason = " ".join(text(await read_form(request), "hur").split())
    fit = 0 < len(reason) <= REASON_LENGTH
    errors = [] if fit else [fault(request, "hur", LONG_REASON if reason else NO_REASON)]
    if fit:
        try:
            async with request.app.state.database.transaction() as session:
                if await tasks.close(session, task_id, reason, now(request)) is None:
                    return gone(request, office)
        except TaskClosed:
            errors = [fault(request, "innehall", CLOSED_BEFORE)]
        else:
            return done(request, PATH, "stangd")
    async with request.app.state.database.reading() as session:
        row = await tasks.task(session, task_id)
        if row is None:
            return gone(request, office)
        return await _page(request, office, session, row, reason, errors)


async def line_of(session: AsyncSession, row: Task, wording: OfficeWording) -> Line:
    """A task in a list."""
    what, _advice = TASKS[TaskKind(row.kind)]
    place = await _place(session, row)
    return Line(f"{PATH}/{row.id}", wording.gettext(what), place, row.raised_at, row.closed_at is None)


async def _place(session: AsyncSession, row: Task) -> str:
    if row.organisation_id is not None:
        organisation = await people.organisation(session, row.organisation_id)
        return organisation.name if organisation else ""
    group = await people.group(session, row.group_id) if row.group_id else None
    return group.name if group else ""


async def _page(
    request: Request,
    office: Office,
    session: AsyncSession,
    row: Task,
    typed: str = "",
    errors: list[FormError] | None = None,
) -> Response:
    wording = OfficeWording(reader_language(request).locale)
    line = await line_of(session, row, wording)
    whole = Whole(
        line=line,
        advice=wording.gettext(TASKS[TaskKind(row.kind)][1]),
        links=await _links(session, row, line.about),
        facts=[(wording.gettext(label), value) for label, value in _facts(row.details, wording) if value],
        closed_at=row.closed_at,
        reason=row.closed_because,
    )
    status = 422 if errors else 200
    return page(request, office, "task.html", status=status, task=whole, typed=typed, errors=errors or [])


async def _links(session: AsyncSession, row: Task, place: str) -> list[Link]:
    links = []
    if row.organisation_id is not None:
        links.append(Link(f"{HOME}/organisationer/{row.organisation_id}", place))
    if row.group_id is not None:
        links.append(Link(f"{HOME}/grupper/{row.group_id}", place))
    person = await people.subscriber(session, row.subscriber_id) if row.subscriber_id else None
    if person is not None:
        links.append(Link(f"{HOME}/personer/{person.id}", person.name or person.address))
    return links


def _facts(details: dict[str, Any], wording: OfficeWording) -> list[tuple[str, str]]:
    municipalities = [MUNICIPALITIES.get(code, code) for code in details.get("municipalities", ())]
    return [
        (_("Önskad adress"), details.get("address", "")),
        (_("Önskade kommuner"), ", ".join(sorted(municipalities))),
        (_("Önskade ämnen"), ", ".join(wording.topic(topic) for topic in details.get("topics", ()))),
        (_("Meddelande"), details.get("message", "")),
        (_("Serverns felkod"), details.get("status", "")),
    ]
