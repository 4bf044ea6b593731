"""The form of an organisation or a group: its name and its municipalities."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from starlette.datastructures import FormData

from shared.web.pages import FormError
from subscriptions.web.fields import Choice, municipality_choices
from subscriptions.web.office.door import Office, page
from subscriptions.web.posting import text, texts

FIELDS = {
    "/kind": "slag",
    "/name": "name",
    "/municipalities": "municipalities",
    "organisation_exists": "name",
    "group_exists": "name",
}


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


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


def typed_place(form: FormData) -> TypedPlace:
    return TypedPlace(text(form, "name")[:400], frozenset(texts(form, "municipalities")), text(form, "slag"))


def place_fields(typed: TypedPlace) -> dict[str, Any]:
    """As the API takes them."""
    return {"name": typed.name, "municipalities": sorted(typed.municipalities)}


def place_form(
    request: Request,
    office: Office,
    typed: TypedPlace,
    heading: str,
    back: str,
    *,
    kinds: Sequence[Choice] = (),
    has_area: bool = True,
    errors: Sequence[FormError] = (),
) -> Response:
    return page(
        request,
        office,
        "place_form.html",
        status=422 if errors else 200,
        errors=list(errors),
        heading=heading,
        back=back,
        typed=typed,
        kinds=kinds,
        municipalities=municipality_choices(typed.municipalities) if has_area else [],
    )
