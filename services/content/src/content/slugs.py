"""An item's address on the site: made from its title when it is published, the same ever after."""

import re
import unicodedata
from collections.abc import Iterator
from datetime import date
from uuid import UUID

MAX_LENGTH = 80
LETTERS = str.maketrans({"å": "a", "ä": "a", "ö": "o", "æ": "ae", "ø": "o", "ß": "ss", "é": "e", "ü": "u", "&": " "})


def slug_of(title: str) -> str:
    """Lower-case a-z, digits and hyphens; cut at a word. A title without any of them gives an empty string."""
    plain = unicodedata.normalize("NFKD", title.lower().translate(LETTERS)).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if len(words) <= MAX_LENGTH:
        return words
    return words[: MAX_LENGTH + 1].rpartition("-")[0] or words[:MAX_LENGTH]


def candidates(title: str, on: date, item_id: UUID) -> Iterator[str]:
    """Slugs to try in turn; the last holds the random part of the item's id and is nobody else's."""
    slug = slug_of(title) or "nyhet"
    yield slug
    yield f"{slug}-{on.isoformat()}"
    yield f"{slug}-{on.isoformat()}-{item_id.hex[-12:]}"
