"""How endpoints fare: failures in a row, since when, and the last answer.

Kept in the transaction that records the outcomes, so that it is right whatever dies, and however many senders write:
a success writes only where it changes something (or every ten seconds), all of a commit's in one statement; of a
commit's failures each endpoint gets one update. Rows are taken in the order of their ids, so that two senders never
wait for each other.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Table, bindparam, case, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from distributor.channels import Outcome
from distributor.leases import Ended
from distributor.webhooks.models import EndpointHealth
from shared.contracts.delivery import Channel, DeliveryState
from shared.database import Instant

health: Table = EndpointHealth.__table__  # type: ignore[assignment]

WRITTEN_EVERY = timedelta(seconds=10)
"""How stale `last_success_at` may be while all goes well."""

WELL = {"works": True, "failures": 0, "failing_since": None, "last_phase": "answer"}

_FAILED = (
    update(health)
    .where(health.c.endpoint_id == bindparam("b_endpoint"))
    .values(
        # A success that came before them in the same commit starts the count anew.
        failures=case((bindparam("b_anew"), 0), else_=health.c.failures) + bindparam("b_failures"),
        failing_since=case(
            (or_(bindparam("b_anew"), health.c.failing_since.is_(None)), bindparam("b_at", type_=Instant())),
            else_=health.c.failing_since,
        ),
        last_success_at=case((bindparam("b_anew"), bindparam("b_at", type_=Instant())), else_=health.c.last_success_at),
        works=False,
        last_attempt_at=bindparam("b_at", type_=Instant()),
        last_status=bindparam("b_status"),
        last_phase=bindparam("b_phase"),
    )
)


async def note(session: AsyncSession, ended: Sequence[Ended], at: datetime) -> None:
    """Take in what became of webhooks, in the order in which they ended. Mail, and what was not tried, is left out."""
    answers: dict[UUID, list[Outcome]] = defaultdict(list)
    for one in ended:
        if one.row.channel == Channel.WEBHOOK and one.outcome.counts and one.outcome.phase != "prepare":
            answers[one.row.recipient_id].append(one.outcome)
    well = {key: said[-1].code for key, said in answers.items() if said[-1].state is DeliveryState.SENT}
    if well:
        await succeeded(session, well, at)
    failed = [_failures(key, answers[key], at) for key in sorted(answers.keys() - well.keys())]
    if failed:
        await (await session.connection()).execute(_FAILED, failed)


def _failures(endpoint_id: UUID, said: Sequence[Outcome], at: datetime) -> dict[str, Any]:
    trailing = next((n for n, one in enumerate(reversed(said)) if one.state is DeliveryState.SENT), len(said))
    return {
        "b_endpoint": endpoint_id,
        "b_anew": trailing < len(said),
        "b_failures": trailing,
        "b_at": at,
        "b_status": said[-1].code,
        "b_phase": said[-1].phase,
    }


async def succeeded(session: AsyncSession, codes: Mapping[UUID, int | None], at: datetime) -> None:
    """These endpoints took something, with such a status each: whatever was wrong is over."""
    stale = or_(health.c.last_success_at.is_(None), health.c.last_success_at < at - WRITTEN_EVERY)
    news = or_(health.c.works.is_not(True), health.c.told != "", stale)
    theirs = select(health.c.endpoint_id).where(health.c.endpoint_id.in_(sorted(codes)), news)
    found = list(await session.scalars(theirs.order_by(health.c.endpoint_id).with_for_update()))
    for code in {codes[key] for key in found}:
        values = WELL | {"last_success_at": at, "last_attempt_at": at, "last_status": code}
        alike = [key for key in found if codes[key] == code]
        await session.execute(update(health).where(health.c.endpoint_id.in_(alike)).values(values))


async def begin_anew(session: AsyncSession, endpoint_id: UUID) -> None:
    """A person has enabled the endpoint: what was before does not count."""
    values = {"works": None, "failures": 0, "failing_since": None}
    await session.execute(update(health).where(health.c.endpoint_id == endpoint_id).values(values))


async def of(session: AsyncSession, endpoint_ids: Sequence[UUID]) -> dict[UUID, EndpointHealth]:
    """The health of these endpoints."""
    found = await session.scalars(select(EndpointHealth).where(EndpointHealth.endpoint_id.in_(endpoint_ids)))
    return {row.endpoint_id: row for row in found}
