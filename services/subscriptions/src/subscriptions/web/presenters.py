"""What the templates get: frozen, in the reader's language; an address or a name only in a person's own data."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime

from shared.contracts.news import STRONGEST_FIRST, Audience, Locale
from shared.contracts.vocabulary import TOPICS
from shared.web.dates import day
from subscriptions.consent import Basis, ground_of
from subscriptions.exporting import Held
from subscriptions.frequencies import EVERYTHING, Frequencies, Frequency
from subscriptions.history import Act, Change, Source
from subscriptions.models import Subscriber
from subscriptions.people import RoleRow
from subscriptions.reasons import reason
from subscriptions.stops import FOR_EVER, Person
from subscriptions.suppressions import SuppressionReason
from subscriptions.web.fields import (
    Choice,
    frequency_choices,
    language_choices,
    municipality_choices,
    topic_choices,
)
from subscriptions.wording import Wording

OPEN = frozenset({Audience.PUBLIC})
"""Audiences that anybody may join."""


@dataclass(frozen=True, slots=True)
class Typed:
    """What the form holds: as stored, or as it was sent when it could not be saved."""

    audiences: frozenset[str]
    topics: frozenset[str]
    municipalities: frozenset[str]
    frequency: str
    topic_frequencies: Mapping[str, str]
    locale: str
    paused_until: str


@dataclass(frozen=True, slots=True)
class TopicFrequency:
    """How often one topic comes; the first of the choices is "as everything else"."""

    field: str
    label: str
    choices: Sequence[Choice]


@dataclass(frozen=True, slots=True)
class Event:
    """A change in words; `undo` leads to the page where it is undone, if the person may."""

    at: datetime
    sentences: Sequence[str]
    undo: str


@dataclass(frozen=True, slots=True)
class Preferences:
    """The preference page."""

    reasons: Sequence[str]
    rule: str
    audiences: Sequence[Choice]
    topics: Sequence[Choice]
    municipalities: Sequence[Choice]
    frequencies: Sequence[Choice]
    topic_frequencies: Sequence[TopicFrequency]
    has_topic_frequencies: bool
    languages: Sequence[Choice]
    paused_until: str
    paused_to: datetime | None
    has_stopped: bool
    is_suppressed: bool
    can_lift: bool
    has_complained: bool


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


RULE = _("Av dem får du det som handlar om {topics} och rör {area}. Hur ofta: {frequency}.")
ANY_TOPIC = _("alla ämnen")
ANY_AREA = _("hela länet")


def stored(person: Person, roles: Sequence[RoleRow], chosen: Frequencies, until: str) -> Typed:
    """The form as the database has it; `until` is the end of the pause, or nothing."""
    audiences = {role.audience for role in roles} - person.left
    return Typed(
        audiences=frozenset(audiences),
        topics=person.subscriber.topics,
        municipalities=person.subscriber.municipalities,
        frequency=chosen.get(EVERYTHING, Frequency.IMMEDIATE),
        topic_frequencies={topic: often for topic, often in chosen.items() if topic != EVERYTHING},
        locale=person.subscriber.locale,
        paused_until=until,
    )


def preferences(
    person: Person,
    roles: Sequence[RoleRow],
    chosen: Frequencies,
    typed: Typed,
    locale: Locale,
    at: datetime,
    stopped_by: AbstractSet[SuppressionReason] = frozenset(),
) -> Preferences:
    """What the person gets, why, and what they can choose."""
    wording = Wording(locale)
    stopped_until = person.stopped_until(at)
    held = {role.audience for role in roles}
    return Preferences(
        reasons=[_reason(role, locale) for role in roles if role.audience not in person.left],
        rule=_rule(person, chosen, wording),
        audiences=[
            Choice(audience, wording.mails(audience, roles), audience in typed.audiences)
            for audience in STRONGEST_FIRST
            if audience in OPEN | held
        ],
        topics=topic_choices(typed.topics, wording),
        municipalities=municipality_choices(typed.municipalities),
        frequencies=frequency_choices(typed.frequency, wording),
        topic_frequencies=[_topic_frequency(topic, typed, wording) for topic in TOPICS],
        has_topic_frequencies=any(typed.topic_frequencies.values()),
        languages=language_choices(typed.locale),
        paused_until=typed.paused_until,
        paused_to=None if stopped_until == FOR_EVER else stopped_until,
        has_stopped=person.subscriber.unsubscribed_at is not None,
        is_suppressed=person.subscriber.suppressed_at is not None,
        can_lift=SuppressionReason.MANUAL not in stopped_by,
        has_complained=SuppressionReason.COMPLAINT in stopped_by,
    )


def event(change: Change, roles: Sequence[RoleRow], locale: Locale, undo: str) -> Event:
    """One change, as it stands on the page."""
    return Event(change.at, Wording(locale).standing(change.after, roles), undo)


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
    facts = [(wording.gettext(_("Hos oss sedan")), day(locale, subscriber.created_at))]
    if held.moving is not None:
        facts.append((wording.gettext(_("Adressbyte på gång till")), held.moving.address))
    why = [_with_basis(role, held, wording, locale) for role in held.roles]
    return OwnData(
        address=subscriber.address,
        name=subscriber.name,
        facts=facts,
        roles=[*why, *wording.standing(standing, held.roles)],
        events=[_own_event(change, held.roles, wording) for change in held.changes],
    )


BASES = {
    Basis.PUBLIC_TASK: _("Det är en uppgift av allmänt intresse."),
    Basis.PRESS_REGISTER: _("Ni står i vårt register över redaktioner, som är av allmänt intresse."),
    Basis.CONSENT: _("Du har samtyckt till det."),
}


def _with_basis(role: RoleRow, held: Held, wording: Wording, locale: Locale) -> str:
    """Why, on what legal basis, and since when."""
    ground = ground_of(role.audience, held.changes)
    since = wording.gettext(_("Sedan {day}.")).format(day=day(locale, ground.since)) if ground.since else ""
    return " ".join((_reason(role, locale), wording.gettext(BASES[ground.basis]), since)).strip()


def _own_event(change: Change, roles: Sequence[RoleRow], wording: Wording) -> OwnEvent:
    act = f"{wording.gettext(ACTS[change.act])} {wording.gettext(SOURCES[change.source])}"
    return OwnEvent(change.at, act, wording.standing(change.after, roles))


def _rule(person: Person, chosen: Frequencies, wording: Wording) -> str:
    subscriber = person.subscriber
    return wording.gettext(RULE).format(
        topics=wording.topics(subscriber.topics) if subscriber.topics else wording.gettext(ANY_TOPIC),
        area=wording.municipalities(subscriber.municipalities)
        if subscriber.municipalities
        else wording.gettext(ANY_AREA),
        frequency=wording.frequencies(chosen),
    )


def _topic_frequency(topic: str, typed: Typed, wording: Wording) -> TopicFrequency:
    now = typed.topic_frequencies.get(topic, "")
    as_everything = Choice("", wording.gettext(_("Som allt annat")), not now)
    return TopicFrequency(
        f"frequency-{topic}", wording.how_often(wording.topic(topic)), [as_everything, *frequency_choices(now, wording)]
    )


def _reason(role: RoleRow, locale: Locale) -> str:
    covered = role.covers if role.audience is Audience.NEWSROOM else role.municipalities
    return reason(role.audience, locale, role.name, covered)
