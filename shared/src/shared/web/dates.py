"""Times as a reader sees them: in Europe/Stockholm, in the reader's language."""

from datetime import datetime
from zoneinfo import ZoneInfo

from babel.dates import format_date, format_datetime

from shared.contracts.news import Locale

STOCKHOLM = ZoneInfo("Europe/Stockholm")
BABEL_LOCALES = {Locale.SV: "sv_SE", Locale.EN: "en_GB"}


def day(locale: Locale, instant: datetime) -> str:
    """The day, for example `22 november 2026`."""
    return format_date(instant.astimezone(STOCKHOLM), "d MMMM y", locale=BABEL_LOCALES[locale])


def minute(locale: Locale, instant: datetime) -> str:
    """The day and the time of day, for example `22 november 2026 kl. 08.30`."""
    pattern = "d MMMM y 'kl.' HH.mm" if locale is Locale.SV else "d MMMM y 'at' HH:mm"
    return format_datetime(instant.astimezone(STOCKHOLM), pattern, tzinfo=STOCKHOLM, locale=BABEL_LOCALES[locale])
