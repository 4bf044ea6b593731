"""Who is in an item's audience, under which role, and who of them is left out by a choice of their own.

A role matches when its audience is one of the item's, its area meets the item's and its mandate covers the day. A
person counts once, under the strongest matching audience that they have not left; somebody who left all of theirs is
left out under the strongest. The database finds the people (`repository.audience_page`); what is decided here needs
nothing but their row. Whoever does not match is no row.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple, Self
from uuid import UUID

from babel.dates import format_date

from shared.contracts.mail import ExclusionReason, Form, Lane
from shared.contracts.news import Audience, ItemSnapshot, Locale
from shared.web.dates import STOCKHOLM
from subscriptions.frequencies import Frequency
from subscriptions.people import RoleRow

DETAILS: Mapping[ExclusionReason, str] = {
    ExclusionReason.SUPPRESSED: "adressen tar inte emot mejl",
    ExclusionReason.UNSUBSCRIBED: "har avregistrerat sig",
    ExclusionReason.TOPIC_CHOICE: "har valt andra ämnen",
    ExclusionReason.MUNICIPALITY_CHOICE: "har valt andra kommuner",
}


@dataclass(frozen=True, slots=True)
class Target:
    """Whom an item is for. No municipalities means all, no topics means all; mandates are judged on `day`. What is
    urgent waits for nobody's digest.
    """

    audiences: frozenset[Audience]
    municipalities: frozenset[str]
    topics: frozenset[str]
    day: date
    urgent: bool = False

    @classmethod
    def of(cls, item: ItemSnapshot, at: datetime) -> Self:
        """The item's target on the Swedish day of `at`."""
        day = at.astimezone(STOCKHOLM).date()
        return cls(
            frozenset(item.audiences),
            frozenset(item.municipalities),
            frozenset(item.topics),
            day,
            item.urgent_reason != "",
        )


class Match(NamedTuple):
    """Somebody in the audience, with what decides whether and how they are written to. One is made per person."""

    subscriber_id: UUID
    address: str
    locale: Locale
    generation: int
    audience: Audience
    role_name: str
    role_area: frozenset[str]
    topics: frozenset[str]
    municipalities: frozenset[str]
    paused_until: datetime | None
    unsubscribed: bool
    suppressed: bool
    left: bool
    frequency: Frequency = Frequency.IMMEDIATE


def why_left_out(match: Match, target: Target, at: datetime) -> ExclusionReason | None:
    """The reason that keeps a match from getting the item at `at`; the most final reason first."""
    if match.suppressed:
        return ExclusionReason.SUPPRESSED
    if match.unsubscribed or match.left:
        return ExclusionReason.UNSUBSCRIBED
    if match.paused_until is not None and match.paused_until > at:
        return ExclusionReason.PAUSED
    waits = match.frequency is not Frequency.IMMEDIATE and not target.urgent
    chosen = choice_against(match.topics, match.municipalities, target)
    return chosen or (ExclusionReason.FREQUENCY if waits else None)


def choice_against(topics: frozenset[str], municipalities: frozenset[str], target: Target) -> ExclusionReason | None:
    """The choice that keeps somebody who has chosen these from getting the item."""
    if not _meet(topics, target.topics):
        return ExclusionReason.TOPIC_CHOICE
    if not _meet(municipalities, target.municipalities):
        return ExclusionReason.MUNICIPALITY_CHOICE
    return None


def role_for(roles: Iterable[RoleRow], target: Target) -> RoleRow | None:
    """The strongest of somebody's roles that the item is for; what the database asks of every role, asked of one
    person's. `roles` come strongest first.
    """
    return next((role for role in roles if role.audience in target.audiences and _matches(role, target)), None)


def explain(match: Match, reason: ExclusionReason, at: datetime) -> str:
    """The reason in Swedish, for the editor."""
    if reason is ExclusionReason.PAUSED and match.paused_until is not None:
        return f"pausad till {_day(match.paused_until, at)}"
    if reason is ExclusionReason.UNSUBSCRIBED and not match.unsubscribed:
        return "har lämnat målgruppen"
    if reason is ExclusionReason.FREQUENCY:
        return "får veckosammandrag" if match.frequency is Frequency.WEEKLY else "får dagligt sammandrag"
    return DETAILS[reason]


def form_of(audience: Audience) -> Form:
    """Newsrooms get the whole text, ready to copy; everybody else headline, lead and link."""
    return Form.PRESS if audience is Audience.NEWSROOM else Form.NEWS


def lane_of(audience: Audience) -> Lane:
    """Press passes news."""
    return Lane.PRESS if audience is Audience.NEWSROOM else Lane.NEWS


def _matches(role: RoleRow, target: Target) -> bool:
    begun = role.mandate_from is None or role.mandate_from <= target.day
    in_force = begun and (role.mandate_until is None or role.mandate_until >= target.day)
    by_place = role.audience in (Audience.NEWSROOM, Audience.COLLABORATION_GROUP)
    here = not by_place or _meet(role.covers, target.municipalities)
    return in_force and here and _meet(role.municipalities, target.municipalities)


def _meet(chosen: frozenset[str], offered: frozenset[str]) -> bool:
    return not chosen or not offered or not chosen.isdisjoint(offered)


def _day(instant: datetime, now: datetime) -> str:
    day, today = instant.astimezone(STOCKHOLM), now.astimezone(STOCKHOLM)
    return format_date(day, "d MMMM" if day.year == today.year else "d MMMM y", locale="sv")
