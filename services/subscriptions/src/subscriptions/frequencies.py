"""How often somebody gets what they get: at once, daily or weekly; one frequency for everything, another per topic.

Who has chosen nothing gets everything at once, and has no row. An item with several topics comes as soon as the
soonest of those that the person wants: nobody waits until Friday for what they asked to have at once. A newsroom's
press releases are never put off.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import ScalarSelect, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.contracts.news import Audience
from shared.database import among
from subscriptions.models import FrequencyRow

EVERYTHING = ""
"""The topic under which the frequency of everything stands that has none of its own."""
EVERYTHING_NAMED = "everything"
"""The same for callers of the API."""
PARTS, BETWEEN = "=", "|"
"""What no topic's key holds."""
NEVER_PUT_OFF = frozenset({Audience.NEWSROOM})


class Frequency(StrEnum):
    """How long news may wait, the soonest first."""

    IMMEDIATE = "immediate"
    DAILY = "daily"
    WEEKLY = "weekly"


SOONEST_FIRST = tuple(Frequency)
Frequencies = Mapping[str, Frequency]
"""What one person has chosen, by topic or `EVERYTHING`; empty is everything at once."""


def frequency_of(chosen: Frequencies, audience: Audience, topics: Iterable[str], wanted: Iterable[str]) -> Frequency:
    """How often a person who has chosen so gets an item about `topics`; `wanted` are the person's topics, none: all."""
    if audience in NEVER_PUT_OFF:
        return Frequency.IMMEDIATE
    otherwise = chosen.get(EVERYTHING, Frequency.IMMEDIATE)
    about, asked_for = set(topics), set(wanted)
    met = about & asked_for if asked_for else about
    return min((chosen.get(topic, otherwise) for topic in met), key=SOONEST_FIRST.index, default=otherwise)


async def frequencies_of(session: AsyncSession, subscriber_ids: Iterable[UUID]) -> dict[UUID, dict[str, Frequency]]:
    """What each has chosen; whoever has chosen nothing is not there."""
    rows = select(FrequencyRow).where(among(session, FrequencyRow.subscriber_id, subscriber_ids))
    found: dict[UUID, dict[str, Frequency]] = {}
    for row in await session.scalars(rows):
        found.setdefault(row.subscriber_id, {})[row.topic] = Frequency(row.frequency)
    return found


def chosen_by(subscriber_id: Any) -> ScalarSelect[str | None]:
    """What a question's subscriber has chosen, in one text (`read_chosen`): one column instead of a second question."""
    each = FrequencyRow.topic + PARTS + FrequencyRow.frequency
    return (
        select(func.aggregate_strings(each, BETWEEN))
        .where(FrequencyRow.subscriber_id == subscriber_id)
        .scalar_subquery()
    )


@lru_cache(maxsize=10_000)
def read_chosen(text: str) -> Frequencies:
    """The text of `chosen_by`; people choose alike, so it is read once for many."""
    parted = (one.partition(PARTS) for one in text.split(BETWEEN))
    return {topic: Frequency(frequency) for topic, _, frequency in parted}


async def put_frequencies(session: AsyncSession, subscriber_id: UUID, chosen: Frequencies) -> None:
    """Give the subscriber these frequencies and no others. The caller holds the subscriber's row (`stops.changing`)."""
    await session.execute(delete(FrequencyRow).where(FrequencyRow.subscriber_id == subscriber_id))
    rows = [
        {"subscriber_id": subscriber_id, "topic": topic, "frequency": str(frequency)}
        for topic, frequency in chosen.items()
        if (topic, frequency) != (EVERYTHING, Frequency.IMMEDIATE)
    ]
    if rows:
        await session.execute(insert(FrequencyRow), rows)


def as_told(chosen: Frequencies) -> dict[str, Frequency]:
    """As callers of the API read it."""
    return {topic or EVERYTHING_NAMED: frequency for topic, frequency in sorted(chosen.items())}


def as_kept(told: Frequencies) -> dict[str, Frequency]:
    """What a caller of the API said, as it is kept."""
    return {EVERYTHING if topic == EVERYTHING_NAMED else topic: frequency for topic, frequency in told.items()}
