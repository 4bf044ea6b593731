"""What a report changes, in one transaction: the delivery's state, the proof, and what others are told.

Only a genuine return path leads here (see `return_path`); a Message-ID or an address in a report never does. What is
the canary's own mail, by its Message-ID, is no report: it has arrived. A hard
bounce takes a sent delivery to `bounced`. A soft one leaves it: the address may work tomorrow, and whether many of
them mean a dead one is for subscriptions to decide. What speaks of us (policy) and automatic replies change nothing.

Taking the same report in twice changes nothing; a second report of the same kind on a delivery tells nobody twice of a
hard bounce or a complaint.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from uuid import UUID

import structlog
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from distributor import canary, tallies
from distributor.bounces.classifying import Report
from distributor.bounces.phrases import Kind
from distributor.ledger import bounce_reports as reports
from distributor.ledger import deliveries, released
from distributor.mail.message_ids import message_ids
from distributor.states import BOUNCED, LEASED, SENT, UNCERTAIN
from distributor.tallies import Moved
from shared.clock import Clock
from shared.contracts.delivery import BounceKind, Channel, DeliveryBounced, DeliveryComplained, fingerprint
from shared.database import insert_ignoring, instant
from shared.ids import derived_id
from shared.messaging.outbox import emit

log = structlog.get_logger()

MAY_STILL_BOUNCE = (SENT, UNCERTAIN)


class Result(StrEnum):
    """What became of a report."""

    APPLIED = "applied"
    ARRIVED = "arrived"
    REPEATED = "repeated"
    NOT_OURS = "not_ours"


class NotYet(Exception):
    """The delivery is still on its way out: the report overtook the outcome. It is to be offered again."""


@dataclass(frozen=True, slots=True)
class _Delivery:
    id: UUID
    recipient_id: UUID
    subject_id: UUID
    edition_id: UUID | None
    subject_kind: str
    revision: int
    channel: str
    audience: str | None
    form: str
    state: str
    ended_reason: str
    leased_from: str
    address: str | None


def digest_of(delivery_id: UUID, report: Report, raw: bytes) -> str:
    """The same for the same report, whatever trace headers it collected on its way."""
    told = report.message_id.encode("utf-8", "replace") or raw
    return sha256(delivery_id.bytes + str(report.kind).encode() + b"\0" + told).hexdigest()


async def apply(
    session: AsyncSession, clock: Clock, delivery_id: UUID, report: Report, digest: str, canary_id: UUID | None = None
) -> Result:
    """Write `report` down and do what it asks for. Raises NotYet while the delivery is under way."""
    delivery = await _find(session, delivery_id)
    if delivery is None:
        return Result.NOT_OURS
    if delivery.recipient_id == canary_id and _is_the_mail_itself(delivery, report):
        new = await canary.note_arrival(session, clock, delivery_id, delivery.recipient_id)
        return Result.ARRIVED if new else Result.REPEATED
    if delivery.state == LEASED:
        raise NotYet
    now = await instant(session, clock)
    if not await _keep(session, delivery_id, report, digest, now):
        return Result.REPEATED
    if report.kind is Kind.HARD:
        await _bounce(session, delivery, report, now)
    elif report.kind in (Kind.SOFT, Kind.FULL):
        await _tell_bounced(session, delivery, BounceKind.SOFT, report, now)
    elif report.kind is Kind.COMPLAINT:
        await _tell_complained(session, delivery, now)
    log.info("bounce_report_applied", delivery_id=str(delivery_id), kind=str(report.kind), status=report.status)
    return Result.APPLIED


def _is_the_mail_itself(delivery: _Delivery, report: Report) -> bool:
    """Not what came back of it: a report has a Message-ID of its own, and quotes ours further down."""
    own = message_ids(delivery.subject_id, delivery.revision)(delivery.recipient_id)
    return report.message_id.strip().startswith(f"<{own}@")


async def _find(session: AsyncSession, delivery_id: UUID) -> _Delivery | None:
    """The delivery, locked: a retry by hand and a bounce must not pass each other."""
    columns = [deliveries.c[name] for name in _Delivery.__slots__]
    query = select(*columns).where(deliveries.c.id == delivery_id, deliveries.c.channel == Channel.MAIL)
    row = (await session.execute(query.with_for_update())).first()
    return _Delivery(*row) if row is not None else None


async def _keep(session: AsyncSession, delivery_id: UUID, report: Report, digest: str, at: datetime) -> bool:
    row = {
        "digest": digest,
        "delivery_id": delivery_id,
        "kind": report.kind,
        "status": report.status[:16],
        "reason": report.reason[:64],
        "diagnostic": report.diagnostic,
        "reporting_mta": report.reporting_mta[:255],
        "received_at": at,
    }
    kept = await session.execute(insert_ignoring(session, reports).values(row).returning(reports.c.digest))
    return kept.first() is not None


async def _bounce(session: AsyncSession, delivery: _Delivery, report: Report, at: datetime) -> None:
    came_back = update(deliveries).where(deliveries.c.id == delivery.id, deliveries.c.state.in_(MAY_STILL_BOUNCE))
    moved = await session.execute(
        came_back.values(released(at) | {"state": BOUNCED, "ended_reason": "bounced_later"}).returning(deliveries.c.id)
    )
    if moved.first() is None:
        return
    await tallies.moved(session, [Moved.of(asdict(delivery), BOUNCED)])
    await _tell_bounced(session, delivery, BounceKind.HARD, report, at)


async def _tell_bounced(
    session: AsyncSession, delivery: _Delivery, kind: BounceKind, report: Report, at: datetime
) -> None:
    event = DeliveryBounced(
        delivery_id=delivery.id,
        recipient_id=delivery.recipient_id,
        kind=kind,
        status=report.status,
        address_fingerprint=fingerprint(delivery.recipient_id, delivery.address) if delivery.address else "",
    )
    await emit(session, event, source="distributor", subject=delivery.subject_id, at=at)


async def _tell_complained(session: AsyncSession, delivery: _Delivery, at: datetime) -> None:
    event = DeliveryComplained(delivery_id=delivery.id, recipient_id=delivery.recipient_id)
    once = derived_id("complaint", delivery.id)
    await emit(session, event, source="distributor", subject=delivery.subject_id, at=at, event_id=once)
