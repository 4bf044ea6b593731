"""`/kansli/personer`: who is in the register. Found by words, place, audience, municipality and state;
GET changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from shared import paging
from shared.contracts.news import STRONGEST_FIRST, Audience, Locale
from shared.contracts.vocabulary import MUNICIPALITIES
from shared.http import Reading
from shared.routes import Router
from shared.web.dates import STOCKHOLM, day
from shared.web.pages import reader_language
from subscriptions import people
from subscriptions.consent import Ground, ground_of
from subscriptions.exporting import Held, held_about
from subscriptions.history import Source
from subscriptions.models import Group, Organisation, Subscriber, Suppression
from subscriptions.office import finding, places
from subscriptions.office.finding import Place, Wanted
from subscriptions.office.words import asked_for
from subscriptions.people import RoleRow
from subscriptions.states import SubscriberState, state_of
from subscriptions.suppressions import SuppressionReason
from subscriptions.web.fields import Choice
from subscriptions.web.office.door import HOME, SignedIn, now, page
from subscriptions.web.office.listing import asked as asked_by
from subscriptions.web.office.listing import kept, linked
from subscriptions.web.office.wording import (
    ACTS,
    AUDIENCES,
    BASES,
    SOURCES,
    STATES,
    STOPS,
    OfficeWording,
    in_a_row,
)
from subscriptions.wording import LANGUAGES

router = Router(include_in_schema=False)

PATH = f"{HOME}/personer"
SHOWN = 50
ASKED = ("sok", "malgrupp", "kommun", "lage", "organisation", "grupp")
CHANGES_SHOWN = 20


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


NOTHING = _("Får inga mejl")
NOT_YET = _("Får inga mejl än")


@dataclass(frozen=True, slots=True)
class Line:
    """One person of the list."""

    id: UUID
    name: str
    address: str
    roles: str
    state: str
    flows: bool


@dataclass(frozen=True, slots=True)
class NamedPlace:
    """An organisation or a group; `kind` is what a link's query calls it."""

    kind: str
    id: UUID
    name: str


@dataclass(frozen=True, slots=True)
class HeldRole:
    """Why somebody is in the register."""

    id: UUID
    words: str
    basis: str
    since: str
    text: str
    has_left: bool
    is_over: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """A suppression in words."""

    reason: str
    note: str
    since: datetime
    lifted_at: datetime | None


@dataclass(frozen=True, slots=True)
class Event:
    """A row of the history in words."""

    at: datetime
    act: str
    sentences: Sequence[str]


@router.api_route(PATH, methods=["GET", "HEAD"])
async def listing(request: Request, office: SignedIn, session: Reading) -> Response:
    asked = kept(request, *ASKED)
    wanted, wording, at = _wanted(asked), OfficeWording(reader_language(request).locale), now(request)
    found = await finding.find(session, wanted, _place(request), SHOWN, at)
    is_first = "efter" not in request.query_params
    return page(
        request,
        office,
        "people.html",
        people=await _lines(session, found.people, wording, at),
        is_filtered=any(asked.values()),
        typed=asked["sok"],
        within=await _within(session, wanted),
        places=await _places(session, asked["sok"]) if is_first else [],
        beginning="" if is_first else linked(request, PATH, asked),
        following=_following(request, asked, found.after),
        audiences=_choices(asked["malgrupp"], ((str(key), wording.gettext(AUDIENCES[key])) for key in STRONGEST_FIRST)),
        municipalities=_choices(asked["kommun"], sorted(MUNICIPALITIES.items(), key=lambda entry: entry[1])),
        states=_choices(asked["lage"], ((str(key), wording.gettext(word)) for key, word in STATES.items())),
    )


@router.api_route(PATH + "/{subscriber_id}", methods=["GET", "HEAD"])
async def show(request: Request, office: SignedIn, session: Reading, subscriber_id: UUID) -> Response:
    row = await people.subscriber(session, subscriber_id)
    if row is None:
        return gone(request, office)
    held = await held_about(session, subscriber_id)
    return page(
        request,
        office,
        "person.html",
        **_person(row, held, reader_language(request).locale, now(request), _id(asked_by(request, "fore"))),
    )


def gone(request: Request, office: SignedIn) -> Response:
    """There is nobody (any more) behind the id."""
    return page(request, office, "gone.html", status=404)


def _wanted(asked: dict[str, str]) -> Wanted:
    """What is asked for; a word that is none of ours asks for nothing."""
    audience, state = asked["malgrupp"], asked["lage"]
    return Wanted(
        words=asked_for(asked["sok"]),
        organisation_id=_id(asked["organisation"]),
        group_id=_id(asked["grupp"]),
        audience=Audience(audience) if audience in tuple(Audience) else None,
        municipality=asked["kommun"] if asked["kommun"] in MUNICIPALITIES else "",
        state=SubscriberState(state) if state in tuple(SubscriberState) else None,
    )


def _id(text: str) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


def _place(request: Request) -> Place | None:
    after = paging.decode(request.query_params.get("efter"))
    return Place(after, asked_by(request, "ord")) if after else None


