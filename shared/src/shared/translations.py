"""
Swedish first, English second: the text in the code is Swedish, a gettext catalogue gives the English.

Catalogues are `locale/en.po` files beside the templates that use them; they are compiled in memory at start, so that
no binary file lies in the repository.
"""

from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import NullTranslations, Translations

from shared.contracts.news import Locale


@lru_cache
def translations(folder: Path, locale: Locale) -> NullTranslations:
    """The catalogue in `folder` for `locale`; Swedish is the source and needs none."""
    if locale is Locale.SV:
        return NullTranslations()
    with (folder / f"{locale}.po").open("rb") as source:
        catalogue = read_po(source, locale=str(locale))
    compiled = BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return Translations(compiled)


def combined(folders: Sequence[Path], locale: Locale) -> Translations:
    """Several catalogues as one; where two know a text, the later folder's word stands."""
    merged = Translations()
    for folder in folders:
        catalogue = translations(folder, locale)
        if isinstance(catalogue, Translations):
            merged.merge(catalogue)
    return merged


def preferred(accept_language: str | None) -> Locale:
    """The reader's language, from an `Accept-Language` header (RFC 9110, section 12.5.4)."""
    ranked = sorted((_weighted(part) for part in (accept_language or "").split(",")), reverse=True)
    for weight, tag in ranked:
        if weight > 0 and tag[:2] in tuple(Locale):
            return Locale(tag[:2])
    return Locale.SV


def _weighted(part: str) -> tuple[float, str]:
    tag, _, quality = part.strip().lower().partition(";q=")
    try:
        return (float(quality) if quality else 1.0), tag
    except ValueError:
        return 0.0, tag
