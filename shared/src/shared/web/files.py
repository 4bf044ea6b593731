"""Files as a reader is told of them: what kind, and how large."""

from babel.numbers import format_decimal

from shared.contracts.news import Locale
from shared.web.dates import BABEL_LOCALES

TYPE_LABELS = {"application/pdf": "PDF", "image/jpeg": "JPEG", "image/png": "PNG"}


def file_type(media_type: str) -> str:
    """A word for the type; of one that is not known here, the last part of its name."""
    return TYPE_LABELS.get(media_type, media_type.rpartition("/")[2].upper())


def file_size(locale: Locale, octets: int) -> str:
    """`840 kB`, `2,3 MB`: in thousands, with a space that no line breaks at."""
    if octets < 1_000_000:
        return f"{max(1, octets // 1_000)}\N{NO-BREAK SPACE}kB"
    return f"{format_decimal(octets / 1_000_000, '0.0', locale=BABEL_LOCALES[locale])}\N{NO-BREAK SPACE}MB"
