"""What the use cases refuse, beside the fields of a form, in the reader's language."""

from collections.abc import Mapping

from fastapi import Request
from pydantic import ValidationError

from shared.contracts.news import Locale
from shared.problems import FieldError, Problem, field_error
from shared.web.pages import FormError, reader_language


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


CONFLICTS = {
    "subscriber_exists": _("Adressen finns redan i registret."),
    "organisation_exists": _("Det finns redan en organisation med det namnet."),
    "group_exists": _("Det finns redan en grupp med det namnet."),
    "precondition_failed": _(
        "Någon har ändrat uppgifterna sedan du öppnade sidan. Se efter vad som gäller nu i en annan flik. "
        "Sparar du igen gäller det som står här."
    ),
}


def fault(request: Request, field: str, text: str) -> FormError:
    """One of our own, translated."""
    return FormError(field, request.app.state.pages.gettext(reader_language(request).locale, text))


def faults_of(request: Request, refused: Problem | ValidationError, fields: Mapping[str, str]) -> list[FormError]:
    """`fields` gives the input's id by the beginning of the JSON pointer, and of a conflict's code. What belongs to no
    field of the form is not the form's fault, and is raised again.
    """
    if isinstance(refused, Problem) and refused.code in CONFLICTS:
        return [fault(request, fields[refused.code], CONFLICTS[refused.code])]
    swedish = reader_language(request).locale is Locale.SV
    told = [FormError(field, each.message_sv if swedish else each.message) for each, field in _placed(refused, fields)]
    if not told:
        raise refused
    return list({error.field: error for error in reversed(told)}.values())[::-1]


def _placed(refused: Problem | ValidationError, fields: Mapping[str, str]) -> list[tuple[FieldError, str]]:
    errors = refused.errors if isinstance(refused, Problem) else [_of(detail) for detail in refused.errors()]
    by_length = sorted(fields, key=len, reverse=True)
    found = [(each, next((key for key in by_length if each.pointer.startswith(key)), "")) for each in errors]
    return [(each, fields[key]) for each, key in found if key]


def _of(detail: object) -> FieldError:
    assert isinstance(detail, dict)
    return field_error({**detail, "loc": ("body", *detail["loc"])})
