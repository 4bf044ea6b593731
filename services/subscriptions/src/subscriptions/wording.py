"""A subscription in words: its mails, how often they come, and what a change changed. For pages and mails alike."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from shared.contracts.news import Audience, Locale
from shared.contracts.vocabulary import MUNICIPALITIES, TOPICS
from shared.translations import translations
from shared.web.dates import day
from subscriptions.frequencies import EVERYTHING, Frequency
from subscriptions.history import AUDIENCE, GETS, Standing
from subscriptions.people import RoleRow
from subscriptions.reasons import whom

CATALOGUES = Path(__file__).parent / "web" / "locale"


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


MAILS = {
    Audience.NEWSROOM: _("Pressmeddelanden och nyhetstips till {whom}"),
    Audience.POLITICIAN: _("Nyheter till dig som är ledamot i {whom}"),
    Audience.COLLABORATION_GROUP: _("Nyheter till dig som är med i {whom}"),
    Audience.AGENCY_OFFICIAL: _("Nyheter till dig som arbetar på {whom}"),
    Audience.PUBLIC: _("Nyheter till allmänheten"),
}
FREQUENCIES = {
    Frequency.IMMEDIATE: _("Direkt, när det händer"),
    Frequency.DAILY: _("En gång om dagen, samlat i ett mejl"),
    Frequency.WEEKLY: _("En gång i veckan, samlat i ett mejl"),
}
LANGUAGES = {Locale.SV: "Svenska", Locale.EN: "English"}


class Wording:
    """Words in one language."""

    def __init__(self, locale: Locale) -> None:
        self._locale = locale
        self.gettext = translations(CATALOGUES, locale).gettext

    def topic(self, key: str) -> str:
        if key not in TOPICS:
            return key
        return TOPICS[key].en if self._locale is Locale.EN else TOPICS[key].sv

    def topics(self, chosen: Collection[str]) -> str:
        """The topics in a row; none chosen is all."""
        return ", ".join(self.topic(key) for key in TOPICS if key in chosen) or self.gettext(_("Alla ämnen"))

    def municipalities(self, chosen: Collection[str]) -> str:
        """The municipalities in a row; none chosen is the whole county."""
        return ", ".join(sorted(MUNICIPALITIES.get(code, code) for code in chosen)) or self.gettext(_("Hela länet"))

    def frequency(self, frequency: str) -> str:
        return self.gettext(FREQUENCIES[Frequency(frequency)])

    def frequencies(self, chosen: Mapping[str, str]) -> str:
        """How often, and which topics otherwise."""
        words = [self.frequency(chosen.get(EVERYTHING, Frequency.IMMEDIATE))]
        words += [f"{self.topic(topic)}: {self.frequency(chosen[topic])}" for topic in TOPICS if topic in chosen]
        return ". ".join(words)

    def how_often(self, what: str) -> str:
        return self._filled(_("Hur ofta: {what}"), what)

    def mails(self, audience: Audience, roles: Iterable[RoleRow]) -> str:
        """The mails of an audience, in words that the person recognises."""
        held = [role for role in roles if role.audience is audience]
        names = sorted({whom(audience, self._locale, role.name, role.municipalities) for role in held})
        joined = "".join(names[:1])
        if names[1:]:
            joined = self.gettext(_("{first} och {last}")).format(first=", ".join(names[:-1]), last=names[-1])
        return self.gettext(MAILS[audience]).format(whom=joined)

    def standing(self, fields: Standing, roles: Iterable[RoleRow]) -> list[str]:
        """What the fields say, a sentence each; what a person cannot choose is not told."""
        held = list(roles)
        return [sentence for field in fields for sentence in self._sentences(field, fields[field], held)]

    def _sentences(self, field: str, value: Any, roles: list[RoleRow]) -> Iterator[str]:
        if field.startswith(AUDIENCE):
            audience = Audience(field.removeprefix(AUDIENCE))
            text = _("Du får: {what}") if value == GETS else _("Du får inte: {what}")
            yield self._filled(text, self.mails(audience, roles))
        elif field == "topics":
            yield self._filled(_("Ämnen: {what}"), self.topics(value))
        elif field == "municipalities":
            yield self._filled(_("Kommuner: {what}"), self.municipalities(value))
        elif field == "frequencies":
            yield self.how_often(self.frequencies(value))
        elif field == "locale":
            yield self._filled(_("Språk i mejlen: {what}"), LANGUAGES[Locale(value)])
        elif field == "paused_until":
            yield self._pause(value)
        elif field == "unsubscribed":
            yield self.gettext(_("Du får inga mejl alls.") if value else _("Du får mejl."))
        elif field == "suppressed":
            stopped = _("Vi har slutat skicka mejl till din adress.")
            yield self.gettext(stopped if value else _("Vi skickar mejl till din adress igen."))

    def _pause(self, until: str | None) -> str:
        if until is None:
            return self.gettext(_("Mejlen är inte pausade."))
        return self._filled(_("Mejlen är pausade till {what}"), day(self._locale, datetime.fromisoformat(until)))

    def _filled(self, text: str, what: str) -> str:
        return self.gettext(text).format(what=what)
