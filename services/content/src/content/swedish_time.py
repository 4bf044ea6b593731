"""Times as an editor writes them: RFC 3339 with an offset, held against the clocks on the walls here.

With an offset a time is one instant, from whatever zone it is written. Without one it is refused, and the mend names
the instants that it may mean: two in the autumn hour that comes twice. In the spring hour that is left out no clock
here shows the time, so that whoever writes it means another; it is refused with our own offsets too.
"""

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from shared.complaints import refusal
from shared.web.dates import STOCKHOLM

FORM = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?", re.ASCII)
OFFSETS = (timedelta(hours=1), timedelta(hours=2))
EXAMPLE = "2026-12-01T08:30:00+01:00"


def instant_written(written: object) -> datetime:
    """The instant that was written; raises pydantic's error, with the mend, where it is none."""
    told = _parsed(written)
    wall = told.replace(tzinfo=None)
    english, swedish = (word.join(map(swedish_time, instants(wall))) or EXAMPLE for word in (" or ", " eller "))
    if told.utcoffset() in (None, *OFFSETS) and not _is_shown(wall):
        raise refusal(
            "no_such_time",
            f"The clocks in Sweden are put forward past that time: write {english}.",
            f"Den tiden finns inte, för klockan ställs fram. Skriv {swedish}.",
        )
    if told.tzinfo is None:
        raise refusal(
            "timezone_aware",
            f"The time needs its offset: write {english}.",
            f"Tiden behöver en tidszon. Skriv {swedish}.",
        )
    return told


def instants(wall: datetime) -> list[datetime]:
    """What `wall`, a time without a zone, may mean in Sweden, as instants in UTC: one; two in the hour that comes
    twice; and for the hour that is left out the two beside it, by the offset of before and of after.
    """
    try:
        return sorted({wall.replace(tzinfo=STOCKHOLM, fold=fold).astimezone(UTC) for fold in (0, 1)})
    except OverflowError:  # the calendar's first day
        return []


def swedish_time(instant: datetime) -> str:
    """The instant as RFC 3339 has it, by the clock in Sweden."""
    return instant.astimezone(STOCKHOLM).isoformat()


def _is_shown(wall: datetime) -> bool:
    meant = instants(wall)
    return not meant or wall in [instant.astimezone(STOCKHOLM).replace(tzinfo=None) for instant in meant]


def _parsed(written: object) -> datetime:
    if isinstance(written, str) and FORM.fullmatch(written.upper()):
        with suppress(ValueError):  # the 30th of February
            return datetime.fromisoformat(written.upper())
    raise refusal("datetime_parsing", f"Write the time as {EXAMPLE}.", f"Skriv tiden så här: {EXAMPLE}.")


InstantWritten = Annotated[
    datetime | None,
    BeforeValidator(instant_written),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": [EXAMPLE]}),
]
"""A field that may be left out and is never null: whoever sends null has no time, and may not have meant "at once"."""
