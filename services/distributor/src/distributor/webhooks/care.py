"""Looks after endpoints: writes to the contact of one that fails, stops one that only fails, says when it works again.
Where such a mail comes back, it writes to the office.

It asks the database what is so, and hangs on no event: an endpoint that nothing is sent to any more, or whose sender
died, is found all the same. A mail is planned in the ledger in the transaction that notes it as told, under an id
derived from endpoint, occasion and series of failures: it goes out once, and by another way than the one that fails.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, and_, exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from distributor import ledger
from distributor.models import Delivery
from distributor.webhooks import endpoints
from distributor.webhooks.contact_mail import Condition, ContactMail, Occasion
from distributor.webhooks.health import health
from distributor.webhooks.models import DisabledReason, Endpoint, EndpointState, Told
from shared.clock import Clock
from shared.contracts.delivery import DeliveryState
from shared.contracts.mail import Form, Lane, MailRequested, SubjectKind
from shared.database import Database
from shared.ids import derived_id
from shared.tasks import pause

log = structlog.get_logger()

LOOK_EVERY_S = 2.0
CHUNK = 100
FAILURES_BEFORE_MAIL = 4
DISABLED_AFTER = timedelta(days=5)

ENABLED = Endpoint.state == EndpointState.ENABLED
STOPPED_BY_US = (DisabledReason.GONE, DisabledReason.FAILING)
FAILS = and_(ENABLED, health.c.failures >= FAILURES_BEFORE_MAIL)
RECOVERED = and_(ENABLED, health.c.told != Told.NOTHING, health.c.works)
STOPPED = and_(Endpoint.disabled_reason.in_(STOPPED_BY_US), health.c.told != Told.DISABLED)

CAME_BACK = exists().where(
    Delivery.subject_id == health.c.told_by, Delivery.state.in_((DeliveryState.BOUNCED, DeliveryState.FAILED))
)
CONTACT_LOST = and_(health.c.told_by.is_not(None), health.c.contact_bounced_at.is_(None), CAME_BACK)

TOLD_AFTER = {Occasion.FAILING: Told.FAILING, Occasion.DISABLED: Told.DISABLED, Occasion.RECOVERED: Told.NOTHING}


@dataclass(frozen=True, slots=True)
class Finding:
    """An endpoint about which its contact is to hear, and why."""

    occasion: Occasion
    row: Row[Any]


class EndpointCareWorker:
    """Looks after endpoints."""

    name = "endpoint care"

    def __init__(self, database: Database, clock: Clock, mail: ContactMail) -> None:
        self._database = database
        self._clock = clock
        self._mail = mail

    async def run(self, stop: asyncio.Event) -> None:
        """Look every other second until `stop`."""
        while not stop.is_set():
            while await self.step():
                pass
            await pause(stop, LOOK_EVERY_S)

    async def step(self) -> bool:
        """Look once; False when there was nothing to do."""
        now = self._clock.now()
        async with self._database.transaction(quiet=True) as session:
            stopped = await self._stop(session, now)
            found = await self._findings(session, now)
            for finding in found:
                await self._tell(session, finding, now)
        if found:
            self._database.wake()
        for finding in found:
            _log(finding)
        for endpoint_id in stopped:
            log.warning("endpoint_disabled", endpoint_id=str(endpoint_id), reason="failing")
        return bool(found or stopped)

    async def _stop(self, session: AsyncSession, now: datetime) -> list[UUID]:
        """Disable what has failed for five days, and whose contact knows of it."""
        since = health.c.failing_since <= now - DISABLED_AFTER
        only_fails = _look(and_(FAILS, health.c.told == Told.FAILING, since))
        ids = [row.id for row in await session.execute(only_fails)]
        return [key for key in ids if await endpoints.disable(session, key, DisabledReason.FAILING, now)]

    async def _findings(self, session: AsyncSession, now: datetime) -> list[Finding]:
        news = or_(and_(FAILS, health.c.told != Told.FAILING), RECOVERED, STOPPED)
        rows = (await session.execute(_look(news))).all()
        lost = (await session.execute(_look(CONTACT_LOST))).all()
        return [
            *(Finding(_occasion(row), row) for row in rows if row not in lost),
            *(Finding(Occasion.CONTACT_LOST, row) for row in lost),
        ]

    async def _tell(self, session: AsyncSession, finding: Finding, now: datetime) -> None:
        row, occasion = finding.row, finding.occasion
        mine, batch = health.c.endpoint_id == row.id, self._batch(row, occasion, now)
        noted: dict[str, Any] = {"contact_bounced_at": now}
        if occasion is not Occasion.CONTACT_LOST:
            noted = {"told": TOLD_AFTER[occasion], "told_by": batch.subject_id}
        await session.execute(update(health).where(mine).values(noted))
        await ledger.keep_content(
            session,
            subject_kind=batch.subject_kind,
            subject_id=batch.subject_id,
            revision=batch.revision,
            item=None,
            request=batch.request,
            at=now,
        )
        await ledger.accept_batch(session, batch, now)

    def _batch(self, row: Row[Any], occasion: Occasion, now: datetime) -> MailRequested:
        series = row.failing_since or row.last_success_at or row.updated_at
        subject_id = derived_id("endpoint mail", row.id, row.generation, occasion, series.isoformat())
        condition = _condition(row)
        return MailRequested(
            batch_id=subject_id,
            subject_kind=SubjectKind.REQUEST,
            subject_id=subject_id,
            revision=0,
            form=Form.ENDPOINT,
            lane=Lane.TRANSACTIONAL,
            planned_at=now,
            request=self._mail.words(occasion, condition),
            recipients=(self._mail.recipient(occasion, condition),),
        )


def _look(condition: Any) -> Any:
    """The endpoints of which `condition` holds, with their health, both locked.

    What somebody else holds is left for the next look: a change takes the endpoint first and then its health.
    """
    return (
        select(
            Endpoint.id,
            Endpoint.name,
            Endpoint.url,
            Endpoint.contact_email,
            Endpoint.state,
            Endpoint.disabled_reason,
            Endpoint.generation,
            Endpoint.updated_at,
            *(health.c[name] for name in ("failures", "failing_since", "last_success_at", "last_status", "last_phase")),
        )
        .join(health, health.c.endpoint_id == Endpoint.id)
        .where(condition)
        .order_by(Endpoint.id)
        .limit(CHUNK)
        .with_for_update(of=(Endpoint, health), skip_locked=True)
    )


def _condition(row: Row[Any]) -> Condition:
    return Condition(
        endpoint_id=row.id,
        generation=row.generation,
        name=row.name,
        url=row.url,
        contact_email=row.contact_email,
        failures=row.failures,
        failing_since=row.failing_since,
        last_status=row.last_status,
        last_phase=row.last_phase,
        disabled_reason=row.disabled_reason,
    )


def _log(finding: Finding) -> None:
    endpoint_id = str(finding.row.id)
    if finding.occasion is Occasion.CONTACT_LOST:
        log.warning("endpoint_contact_bounced", endpoint_id=endpoint_id)
    else:
        log.info("endpoint_contact_told", endpoint_id=endpoint_id, occasion=str(finding.occasion))


def _occasion(row: Row[Any]) -> Occasion:
    if row.state == EndpointState.DISABLED:
        return Occasion.DISABLED
    return Occasion.FAILING if row.failures else Occasion.RECOVERED
