"""The fields that the sign-up and the preference page share: what can be chosen, in the reader's words."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from shared.contracts.vocabulary import MUNICIPALITIES, TOPICS
from shared.web.pages import FormError
from subscriptions.frequencies import Frequency
from subscriptions.wording import LANGUAGES, Wording


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


UNKNOWN_CHOICE = _("Ett av valen finns inte längre. Välj bland dem som visas.")


@dataclass(frozen=True, slots=True)
class Choice:
    """One box to tick, or one of several to choose between."""

    value: str
    label: str
    is_chosen: bool
    language: str = ""


def topic_choices(chosen: Collection[str], wording: Wording) -> Sequence[Choice]:
    """All topics."""
    return [Choice(key, wording.topic(key), key in chosen) for key in TOPICS]


def municipality_choices(chosen: Collection[str]) -> Sequence[Choice]:
    """The county's municipalities, in alphabetical order."""
    by_name = sorted(MUNICIPALITIES.items(), key=lambda entry: entry[1])
    return [Choice(code, name, code in chosen) for code, name in by_name]


def frequency_choices(chosen: str, wording: Wording) -> Sequence[Choice]:
    """At once, daily, weekly."""
    return [Choice(key, wording.frequency(key), key == chosen) for key in Frequency]


def language_choices(chosen: str) -> Sequence[Choice]:
    """The languages, each in itself."""
    return [Choice(key, name, key == chosen, language=key) for key, name in LANGUAGES.items()]


def unknown(chosen: Iterable[tuple[str, Collection[str], Collection[str]]]) -> list[FormError]:
    """A fault for each (field, chosen, offered) that holds what is not offered; untranslated."""
    return [FormError(field, UNKNOWN_CHOICE) for field, values, offered in chosen if not set(values) <= set(offered)]
