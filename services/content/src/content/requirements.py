"""What an item needs before it is made public. Pure decisions: fields in, complaints out, each naming its field."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from content.fields import FROZEN, ItemFields
from content.rendering import MOST_LINKED, swells
from content.swedish_time import swedish_time
from shared.contracts.news import Kind
from shared.problems import FieldError

FOR_JOURNALISTS = (Kind.PRESS_RELEASE, Kind.NEWS_TIP)
AHEAD = timedelta(days=366)
"""How long before an item may be scheduled. Later than that, the year was mistyped."""


def missing_for_publication(fields: ItemFields) -> list[FieldError]:
    """Why `fields` cannot be made public; empty when they can."""
    return [*_audience(fields), *_contacts(fields), *_report(fields), *_swelling(fields)]


def unfit_time(publish_at: datetime, now: datetime) -> list[FieldError]:
    """Why nothing can be scheduled for `publish_at`; empty when it can."""
    if publish_at <= now:
        soon = swedish_time(now.replace(microsecond=0) + timedelta(hours=1))
        message = f"That time has passed. Write a later one, such as {soon}, or none to publish at once."
        message_sv = (
            f"Tiden har redan varit. Skriv en senare, till exempel {soon}, eller ingen för att publicera genast."
        )
        return [FieldError(pointer="/publish_at", code="time_has_passed", message=message, message_sv=message_sv)]
    if publish_at > now + AHEAD:
        last = swedish_time(now.replace(microsecond=0) + AHEAD)
        message, message_sv = f"Write a time within a year, until {last}.", f"Skriv en tid inom ett år, senast {last}."
        return [FieldError(pointer="/publish_at", code="time_too_far", message=message, message_sv=message_sv)]
    return []


def frozen_that_changed(before: ItemFields, after: ItemFields) -> list[FieldError]:
    """Fields of a published item that somebody tried to change."""
    return [
        FieldError(
            pointer=f"/{name}",
            code="frozen_field",
            message="It cannot change after publication; withdraw the item and publish a new one.",
            message_sv="Det går inte att ändra efter publicering. Dra tillbaka nyheten och publicera en ny.",
        )
        for name in FROZEN
        if getattr(before, name) != getattr(after, name)
    ]


def _audience(fields: ItemFields) -> Iterator[FieldError]:
    if not fields.audiences:
        yield _needed("/audiences", "Choose at least one audience.", "Välj minst en målgrupp.")


def _contacts(fields: ItemFields) -> Iterator[FieldError]:
    if fields.kind in FOR_JOURNALISTS and not fields.contacts:
        yield _needed(
            "/contacts",
            "Journalists need somebody to call: add a contact person.",
            "Journalister behöver någon att ringa: ange en kontaktperson.",
        )
    for number, contact in enumerate(fields.contacts):
        if not contact.phone and not contact.email:
            yield _needed(
                f"/contacts/{number}/phone",
                "Give a phone number or an e-mail address.",
                "Ange telefonnummer eller e-postadress.",
            )


def _report(fields: ItemFields) -> Iterator[FieldError]:
    if fields.kind is not Kind.REPORT:
        for name in ("popular_version", "original_url"):
            if getattr(fields, name):
                yield FieldError(
                    pointer=f"/{name}",
                    code="report_only",
                    message="Only a report has one.",
                    message_sv="Det här fältet är bara för rapporter.",
                )
        return
    if not fields.popular_version.strip():
        yield _needed(
            "/popular_version",
            "Write a short popular version.",
            "Skriv en kort populärversion av rapporten.",
        )
    if not fields.original_url:
        yield _needed("/original_url", "Link to the original report.", "Länka till den ursprungliga rapporten.")


def _needed(pointer: str, message: str, message_sv: str) -> FieldError:
    return FieldError(pointer=pointer, code="needed_to_publish", message=message, message_sv=message_sv)


def _swelling(fields: ItemFields) -> Iterator[FieldError]:
    for name in ("body", "popular_version"):
        if swells(getattr(fields, name)):
            yield FieldError(
                pointer=f"/{name}",
                code="links_too_long",
                message=f"Written out, its links have more than {MOST_LINKED:,} characters. Use fewer or shorter.",
                message_sv="Länkarna blir för långa när de skrivs ut. Använd färre eller kortare.",
            )
