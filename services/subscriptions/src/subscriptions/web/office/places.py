"""What the office does alike with organisations and groups: lists who belongs to them, adds and changes them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from fastapi import Request, Response
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import FormData

from shared.problems import Problem
from shared.web.pages import FormError, reader_language
from subscriptions.models import Subscriber
from subscriptions.office.places import NameTaken
from subscriptions.states import SubscriberState, state_of
from subscriptions.web.fields import Choice, municipality_choices
from subscriptions.web.office.door import HOME, Office, page
from subscriptions.web.office.faults import faults_of
from subscriptions.web.office.wording import STATES, OfficeWording
from subscriptions.web.posting import text, texts

T = TypeVar("T")

FIELDS = {
    "/kind": "slag",
    "/name": "name",
    "/municipalities": "municipalities",
    "organisation_exists": "name",
    "group_exists": "name",
}


@dataclass(frozen=True, slots=True)
class Room:
    """The pages of the one or the other: where they are, what their form is headed, and a name that is taken."""

    path: str
    add: str
    change: str
    taken: Problem


@dataclass(frozen=True, slots=True)
class TypedPlace:
    """The form as it was sent, or as the database has it."""

    name: str = ""
    municipalities: frozenset[str] = frozenset()
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One organisation or group in a list."""

    path: str
    name: str
    words: str
    members: int


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who belongs to it. `is_chosen`: the desk, or the contact person."""

    id: str
    path: str
    name: str
    address: str
    state: str
    flows: bool
    is_chosen: bool


def member(person: Subscriber, chosen: UUID | None, wording: OfficeWording, at: datetime) -> Member:
    state = state_of(person, at)
    return Member(
        id=str(person.id),
        path=f"{HOME}/personer/{person.id}",
        name=person.name or person.address,
        address=person.address if person.name else "",
        state=wording.gettext(STATES[state]),
        flows=state is SubscriberState.ACTIVE,
        is_chosen=person.id == chosen,
    )


def typed_place(form: FormData) -> TypedPlace:
    return TypedPlace(text(form, "name")[:400], frozenset(texts(form, "municipalities")), text(form, "slag"))


def place_fields(typed: TypedPlace) -> dict[str, Any]:
    """As the API takes them."""
    return {"name": typed.name, "municipalities": sorted(typed.municipalities)}


async def saved(
    request: Request, room: Room, work: Callable[[AsyncSession], Awaitable[T]]
) -> tuple[T | None, list[FormError]]:
    """What came of the work, in one transaction; or the faults, beside the fields of the form."""
    try:
        async with request.app.state.database.transaction() as session:
            return await work(session), []
    except NameTaken:
        return None, faults_of(request, room.taken, FIELDS)
    except ValidationError as error:
        return None, faults_of(request, error, FIELDS)


def place_form(
    request: Request,
    office: Office,
    room: Room,
    typed: TypedPlace,
    errors: Sequence[FormError] = (),
    *,
    whom: UUID | None = None,
    kinds: Sequence[Choice] = (),
    has_area: bool = True,
) -> Response:
    """To add one, or to change the one that is named."""
    gettext = OfficeWording(reader_language(request).locale).gettext
    return page(
        request,
        office,
        "place_form.html",
        status=422 if errors else 200,
        errors=list(errors),
        heading=gettext(room.change if whom else room.add),
        back=f"{room.path}/{whom}" if whom else room.path,
        typed=typed,
        kinds=kinds,
        municipalities=municipality_choices(typed.municipalities) if has_area else [],
    )
