"""What the office reads of people: in the third person, where the preference page says "you"."""

from collections.abc import Iterable, Iterator
from datetime import date, datetime
from typing import Any

from shared.contracts.news import Audience, Locale
from shared.web.dates import day
from subscriptions.consent import Basis
from subscriptions.history import AUDIENCE, GETS, Act, Source, Standing
from subscriptions.models import OrganisationKind
from subscriptions.people import RoleRow
from subscriptions.states import SubscriberState
from subscriptions.suppressions import SuppressionReason
from subscriptions.tasks.tasks import TaskKind
from subscriptions.wording import LANGUAGES, Wording


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


AUDIENCES = {
    Audience.NEWSROOM: _("Redaktion"),
    Audience.POLITICIAN: _("Förtroendevald"),
    Audience.COLLABORATION_GROUP: _("Samverkansgrupp"),
    Audience.AGENCY_OFFICIAL: _("Tjänsteperson"),
    Audience.PUBLIC: _("Allmänheten"),
}
STATES = {
    SubscriberState.ACTIVE: _("Får mejl"),
    SubscriberState.PAUSED: _("Har pausat"),
    SubscriberState.UNSUBSCRIBED: _("Har avslutat"),
    SubscriberState.SUPPRESSED: _("Stoppad"),
}
BASES = {
    Basis.PUBLIC_TASK: _("Uppgift av allmänt intresse"),
    Basis.PRESS_REGISTER: _("Pressregister"),
    Basis.CONSENT: _("Samtycke"),
}
ACTS = {
    Act.JOINED: _("Kom med"),
    Act.CHANGED: _("Ändrat"),
    Act.UNDONE: _("Ändrat tillbaka"),
    Act.MOVED: _("Adressen ändrad"),
    Act.ERASED: _("Raderad"),
}
SOURCES = {
    Source.SIGN_UP: _("genom en anmälan"),
    Source.PAGE: _("på den egna sidan"),
    Source.UNSUBSCRIBE_LINK: _("genom länken för att sluta"),
    Source.UNDO: _("genom en länk för att ångra"),
    Source.OFFICE: _("av kansliet"),
    Source.IMPORT: _("av kansliet, ur en lista"),
    Source.BOUNCE: _("för att mejl kom tillbaka"),
    Source.WEEDING: _("vid gallringen"),
    Source.RESTORE: _("när en säkerhetskopia lästes tillbaka"),
    Source.INVITATION: _("genom en inbjudan till en grupp"),
    Source.GROUP: _("av gruppens kontaktperson"),
    Source.COMPLAINT: _("för att ett mejl anmäldes som skräppost"),
}
KINDS = {
    OrganisationKind.NEWSROOM: _("Redaktion"),
    OrganisationKind.COUNCIL: _("Fullmäktige eller nämnd"),
    OrganisationKind.AGENCY: _("Myndighet"),
}
FIND_ADDRESS = _("Ta reda på en adress som fungerar, lägg till den och välj den som redaktionsadress.")
TASKS = {
    TaskKind.NEWSROOM_BOUNCED: (_("Mejl till en redaktion kommer tillbaka"), FIND_ADDRESS),
    TaskKind.NEWSROOM_COMPLAINED: (
        _("En redaktion har anmält ett mejl som skräppost"),
        _("Hör med redaktionen vad de vill ha. Adressen får inga mejl förrän de själva ber om det på sin sida."),
    ),
    TaskKind.DESK_MISSING: (
        _("En redaktion saknar redaktionsadress"),
        _("Välj på redaktionens sida vilken adress som är deras egen."),
    ),
    TaskKind.DESK_UNREACHABLE: (_("En redaktionsadress får inga mejl"), FIND_ADDRESS),
    TaskKind.DESK_UNANSWERED: (
        _("En redaktion svarar inte på om adress och bevakning stämmer"),
        _("Ring redaktionen. Rätta adressen och kommunerna om det behövs."),
    ),
    TaskKind.DESK_WISH: (
        _("En redaktion vill ändra något"),
        _("Ändra det du håller med om. Önskemålet glöms när uppgiften stängs."),
    ),
    TaskKind.GROUP_RETURN: (
        _("Någon vill vara kvar i en grupp"),
        _("Kontaktpersonen har fått en länk som ångrar borttagningen. Hör efter hur de vill ha det."),
    ),
    TaskKind.GROUP_CONTACT_BOUNCED: (
        _("Mejl till en grupps kontaktperson kommer tillbaka"),
        _("Välj en annan kontaktperson på gruppens sida, eller rätta adressen."),
    ),
}
"""What there is to settle, and what to do about it."""
STOPS = {
    SuppressionReason.HARD_BOUNCE: _("Adressen finns inte: mejl kom tillbaka"),
    SuppressionReason.SOFT_BOUNCES: _("Mejl har kommit tillbaka under lång tid"),
    SuppressionReason.COMPLAINT: _("Ett mejl har anmälts som skräppost"),
    SuppressionReason.MANUAL: _("Stoppad av kansliet"),
}


class OfficeWording(Wording):
    """Words in one language."""

    @property
    def is_swedish(self) -> bool:
        return self._locale is Locale.SV

    def audience(self, audience: Audience) -> str:
        return self.gettext(AUDIENCES[audience])

    def role(self, role: RoleRow) -> str:
        """The audience, where, for which municipalities and, for an elected representative, when."""
        words = [self.audience(role.audience)]
        words += [f"{role.name}"] if role.name else []
        area = self.municipalities(role.municipalities) if role.municipalities else ""
        term = self.term(role.mandate_from, role.mandate_until)
        return ", ".join([*words, *(part for part in (area, term) if part)])

    def term(self, first: date | None, last: date | None) -> str:
        if first is None and last is None:
            return ""
        return f"{first.isoformat() if first else ''}–{last.isoformat() if last else ''}"

    def changed(self, fields: Standing) -> list[str]:
        """What a row of the history says, a sentence each."""
        return [sentence for field, value in fields.items() for sentence in self._told(field, value)]

    def _told(self, field: str, value: Any) -> Iterator[str]:
        if field.startswith(AUDIENCE):
            what = self.audience(Audience(field.removeprefix(AUDIENCE)))
            yield self._filled(_("Får: {what}") if value == GETS else _("Får inte: {what}"), what)
        elif field == "topics":
            yield self._filled(_("Ämnen: {what}"), self.topics(value))
        elif field == "municipalities":
            yield self._filled(_("Kommuner: {what}"), self.municipalities(value))
        elif field == "frequencies":
            yield self.how_often(self.frequencies(value))
        elif field == "locale":
            yield self._filled(_("Språk i mejlen: {what}"), LANGUAGES[Locale(value)])
        elif field == "paused_until":
            yield self._pause_of(value)
        elif field == "unsubscribed":
            yield self.gettext(_("Har avslutat alla mejl.") if value else _("Får mejl igen."))
        elif field == "suppressed":
            yield self.gettext(_("Mejlen är stoppade.") if value else _("Mejlen är inte stoppade längre."))

    def _pause_of(self, until: str | None) -> str:
        if until is None:
            return self.gettext(_("Mejlen är inte pausade."))
        return self._filled(_("Mejlen är pausade till {what}"), day(self._locale, datetime.fromisoformat(until)))


def in_a_row(words: Iterable[str]) -> str:
    """Each once, in the order in which they came."""
    return ", ".join(dict.fromkeys(words))
