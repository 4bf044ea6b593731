"""Why somebody gets a mail, in their language: one sentence that they recognise themselves in.

The sentences are few and repeat, so they are kept; a fan-out of 100,000 makes some hundreds of them.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from shared.contracts.news import Audience, Locale
from shared.contracts.vocabulary import MUNICIPALITIES
from shared.translations import translations
from subscriptions.frequencies import Frequency

CATALOGUES = Path(__file__).parent / "web" / "locale"
MOST_NAMED = 3

Gettext = Callable[[str], str]


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


SENTENCES = {
    Audience.NEWSROOM: _("Du får det här eftersom {whom} bevakar {area}."),
    Audience.POLITICIAN: _("Du får det här eftersom du är ledamot i {whom}."),
    Audience.COLLABORATION_GROUP: _("Du får det här eftersom du är med i {whom}."),
    Audience.AGENCY_OFFICIAL: _("Du får det här eftersom du arbetar på {whom}."),
    Audience.PUBLIC: _("Du får det här eftersom du prenumererar på våra nyheter."),
}


RHYTHMS = {
    Frequency.DAILY: _("Du har valt att få det samlat en gång om dagen."),
    Frequency.WEEKLY: _("Du har valt att få det samlat en gång i veckan."),
}
BROKE_THROUGH = _("Du har valt att få nyheter samlade, men den här är brådskande: {reason}")


@lru_cache(maxsize=10_000)
def reason(audience: Audience, locale: Locale, name: str, municipalities: frozenset[str]) -> str:
    """The sentence. `name` is the organisation's or the group's; `municipalities` are what a newsroom covers (none:
    the whole county) or where a politician sits.
    """
    gettext = translations(CATALOGUES, locale).gettext
    held = whom(audience, locale, name, municipalities)
    return gettext(SENTENCES[audience]).format(whom=held, area=area(municipalities, gettext))


def rhythm(frequencies: Iterable[Frequency], locale: Locale) -> str:
    """How often the reader has chosen to hear of what a digest carries."""
    chosen = set(frequencies) - {Frequency.IMMEDIATE}
    gettext = translations(CATALOGUES, locale).gettext
    return gettext(RHYTHMS[chosen.pop()]) if len(chosen) == 1 else ""


def broke_through(locale: Locale, urgent_reason: str) -> str:
    """Why somebody who has chosen digests gets an item at once."""
    return translations(CATALOGUES, locale).gettext(BROKE_THROUGH).format(reason=urgent_reason)


def whom(audience: Audience, locale: Locale, name: str, municipalities: frozenset[str]) -> str:
    """The newsroom, council, group or agency as it stands in a sentence."""
    if audience is Audience.NEWSROOM:
        return _newsroom(name, locale)
    if audience is Audience.POLITICIAN:
        return _council(name, municipalities, translations(CATALOGUES, locale).gettext)
    return name


def area(municipalities: frozenset[str], gettext: Gettext) -> str:
    """The municipalities by name, or the county where there are none or many."""
    names = sorted(MUNICIPALITIES.get(code, code) for code in municipalities)
    if not 0 < len(names) <= MOST_NAMED:
        return gettext(_("Kalmar län"))
    if len(names) == 1:
        return names[0]
    return gettext(_("{first} och {last}")).format(first=", ".join(names[:-1]), last=names[-1])


def _newsroom(name: str, locale: Locale) -> str:
    if locale is Locale.EN:
        return name
    if "redaktion" in name.lower():
        return name
    return f"{name}{'' if name[-1:].lower() in 'sxz' else 's'} redaktion"


def _council(name: str, municipalities: frozenset[str], gettext: Gettext) -> str:
    lowered = name if name[1:2].isupper() else name[:1].lower() + name[1:]
    where = area(municipalities, gettext)
    if not municipalities or where in name:
        return lowered
    return gettext(_("{council} i {place}")).format(council=lowered, place=where)
