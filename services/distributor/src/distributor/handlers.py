"""What the distributor does when it hears something. Each handler only writes rows; sending is somebody else's turn."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from distributor import digests, ledger, tallies
from distributor.erasing import erase
from distributor.webhooks.endpoints import matching
from shared.clock import Clock
from shared.contracts.envelope import Event
from shared.contracts.mail import (
    MailRequested,
    RecipientErased,
    RecipientResumed,
    RecipientStopped,
    SubjectKind,
)
from shared.contracts.news import ItemSnapshot, NewsCorrected, NewsPublished, NewsWithdrawn
from shared.database import Database, instant
from shared.messaging.bus import DeadLetter, Outcome
from shared.messaging.consumer import Consumer, Handler, Received
from shared.messaging.topology import DISTRIBUTOR_MAIL_LANES, DISTRIBUTOR_NEWS, DISTRIBUTOR_RECIPIENTS


class Handlers:
    """The handlers, with the clock that they need."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def consumers(self, database: Database) -> Sequence[Consumer]:
        """One consumer a queue."""
        news: dict[type[Event], Handler] = {
            NewsPublished: self.on_news_published,
            NewsCorrected: self.on_news_corrected,
            NewsWithdrawn: self.on_news_withdrawn,
        }
        recipients: dict[type[Event], Handler] = {
            RecipientStopped: self.on_recipient_stopped,
            RecipientResumed: self.on_recipient_resumed,
            RecipientErased: self.on_recipient_erased,
        }
        mail: dict[type[Event], Handler] = {MailRequested: self.on_mail_requested}
        return [
            Consumer(DISTRIBUTOR_NEWS, database, self._clock, news),
            Consumer(DISTRIBUTOR_RECIPIENTS, database, self._clock, recipients),
            *(Consumer(queue, database, self._clock, mail) for queue in DISTRIBUTOR_MAIL_LANES),
        ]

    async def on_mail_requested(self, session: AsyncSession, received: Received[MailRequested]) -> Outcome | None:
        """Accept a batch: from now on its deliveries are ours."""
        batch = received.event
        carried = (batch.item is not None, batch.request is not None, bool(batch.digest))
        if batch.recipients and sum(carried) != 1:
            return DeadLetter("invalid_data", "a batch with recipients carries an item, a request or a digest's items")
        now = await instant(session, self._clock)
        await ledger.keep_content(
            session,
            subject_kind=batch.subject_kind,
            subject_id=batch.subject_id,
            revision=batch.revision,
            item=batch.item,
            request=batch.request,
            at=now,
        )
        if batch.subject_kind is SubjectKind.DIGEST_RUN:
            await digests.accept_run(session, batch, now)
        else:
            await ledger.accept_batch(session, batch, now)
        return None

    async def on_news_published(self, session: AsyncSession, received: Received[NewsPublished]) -> None:
        """Plan a webhook for every endpoint that the item is for."""
        await self._keep(session, received.event.item, "", withdrawn=False)
        endpoints = await matching(session, received.event.item)
        await ledger.accept_endpoints(session, received.event.item, endpoints, await instant(session, self._clock))
        await tallies.touch(session, [received.event.item.item_id])

    async def on_news_corrected(self, session: AsyncSession, received: Received[NewsCorrected]) -> None:
        """From this commit on, no older revision begins; the follow-up worker does the rest."""
        await self._take_back(session, received.event.item, received.event.note, withdrawn=False)

    async def on_news_withdrawn(self, session: AsyncSession, received: Received[NewsWithdrawn]) -> None:
        """From this commit on, nothing of the item begins but the news of its withdrawal."""
        await self._take_back(session, received.event.item, received.event.reason, withdrawn=True)

    async def on_recipient_stopped(self, session: AsyncSession, received: Received[RecipientStopped]) -> None:
        """Call off what has not begun, and remember it for what comes late."""
        event = received.event
        stop = _stop(event.recipient_id, event.audience, event.version, stopped=True, until=event.until)
        now = await instant(session, self._clock)
        await ledger.stop_recipient(session, stop, now)
        if event.audience is not None:
            await digests.leave_out(session, event.recipient_id, event.audience, now)

    async def on_recipient_resumed(self, session: AsyncSession, received: Received[RecipientResumed]) -> None:
        """New batches count again; what was called off stays so."""
        event = received.event
        stop = _stop(event.recipient_id, event.audience, event.version, stopped=False)
        await ledger.stop_recipient(session, stop, await instant(session, self._clock))

    async def on_recipient_erased(self, session: AsyncSession, received: Received[RecipientErased]) -> None:
        """Forget everything personal, now and in whatever comes late."""
        event = received.event
        await erase(session, event.recipient_id, await instant(session, self._clock), version=event.version)

    async def _take_back(self, session: AsyncSession, item: ItemSnapshot, note: str, *, withdrawn: bool) -> None:
        await self._keep(session, item, note, withdrawn=withdrawn)
        await ledger.follow_ups_due(session, item.item_id, await instant(session, self._clock))
        await tallies.touch(session, [item.item_id])

    async def _keep(self, session: AsyncSession, item: ItemSnapshot, note: str, *, withdrawn: bool) -> None:
        await ledger.keep_content(
            session,
            subject_kind=SubjectKind.ITEM,
            subject_id=item.item_id,
            revision=item.revision,
            item=item,
            note=note,
            authoritative=True,
            at=await instant(session, self._clock),
        )
        await ledger.note_revision(session, item.item_id, item.revision, withdrawn=withdrawn)


def _stop(
    recipient_id: object,
    audience: str | None,
    version: int,
    *,
    stopped: bool,
    until: datetime | None = None,
) -> dict[str, Any]:
    return {
        "recipient_id": recipient_id,
        "audience": audience or "",
        "version": version,
        "stopped": stopped,
        "until": until,
        "erased": False,
    }
