"""On what legal basis each subscription rests, and the texts that people consent to.

Officials, elected representatives and members of collaboration groups get what a public task asks for, newsrooms what
the press register is for (both: public interest, GDPR article 6.1 e); the public gets what it has consented to (6.1 a).
The history keeps when, by whose hand and under which text; a text is never altered, a new one gets a new version.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from shared.contracts.news import Audience, Locale
from subscriptions.history import AUDIENCE, GETS, LEFT, Change
from subscriptions.people import RoleRow


class Basis(StrEnum):
    """The legal basis of a subscription."""

    PUBLIC_TASK = "public_task"
    PRESS_REGISTER = "press_register"
    CONSENT = "consent"


BASIS_OF: Final[Mapping[Audience, Basis]] = {
    Audience.NEWSROOM: Basis.PRESS_REGISTER,
    Audience.POLITICIAN: Basis.PUBLIC_TASK,
    Audience.COLLABORATION_GROUP: Basis.PUBLIC_TASK,
    Audience.AGENCY_OFFICIAL: Basis.PUBLIC_TASK,
    Audience.PUBLIC: Basis.CONSENT,
}

TEXTS: Final[Mapping[str, Mapping[Locale, str]]] = {
    "2026-11": {
        Locale.SV: (
            "Jag vill få nyheter med mejl. Min adress och mina val sparas för det, och används inte till något annat. "
            "Jag kan sluta när jag vill, från varje mejl. Därefter tas uppgifterna bort."
        ),
        Locale.EN: (
            "I want news by e-mail. My address and my choices are kept for that, and are used for nothing else. "
            "I can stop whenever I like, from every mail. After that the data are removed."
        ),
    },
    "2026-11-29": {
        Locale.SV: (
            "Jag vill få nyheter med mejl. Min adress och mina val sparas för det, och används inte till något annat. "
            "Jag kan sluta när jag vill, från varje mejl. Uppgifterna tas bort senast ett år därefter, och direkt om "
            "jag ber om det."
        ),
        Locale.EN: (
            "I want news by e-mail. My address and my choices are kept for that, and are used for nothing else. "
            "I can stop whenever I like, from every mail. The data are removed within a year after that, and at once "
            "if I ask for it."
        ),
    },
}
"""The texts by version. A published one must not be altered: its words are what somebody consented to."""

NEWEST: Final = "2026-11-29"
PROMISED: Final = timedelta(days=365)
"""How long the newest text says that data are kept at most, after somebody has stopped."""


@dataclass(frozen=True, slots=True)
class Ground:
    """On what a subscription rests: since when, by whose hand, and which text was shown (empty: none)."""

    basis: Basis
    since: datetime | None
    source: str
    text_shown: str

    @property
    def text(self) -> str:
        """The words of the text that was shown."""
        version, _, locale = self.text_shown.partition("/")
        return TEXTS[version][Locale(locale)] if version in TEXTS else ""


def newest_text(locale: Locale) -> str:
    """What is shown today."""
    return TEXTS[NEWEST][locale]


def shown(locale: Locale) -> str:
    """How the history names the text that is shown today."""
    return f"{NEWEST}/{locale}"


def ground_of(role: RoleRow, changes: Iterable[Change]) -> Ground:
    """On what one subscription rests: as it began, or as the history (in any order) says that it was taken up again.

    Whoever takes a departure back, by an undo link say, consents to what they were shown before they left.
    """
    basis, field = BASIS_OF[role.audience], f"{AUDIENCE}{role.audience}"
    began = sorted((change for change in changes if change.after.get(field) == GETS), key=lambda change: change.id)
    texts = [change.text_shown for change in began if change.text_shown] if basis is Basis.CONSENT else []
    text = texts[-1] if texts else ""
    since = began if role.began_at is None else [change for change in began if _again(change, field, role.began_at)]
    if since:
        return Ground(basis, since[-1].at, str(since[-1].source), text)
    return Ground(basis, role.began_at, role.source, text)


def _again(change: Change, field: str, began_at: datetime) -> bool:
    return change.at > began_at and change.before.get(field) == LEFT
