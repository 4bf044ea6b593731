"""`/kansli/importer`: a list is sent in, its faults or what it would do are shown, and it is taken in at a yes.

The page of an import under way asks for itself anew every few seconds, without a script; a link makes it keep still.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from starlette.datastructures import FormData, UploadFile

from shared import paging
from shared.contracts.news import STRONGEST_FIRST, Audience
from shared.contracts.vocabulary import MUNICIPALITIES
from shared.http import Reading
from shared.routes import Router
from shared.web.pages import FormError, href, reader_language
from subscriptions.csv_text import MAX_BYTES, Unreadable
from subscriptions.imports import imports
from subscriptions.imports.models import Import, ImportState
from subscriptions.web.fields import Choice
from subscriptions.web.office.door import HOME, PRIVATE, Office, SignedIn, done, now, page
from subscriptions.web.office.faults import fault
from subscriptions.web.office.people import gone
from subscriptions.web.office.wording import AUDIENCES, OfficeWording
from subscriptions.web.posting import TooLarge, read_form, text, uploaded
from subscriptions.wording import Wording

router = Router(include_in_schema=False)

PATH = f"{HOME}/importer"
SHOWN = 20
ROLL = "roll"
REFRESH_S = 3
FRAME_BYTES = 100_000
"""What a form has beside its file."""


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


ROLL_LABEL = _("Förtroendevalda, hela listan: den som inte står i den lämnar")
MORE_LABEL = _("Förtroendevalda, några till: ingen lämnar")
STATES = {
    ImportState.STORED: _("Kontrolleras"),
    ImportState.CHECKED: _("Väntar på att du säger ja"),
    ImportState.WRITING: _("Läses in"),
    ImportState.DONE: _("Inläst"),
    ImportState.REFUSED: _("Har fel"),
    ImportState.CANCELLED: _("Avbruten"),
    ImportState.FAILED: _("Misslyckades"),
}
COLUMNS = {
    "email": _("e-post"),
    "name": _("namn"),
    "locale": _("språk"),
    "organisation": _("organisation"),
    "group": _("grupp"),
    "municipality": _("kommun"),
    "mandate_from": _("mandat från"),
    "mandate_until": _("mandat till"),
    "municipalities": _("kommun"),
}
NO_FILE = _("Välj en fil.")
NO_KIND = _("Välj vilka listan gäller.")
TOO_LARGE = _("Filen är större än 20 MB. Dela upp den i flera.")


@dataclass(frozen=True, slots=True)
class Line:
    """One import of the list."""

    id: UUID
    name: str
    what: str
    state: str
    needs: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class Fault:
    line: int
    column: str
    message: str


@dataclass(frozen=True, slots=True)
class RollLine:
    """Somebody on a roll, and what changes about them."""

    name: str
    address: str
    changes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Council:
    """What a roll does to one council; afterwards only how many it did it to."""

    name: str
    term: str
    joining: Sequence[RollLine]
    leaving: Sequence[RollLine]
    changing: Sequence[RollLine]
    counts: tuple[int, int, int, int]


@router.api_route(PATH, methods=["GET", "HEAD"])
async def listing(request: Request, office: SignedIn, session: Reading) -> Response:
    after = paging.decode(request.query_params.get("efter"))
    rows = await imports.listing(session, after=after, limit=SHOWN + 1)
    language, more = reader_language(request), len(rows) > SHOWN
    return page(
        request,
        office,
        "imports.html",
        imports=[line_of(row, OfficeWording(language.locale)) for row in rows[:SHOWN]],
        beginning=href(language, PATH) if after else "",
        following=href(language, PATH, efter=paging.encode(rows[SHOWN - 1].id)) if more else "",
    )


@router.api_route(f"{PATH}/ny", methods=["GET", "HEAD"])
async def ask(request: Request, office: SignedIn) -> Response:
    return _form(request, office, request.query_params.get("lista", ""))


@router.post(f"{PATH}/ny")
async def send(request: Request, office: SignedIn) -> Response:
    try:
        async with uploaded(request, MAX_BYTES + FRAME_BYTES) as form:
            return await _take(request, office, form)
    except (TooLarge, Unreadable):
        return _form(request, office, "", [fault(request, "fil", TOO_LARGE)])


async def _take(request: Request, office: Office, form: FormData) -> Response:
    kind, file = text(form, "lista"), _file(form)
    errors = [fault(request, "lista", NO_KIND)] if kind not in (ROLL, *Audience) else []
    errors += [fault(request, "fil", NO_FILE)] if file is None else []
    if errors or file is None:
        return _form(request, office, kind, errors)
    import_id = await _store(request, file, kind)
    return RedirectResponse(href(reader_language(request), f"{PATH}/{import_id}"), 303, headers=PRIVATE)


@router.api_route(PATH + "/{import_id}", methods=["GET", "HEAD"])
async def show(request: Request, office: SignedIn, session: Reading, import_id: UUID) -> Response:
    row = await imports.look(session, import_id)
    if row is None:
        return gone(request, office)
    language = reader_language(request)
    is_at_work, is_still = row.state in imports.AT_WORK, bool(request.query_params.get("stilla"))
    answer = page(
        request,
        office,
        "import.html",
        line=line_of(row, OfficeWording(language.locale)),
        row=_told(row),
        faults=_faults(row, OfficeWording(language.locale)),
        councils=[_council(roll, OfficeWording(language.locale)) for roll in row.report.get("rolls", [])],
        is_at_work=is_at_work,
        is_still=is_still,
    )
    if is_at_work and not is_still:
        answer.headers["Refresh"] = str(REFRESH_S)
    return answer


@router.post(PATH + "/{import_id}/las-in")
async def agree(request: Request, office: SignedIn, import_id: UUID) -> Response:
    version = text(await read_form(request), "version")
    async with request.app.state.database.transaction() as session:
        await imports.agree(session, import_id, version)
    return RedirectResponse(href(reader_language(request), f"{PATH}/{import_id}"), 303, headers=PRIVATE)


@router.post(PATH + "/{import_id}/avbryt")
async def cancel(request: Request, office: SignedIn, import_id: UUID) -> Response:
    async with request.app.state.database.transaction() as session:
        is_ended = await imports.cancel(session, import_id, now(request))
    if is_ended:
        return done(request, f"{PATH}/{import_id}", "avbruten")
    return RedirectResponse(href(reader_language(request), f"{PATH}/{import_id}"), 303, headers=PRIVATE)


def line_of(row: Import, wording: OfficeWording) -> Line:
    """An import in a list."""
    what = wording.gettext(ROLL_LABEL) if row.is_roll else wording.audience(Audience(row.audience))
    state = ImportState(row.state)
    needs = state in (ImportState.CHECKED, ImportState.REFUSED, ImportState.FAILED)
    return Line(row.id, row.file_name or str(row.id), what, wording.gettext(STATES[state]), needs, row.created_at)


def _file(form: FormData) -> UploadFile | None:
    found = form.get("fil")
    return found if isinstance(found, UploadFile) and found.filename else None


async def _store(request: Request, file: UploadFile, kind: str) -> UUID:
    content = await asyncio.to_thread(imports.compressed, file.file)
    audience, name = Audience.POLITICIAN if kind == ROLL else Audience(kind), file.filename or ""
    async with request.app.state.database.transaction() as session:
        return await imports.store(session, content, audience, now(request), file_name=name, is_roll=kind == ROLL)


def _form(request: Request, office: Office, kind: str, errors: Sequence[FormError] = ()) -> Response:
    wording = Wording(reader_language(request).locale)
    labels = [(str(audience), AUDIENCES[audience]) for audience in STRONGEST_FIRST]
    labels[1:2] = [(str(Audience.POLITICIAN), MORE_LABEL), (ROLL, ROLL_LABEL)]
    return page(
        request,
        office,
        "import_form.html",
        status=422 if errors else 200,
        errors=list(errors),
        kinds=[Choice(value, wording.gettext(label), value == kind) for value, label in labels],
    )


@dataclass(frozen=True, slots=True)
class Told:
    """How far an import is, in numbers."""

    path: str
    state: ImportState
    is_roll: bool
    is_compared_again: bool
    version: str
    rows: int
    rows_done: int
    created: int
    updated: int
    unchanged: int
    faults_left_out: int
    ended_at: datetime | None


def _told(row: Import) -> Told:
    return Told(
        path=f"{PATH}/{row.id}",
        state=ImportState(row.state),
        is_roll=row.is_roll,
        is_compared_again=row.is_compared_again,
        version=row.version,
        rows=row.rows,
        rows_done=row.rows_done,
        created=row.report.get("created", 0),
        updated=row.report.get("updated", 0),
        unchanged=row.report.get("unchanged", 0),
        faults_left_out=row.report.get("errors_left_out", 0),
        ended_at=row.ended_at,
    )


def _faults(row: Import, wording: OfficeWording) -> list[Fault]:
    message = "message_sv" if wording.is_swedish else "message"
    return [
        Fault(error["line"], _column(error["column"], wording), error[message])
        for error in row.report.get("errors", [])
    ]


def _column(name: str, wording: OfficeWording) -> str:
    """One of ours in the reader's words; a heading that is none of ours as it stands in the file."""
    return wording.gettext(COLUMNS[name]) if name in COLUMNS else name


def _council(roll: dict[str, Any], wording: OfficeWording) -> Council:
    area = ", ".join(MUNICIPALITIES.get(code, code) for code in roll["municipalities"])
    groups = [roll[name] for name in ("joining", "leaving", "changing")]
    counts = [group if isinstance(group, int) else len(group) for group in groups]
    joining, leaving, changing = (
        [] if isinstance(group, int) else [_person(person, wording) for person in group] for group in groups
    )
    return Council(
        name=", ".join(part for part in (roll["organisation"], area) if part),
        term=f"{roll['mandate_from']}–{roll['mandate_until']}",
        joining=joining,
        leaving=leaving,
        changing=changing,
        counts=(counts[0], counts[1], counts[2], roll["staying"]),
    )


def _person(person: dict[str, Any], wording: OfficeWording) -> RollLine:
    changes = [
        f"{wording.gettext(COLUMNS[field['field']])}: {field['before'] or '–'} → {field['after'] or '–'}"
        for field in person.get("fields", ())
    ]
    return RollLine(person["name"] or person["address"], person["address"], changes)
