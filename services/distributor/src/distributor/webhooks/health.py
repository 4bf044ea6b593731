"""How endpoints fare: failures in a row, since when, and the last answer.

Kept in the transaction that records the outcomes (`group_commit`), so that it is right whatever dies, and however many
senders write: a success writes only where it changes something (or every ten seconds), and of a commit's answers each
endpoint gets one update. Rows are taken in the order of their ids, so that two senders never wait for each other.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Table, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from distributor.channels import Outcome
from distributor.leases import Ended
from distributor.webhooks.models import EndpointHealth, Told
from shared.contracts.delivery import DeliveryState
from shared.database import among

health: Table = EndpointHealth.__table__  # type: ignore[assignment]

WRITTEN_EVERY = timedelta(seconds=10)
"""How stale `last_success_at` may be while all goes well."""

WELL_PHASE = "answer"
WELL = {"works": True, "failures": 0, "failing_since": None, "last_phase": WELL_PHASE}


@dataclass(frozen=True, slots=True)
class Fared:
    """What a group's answers say of an endpoint: the last one was a success (`well`), or `failures` in a row end it.

    `anew`: there was a success among them, so that the count of failures begins anew.
    """

    endpoint_id: UUID
    well: bool
    anew: bool
    failures: int
    status: int | None
    phase: str


def fared(ended: Sequence[Ended]) -> list[Fared]:
    """Each endpoint's, of webhooks in the order in which they ended. What was not tried is left out. By rising id, the
    order in which everybody locks them.
    """
    answers: dict[UUID, list[Outcome]] = defaultdict(list)
    for one in ended:
        if one.outcome.counts and one.outcome.phase != "prepare":
            answers[one.row.recipient_id].append(one.outcome)
    return [_fared(key, said) for key, said in sorted(answers.items())]


def _fared(endpoint_id: UUID, said: Sequence[Outcome]) -> Fared:
    trailing = next((n for n, one in enumerate(reversed(said)) if one.state is DeliveryState.SENT), len(said))
    last = said[-1]
    phase = last.phase if trailing else WELL_PHASE
    return Fared(endpoint_id, not trailing, trailing < len(said), trailing, last.code, phase)


async def succeeded(session: AsyncSession, codes: Mapping[UUID, int | None], at: datetime) -> None:
    """These endpoints took something, with such a status each: whatever was wrong is over."""
    stale = or_(health.c.last_success_at.is_(None), health.c.last_success_at < at - WRITTEN_EVERY)
    news = or_(health.c.works.is_not(True), health.c.told != "", stale)
    theirs = select(health.c.endpoint_id).where(among(session, health.c.endpoint_id, codes), news)
    found = list(await session.scalars(theirs.order_by(health.c.endpoint_id).with_for_update()))
    for code in {codes[key] for key in found}:
        values = WELL | {"last_success_at": at, "last_attempt_at": at, "last_status": code}
        alike = [key for key in found if codes[key] == code]
        await session.execute(update(health).where(among(session, health.c.endpoint_id, alike)).values(values))


async def begin_anew(session: AsyncSession, endpoint_id: UUID) -> None:
    """A person has enabled the endpoint: what was before does not count."""
    values = {"works": None, "failures": 0, "failing_since": None}
    await session.execute(update(health).where(health.c.endpoint_id == endpoint_id).values(values))


async def new_contact(session: AsyncSession, endpoint_id: UUID) -> None:
    """Somebody else reads our mails from now on, and has been told nothing."""
    values = {"told": Told.NOTHING, "told_by": None, "contact_bounced_at": None}
    await session.execute(update(health).where(health.c.endpoint_id == endpoint_id).values(values))


async def of(session: AsyncSession, endpoint_ids: Sequence[UUID]) -> dict[UUID, EndpointHealth]:
    """The health of these endpoints."""
    found = await session.scalars(
        select(EndpointHealth).where(among(session, EndpointHealth.endpoint_id, endpoint_ids))
    )
    return {row.endpoint_id: row for row in found}
