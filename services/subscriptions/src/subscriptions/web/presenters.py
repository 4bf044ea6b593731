"""What the templates get: frozen, in the reader's language, and never an address."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.contracts.news import STRONGEST_FIRST, Audience, Locale
from subscriptions.people import RoleRow
from subscriptions.reasons import reason, whom
from subscriptions.stops import FOR_EVER, Person
from subscriptions.web.fields import Choice, Gettext, municipality_choices, topic_choices

OPEN = frozenset({Audience.PUBLIC})
"""Audiences that anybody may join."""


def _(text: str) -> str:
    """Mark a text for the catalogue; it is translated where it is shown."""
    return text


KINDS = {
    Audience.NEWSROOM: _("Pressmeddelanden och nyhetstips till {whom}"),
    Audience.POLITICIAN: _("Nyheter till dig som är ledamot i {whom}"),
    Audience.COLLABORATION_GROUP: _("Nyheter till dig som är med i {whom}"),
    Audience.AGENCY_OFFICIAL: _("Nyheter till dig som arbetar på {whom}"),
    Audience.PUBLIC: _("Nyheter till allmänheten"),
}


@dataclass(frozen=True, slots=True)
class Typed:
    """What the form holds: as stored, or as it was sent when it could not be saved."""

    audiences: frozenset[str]
    topics: frozenset[str]
    municipalities: frozenset[str]
    paused_until: str


@dataclass(frozen=True, slots=True)
class Preferences:
    """The preference page."""

    reasons: Sequence[str]
    audiences: Sequence[Choice]
    topics: Sequence[Choice]
    municipalities: Sequence[Choice]
    paused_until: str
    paused_to: datetime | None
    has_stopped: bool
    is_suppressed: bool


def stored(person: Person, roles: Sequence[RoleRow], day: str) -> Typed:
    """The form as the database has it; `day` is the end of the pause, or nothing."""
    audiences = {role.audience for role in roles} - person.left
    return Typed(frozenset(audiences), person.subscriber.topics, person.subscriber.municipalities, day)


def preferences(
    person: Person, roles: Sequence[RoleRow], typed: Typed, locale: Locale, gettext: Gettext, at: datetime
) -> Preferences:
    """What the person gets, why, and what they can choose."""
    stopped_until = person.stopped_until(at)
    offered = [audience for audience in STRONGEST_FIRST if audience in OPEN or _held(roles, audience)]
    return Preferences(
        reasons=[_reason(role, locale) for role in roles if role.audience not in person.left],
        audiences=[
            Choice(audience, label(audience, roles, locale, gettext), audience in typed.audiences)
            for audience in offered
        ],
        topics=topic_choices(typed.topics, locale),
        municipalities=municipality_choices(typed.municipalities),
        paused_until=typed.paused_until,
        paused_to=None if stopped_until == FOR_EVER else stopped_until,
        has_stopped=person.subscriber.unsubscribed_at is not None,
        is_suppressed=person.subscriber.suppressed_at is not None,
    )


def label(audience: Audience, roles: Iterable[RoleRow], locale: Locale, gettext: Gettext) -> str:
    """The mails of an audience, in words that the person recognises."""
    names = sorted({whom(audience, locale, role.name, role.municipalities) for role in _held(roles, audience)})
    joined = gettext(_("{first} och {last}")).format(first=", ".join(names[:-1]), last=names[-1]) if names[1:] else ""
    return gettext(KINDS[audience]).format(whom=joined or "".join(names))


def _held(roles: Iterable[RoleRow], audience: Audience) -> list[RoleRow]:
    return [role for role in roles if role.audience is audience]


def _reason(role: RoleRow, locale: Locale) -> str:
    covered = role.covers if role.audience is Audience.NEWSROOM else role.municipalities
    return reason(role.audience, locale, role.name, covered)