def _following(request: Request, asked: dict[str, str], after: Place | None) -> str:
    return (
        linked(request, PATH, {**asked, "efter": paging.encode(after.subscriber_id), "ord": after.word})
        if after
        else ""
    )


async def _within(session: AsyncSession, wanted: Wanted) -> NamedPlace | None:
    """The place that the list is narrowed to."""
    if wanted.organisation_id is not None:
        organisation = await people.organisation(session, wanted.organisation_id)
        return named(organisation) if organisation else None
    group = await people.group(session, wanted.group_id) if wanted.group_id else None
    return named(group) if group else None


async def _places(session: AsyncSession, typed: str) -> list[NamedPlace]:
    return [named(place) for place in await places.named(session, typed)] if typed else []


def named(place: Organisation | Group) -> NamedPlace:
    kind = "organisation" if isinstance(place, Organisation) else "grupp"
    return NamedPlace(kind, place.id, place.name)


def _choices(chosen: str, entries: Any) -> list[Choice]:
    return [Choice(value, label, value == chosen) for value, label in entries]


async def _lines(session: AsyncSession, rows: Sequence[Subscriber], wording: OfficeWording, at: datetime) -> list[Line]:
    roles = await people.roles_of(session, [row.id for row in rows])
    return [_line(row, roles[row.id], wording, at) for row in rows]


def _line(row: Subscriber, roles: Sequence[RoleRow], wording: OfficeWording, at: datetime) -> Line:
    state = state_of(row, at)
    told = in_a_row(": ".join(part for part in (wording.audience(role.audience), role.name) if part) for role in roles)
    flows, today = state is SubscriberState.ACTIVE, at.astimezone(STOCKHOLM).date()
    if flows and roles and not people.in_force(roles, today):
        is_coming = any(role.mandate_from is not None and role.mandate_from > today for role in roles)
        word = wording.gettext(NOT_YET if is_coming else NOTHING)
        return Line(row.id, row.name, row.address, told, word, flows=False)
    return Line(row.id, row.name, row.address, told, wording.gettext(STATES[state]), flows)


def _person(row: Subscriber, held: Held, locale: Locale, at: datetime, before: UUID | None) -> dict[str, Any]:
    wording, state = OfficeWording(locale), state_of(row, at)
    changes = [change for change in held.changes if before is None or change.id < before]
    line = _line(row, held.roles, wording, at)
    if line.flows and {role.audience for role in held.roles} <= set(held.left):
        line = replace(line, state=wording.gettext(NOTHING), flows=False)
    return {
        "person": line,
        "state": state,
        "facts": _facts(row, held, wording, locale),
        "roles": [_role(row, role, held, wording, locale, at) for role in held.roles],
        "is_held_back": any(
            stop.lifted_at is None and stop.reason != SuppressionReason.COMPLAINT for stop in held.suppressions
        ),
        "stops": [_stop(stop, wording) for stop in held.suppressions],
        "events": [
            Event(
                change.at,
                f"{wording.gettext(ACTS[change.act])} {wording.gettext(SOURCES[change.source])}",
                wording.changed(change.after),
            )
            for change in changes[:CHANGES_SHOWN]
        ],
        "older": str(changes[CHANGES_SHOWN - 1].id) if len(changes) > CHANGES_SHOWN else "",
    }


def _facts(row: Subscriber, held: Held, wording: OfficeWording, locale: Locale) -> list[tuple[str, str]]:
    chosen = [
        (_("Adress"), row.address),
        (_("Namn"), row.name),
        (_("Språk"), LANGUAGES[Locale(row.locale)]),
        (_("Ämnen"), wording.topics(row.topics)),
        (_("Kommuner"), wording.municipalities(row.municipalities)),
        (_("Hur ofta"), wording.frequencies(held.frequencies)),
        (_("Pausat till"), day(locale, row.paused_until) if row.paused_until else ""),
        (_("Adressbyte på gång till"), held.moving.address if held.moving else ""),
        (_("I registret sedan"), day(locale, row.created_at)),
    ]
    return [(wording.gettext(label), value) for label, value in chosen if value]


def _role(row: Subscriber, role: RoleRow, held: Held, wording: OfficeWording, locale: Locale, at: datetime) -> HeldRole:
    ground = ground_of(role, held.changes)
    place = role.organisation_id or role.group_id
    return HeldRole(
        people.role_id(row.id, role.audience, place, role.mandate_from),
        wording.role(role),
        wording.gettext(BASES[ground.basis]),
        _since(ground, wording, locale),
        ground.text_shown,
        role.audience in held.left,
        role.mandate_until is not None and role.mandate_until < at.astimezone(STOCKHOLM).date(),
    )


def _since(ground: Ground, wording: OfficeWording, locale: Locale) -> str:
    if ground.since is None:
        return ""
    source = wording.gettext(SOURCES[Source(ground.source)]) if ground.source else ""
    return f"{day(locale, ground.since)} {source}".strip()


def _stop(row: Suppression, wording: OfficeWording) -> Stop:
    return Stop(wording.gettext(STOPS[SuppressionReason(row.reason)]), row.note, row.suppressed_at, row.lifted_at)
