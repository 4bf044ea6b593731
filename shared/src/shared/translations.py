"""Swedish first, English second: the text in the code is Swedish, a gettext catalogue gives the English.

Catalogues are `locale/en.po` files beside the templates that use them; they are compiled in memory at start, so that
no binary file lies in the repository.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import NullTranslations, Translations

from shared.contracts.news import Locale

QUALITY = re.compile(r"q\s*=\s*([01](?:\.[0-9]{0,3})?)")


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
    """The reader's language, from an `Accept-Language` header (RFC 9110, section 12.5.4); of equals the first."""
    weighted = [_weighted(part) for part in (accept_language or "").split(",")]
    for weight, language in sorted(weighted, key=lambda one: -one[0]):
        if weight > 0 and language in tuple(Locale):
            return Locale(language)
    return Locale.SV


def _weighted(part: str) -> tuple[float, str]:
    tag, _, parameter = part.lower().partition(";")
    language = tag.strip().partition("-")[0]
    found = QUALITY.fullmatch(parameter.strip())
    return (float(found[1]) if found else 0.0 if parameter else 1.0), language
