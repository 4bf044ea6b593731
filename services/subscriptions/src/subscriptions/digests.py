"""What one person's digest carries. Decided anew when it is made, since much may have changed while the items waited.

An item goes into it in its last version, and only if it would still be sent to this person: it has not been withdrawn,
the role and the choices still match. What has become due and is left out waits no longer: whoever pauses comes back to
no flood. An item waits on for somebody who gets it weekly and meets a daily run; who has changed to at once gets what
waits with the next run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from shared.contracts.mail import Exclusion, ExclusionReason
from shared.contracts.news import STRONGEST_FIRST, Audience, ItemSnapshot, ItemState, Locale
from subscriptions.audience import Target, choice_against, role_for
from subscriptions.digest_rows import Entry
from subscriptions.frequencies import Frequencies, Frequency, frequency_of
from subscriptions.models import Subscriber
from subscriptions.people import RoleRow
from subscriptions.reasons import reason, rhythm

MOST_REASONS = 3


@dataclass(frozen=True, slots=True)
class Reader:
    """Somebody for whom something waits, as they stand now."""

    row: Subscriber
    roles: Sequence[RoleRow]
    left: frozenset[Audience]
    frequencies: Frequencies


@dataclass(frozen=True, slots=True)
class Carrying:
    """One item in a digest, and the role that it comes for."""

    item: ItemSnapshot
    role: RoleRow
    frequency: Frequency


@dataclass(frozen=True, slots=True)
class Digest:
    """What becomes of what waited: `due` waits no longer, `carried` goes out; `why_not` says why nothing does."""

    due: Sequence[Entry]
    carried: Sequence[Carrying]
    why_not: ExclusionReason | None = None


def digest_for(
    reader: Reader, waiting: Sequence[Entry], items: Mapping[UUID, ItemSnapshot], at: datetime, *, weekly: bool
) -> Digest:
    """Decide, for one run at `at`."""
    due = [entry for entry in waiting if weekly or _how_often(reader, entry, items) is not Frequency.WEEKLY]
    stopped = _stopped(reader.row, at)
    if stopped or not due:
        return Digest(due, (), stopped if due else None)
    held = [role for role in reader.roles if role.audience not in reader.left]
    standing = [(entry, items[entry.item_id]) for entry in due if items[entry.item_id].state != ItemState.WITHDRAWN]
    reasons: list[ExclusionReason] = []
    carried: list[Carrying] = []
    for entry, item in standing:
        target = Target.of(item, at)
        role = role_for(held, target)
        chosen = choice_against(reader.row.topics, reader.row.municipalities, target)
        cause = chosen if role else ExclusionReason.UNSUBSCRIBED
        if role and cause is None:
            carried.append(Carrying(item, role, _how_often(reader, entry, items)))
        elif cause:
            reasons.append(cause)
    return Digest(due, carried, None if carried or not reasons else reasons[0])


def exclusion(reader: Reader, digest: Digest) -> Exclusion | None:
    """The run's account of somebody who gets nothing; nobody is missed of whom all items were withdrawn."""
    if digest.why_not is None:
        return None
    audience = STRONGEST_FIRST[min(entry.audience_rank for entry in digest.due)]
    return Exclusion(recipient_id=reader.row.id, audience=audience, reason=digest.why_not)


def why(carried: Sequence[Carrying], locale: Locale) -> str:
    """Why the reader gets this, in their language: each of their roles once, and how often they have chosen."""
    by_strength = sorted(carried, key=lambda carrying: STRONGEST_FIRST.index(carrying.role.audience))
    sentences = dict.fromkeys(_reason(carrying.role, locale) for carrying in by_strength)
    often = rhythm((carrying.frequency for carrying in carried), locale)
    return " ".join([*list(sentences)[:MOST_REASONS], *([often] if often else [])])


def _how_often(reader: Reader, entry: Entry, items: Mapping[UUID, ItemSnapshot]) -> Frequency:
    audience, item = STRONGEST_FIRST[entry.audience_rank], items[entry.item_id]
    return frequency_of(reader.frequencies, audience, item.topics, reader.row.topics)


def _stopped(row: Subscriber, at: datetime) -> ExclusionReason | None:
    if row.suppressed_at is not None:
        return ExclusionReason.SUPPRESSED
    if row.unsubscribed_at is not None:
        return ExclusionReason.UNSUBSCRIBED
    if row.paused_until is not None and row.paused_until > at:
        return ExclusionReason.PAUSED
    return None


def _reason(role: RoleRow, locale: Locale) -> str:
    covered = role.covers if role.audience is Audience.NEWSROOM else role.municipalities
    return reason(role.audience, locale, role.name, covered)
