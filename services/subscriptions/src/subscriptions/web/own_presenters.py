"""Everything held about a person, in words and for that person alone: the one presenter with an address."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.contracts.news import Locale
from shared.web.dates import day
from subscriptions.consent import Basis, ground_of
from subscriptions.exporting import Held
from subscriptions.history import Act, Change, Source
from subscriptions.models import AddressChange, Subscriber, Suppression
from subscriptions.people import RoleRow
from subscriptions.suppressions import SuppressionReason
from subscriptions.tasks.models import Task
from subscriptions.tasks.tasks import TaskKind
from subscriptions.web.office.wording import TASKS
from subscriptions.web.presenters import role_reason
from subscriptions.wording import Wording


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


@dataclass(frozen=True, slots=True)
class OwnEvent:
    """A row of the history in words."""

    at: datetime
    act: str
    sentences: Sequence[str]


@dataclass(frozen=True, slots=True)
class OwnData:
    """Everything held about a person, for that person alone: the one presenter with an address."""

    address: str
    name: str
    facts: Sequence[tuple[str, str]]
    roles: Sequence[str]
    events: Sequence[OwnEvent]


ACTS = {
    Act.JOINED: _("Du kom med"),
    Act.CHANGED: _("Ändrat"),
    Act.UNDONE: _("Ändrat tillbaka"),
    Act.MOVED: _("Adressen ändrad"),
}
SOURCES = {
    Source.SIGN_UP: _("genom en anmälan"),
    Source.PAGE: _("på sidan för din prenumeration"),
    Source.UNSUBSCRIBE_LINK: _("genom länken för att sluta"),
    Source.UNDO: _("genom en länk för att ångra"),
    Source.OFFICE: _("av oss"),
    Source.IMPORT: _("av oss, ur en lista"),
    Source.BOUNCE: _("för att mejl kom tillbaka"),
    Source.WEEDING: _("av oss, när tiden för det var slut"),
    Source.RESTORE: _("när en säkerhetskopia lästes tillbaka"),
    Source.INVITATION: _("genom en inbjudan till en grupp"),
    Source.GROUP: _("av gruppens kontaktperson"),
    Source.COMPLAINT: _("för att ett mejl anmäldes som skräppost"),
}


def own_data(subscriber: Subscriber, held: Held, locale: Locale) -> OwnData:
    """What a person reads of themselves."""
    wording = Wording(locale)
    standing = {
        "topics": subscriber.topics,
        "municipalities": subscriber.municipalities,
        "frequencies": held.frequencies,
        "locale": subscriber.locale,
        "paused_until": subscriber.paused_until.isoformat() if subscriber.paused_until else None,
        "unsubscribed": subscriber.unsubscribed_at is not None,
    }
    why = [_with_basis(role, held, wording, locale) for role in held.roles]
    return OwnData(
        address=subscriber.address,
        name=subscriber.name,
        facts=list(_facts(subscriber, held, wording, locale)),
        roles=[*why, *wording.standing(standing, held.roles)],
        events=[_own_event(change, held.roles, wording) for change in held.changes],
    )


def _facts(subscriber: Subscriber, held: Held, wording: Wording, locale: Locale) -> Iterator[tuple[str, str]]:
    """Beside the choices: what has happened to the person's mail, and what others have written down."""
    yield wording.gettext(_("Hos oss sedan")), day(locale, subscriber.created_at)
    if held.moving is not None:
        yield _move(held.moving, wording)
    for stop in held.suppressions:
        yield wording.gettext(_("Stopp av mejlen")), _stop(stop, wording, locale)
    if held.soft_bounces:
        yield wording.gettext(_("Mejl som inte gick fram")), _since(held.soft_bounces, locale)
    if held.waiting:
        titles = ", ".join(one.title for one in held.waiting)
        yield wording.gettext(_("Nyheter som väntar på ditt samlade mejl")), titles
    for group in held.contact_of:
        yield wording.gettext(_("Kontaktperson för")), group
    for newsroom in held.desk_of:
        yield wording.gettext(_("Redaktionsadress för")), newsroom
    for invited in held.invitations:
        yield (
            wording.gettext(_("Inbjudan som väntar på svar")),
            f"{invited.group} ({', '.join(part for part in (invited.name, day(locale, invited.expires_at)) if part)})",
        )
    for task in held.tasks:
        yield wording.gettext(_("Ärende hos oss")), _task(task, wording, locale)


def _move(moving: AddressChange, wording: Wording) -> tuple[str, str]:
    if moving.confirmed_at is None:
        return wording.gettext(_("Adressbyte på gång till")), moving.address
    former = moving.old_address if moving.taken_back_at is None else moving.address
    return wording.gettext(_("Din förra adress, som vi snart tar bort")), former


def _stop(stop: Suppression, wording: Wording, locale: Locale) -> str:
    told = [wording.gettext(STOPS[SuppressionReason(stop.reason)]), stop.note, day(locale, stop.suppressed_at)]
    if stop.lifted_at is not None:
        told.append(wording.gettext(_("hävt {day}")).format(day=day(locale, stop.lifted_at)))
    return ", ".join(part for part in told if part)


def _task(task: Task, wording: Wording, locale: Locale) -> str:
    """What it is about, when it was raised, and whatever somebody wrote."""
    what = wording.gettext(TASKS[TaskKind(task.kind)][0])
    written = [value for value in (*task.details.values(), task.closed_because) if isinstance(value, str) and value]
    return ", ".join([what, day(locale, task.raised_at), *written])


def _since(instants: Sequence[datetime], locale: Locale) -> str:
    """How many, and when the first was."""
    return f"{len(instants)}, {day(locale, min(instants))}"


STOPS = {
    SuppressionReason.HARD_BOUNCE: _("Ett mejl kom tillbaka: adressen finns inte"),
    SuppressionReason.SOFT_BOUNCES: _("Mejl kom tillbaka under lång tid"),
    SuppressionReason.COMPLAINT: _("Ett mejl anmäldes som skräppost"),
    SuppressionReason.MANUAL: _("Vi stoppade dem"),
}
BASES = {
    Basis.PUBLIC_TASK: _("Det är en uppgift av allmänt intresse."),
    Basis.PRESS_REGISTER: _("Ni står i vårt register över redaktioner, som är av allmänt intresse."),
    Basis.CONSENT: _("Du har samtyckt till det."),
}


def _with_basis(role: RoleRow, held: Held, wording: Wording, locale: Locale) -> str:
    """Why, on what legal basis, since when and by whose hand, and what the person agreed to."""
    ground = ground_of(role, held.changes)
    told = [role_reason(role, locale), wording.gettext(BASES[ground.basis])]
    if ground.since is not None and ground.source:
        source = wording.gettext(SOURCES[Source(ground.source)])
        began = wording.gettext(_("Det lades till {day} {source}."))
        told.append(began.format(day=day(locale, ground.since), source=source))
    if ground.text:
        told.append(wording.gettext(_("Du sade ja till det här: ”{text}”")).format(text=ground.text))
    return " ".join(told)


def _own_event(change: Change, roles: Sequence[RoleRow], wording: Wording) -> OwnEvent:
    act = f"{wording.gettext(ACTS[change.act])} {wording.gettext(SOURCES[change.source])}"
    return OwnEvent(change.at, act, wording.standing(change.after, roles))
