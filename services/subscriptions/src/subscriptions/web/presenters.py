"""What the templates get: frozen, in the reader's language, and without an address or a name (`own_presenters`)."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.contracts.news import STRONGEST_FIRST, Audience, Locale
from shared.contracts.vocabulary import TOPICS
from shared.web.dates import STOCKHOLM
from subscriptions.frequencies import EVERYTHING, Frequencies, Frequency
from subscriptions.history import Change
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
SOME_WEEKS = timedelta(days=28)
"""How far ahead the example of a pause is: one that has passed would be refused."""


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
    is_newsroom: bool
    paused_until: str
    pause_example: str
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
        reasons=[role_reason(role, locale) for role in roles if role.audience not in person.left],
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
        is_newsroom=Audience.NEWSROOM in held,
        paused_until=typed.paused_until,
        pause_example=(at.astimezone(STOCKHOLM).date() + SOME_WEEKS).isoformat(),
        paused_to=None if stopped_until == FOR_EVER else stopped_until,
        has_stopped=person.subscriber.unsubscribed_at is not None,
        is_suppressed=person.subscriber.suppressed_at is not None,
        can_lift=SuppressionReason.MANUAL not in stopped_by,
        has_complained=SuppressionReason.COMPLAINT in stopped_by,
    )


def event(change: Change, roles: Sequence[RoleRow], locale: Locale, undo: str) -> Event:
    """One change, as it stands on the page."""
    return Event(change.at, Wording(locale).standing(change.after, roles), undo)


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


def role_reason(role: RoleRow, locale: Locale) -> str:
    covered = role.covers if role.audience is Audience.NEWSROOM else role.municipalities
    return reason(role.audience, locale, role.name, covered)
