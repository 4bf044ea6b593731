"""The words that people are found by: those of the name, and of the address before and after the @.

What is kept and what is typed are cut alike, so that a whole address that is pasted finds its person. Case does not
count, accents do. A domain is known as it is written to and as it is read (`xn--…` and `blåbär`).
"""

import re
from unicodedata import normalize

from subscriptions.office.models import WORD_LENGTH

BETWEEN = re.compile(r"[\W_]+")
MOST_ASKED = 6
"""Words of one search that are looked at: a name and an address."""


def words_of(name: str, address: str) -> set[str]:
    """The words of one person."""
    return set(_cut(f"{name} {address} {_readable(address)}"))


def asked_for(typed: str) -> tuple[str, ...]:
    """The beginnings of words that a search asks for, each once."""
    return tuple(dict.fromkeys(_cut(typed)))[:MOST_ASKED]


def _cut(text: str) -> list[str]:
    return [word[:WORD_LENGTH] for word in BETWEEN.split(normalize("NFKC", text).casefold()) if word]


def _readable(address: str) -> str:
    """The domain as a reader knows it; nothing where it is the same or cannot be read."""
    domain = address.rpartition("@")[2]
    if "xn--" not in domain:
        return ""
    try:
        return domain.encode("ascii").decode("idna")
    except UnicodeError:
        return ""
