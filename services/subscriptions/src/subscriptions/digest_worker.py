"""The digest run: at each slot, what waits becomes one mail per person, resumable at every step.

A slot has one run, whose id is derived from its day: two workers begin it once, and one that was down across the slot
begins it late, once. It begins when everything published before the slot has come to everybody whom it is for (or
after `PATIENCE`: what comes later waits for the next run). It takes what was published before the slot, so that of
two items in one second each is in exactly one run.

Then a worker takes page by page of the people for whom something waits, by rising subscriber id. One page is one short
transaction: it writes one `mail.requested`, takes its items off the list and moves the checkpoint. A crash leaves the
page as it was; a batch that comes twice hits the same ledger rows, since those are of run and person. Like the fan-out
it keeps no more than `AHEAD` batches ahead of the relay, and a page that fails puts its run off.
"""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from shared.clock import Clock
from shared.contracts.mail import (
    BATCH_SIZE,
    Carried,
    DigestItem,
    Exclusion,
    Form,
    Lane,
    MailRequested,
    Recipient,
    SubjectKind,
)
from shared.contracts.news import Audience, ItemSnapshot, Locale
from shared.correlation import Correlation, correlated
from shared.database import Database, instant, is_transient
from shared.ids import derived_id
from shared.messaging.outbox import emit
from shared.tasks import pause
from subscriptions import digest_rows as rows
from subscriptions import people
from subscriptions.digests import Carrying, Digest, Reader, digest_for, exclusion, why
from subscriptions.fanout import AHEAD, SOURCE
from subscriptions.fanouts import unconfirmed
from subscriptions.frequencies import frequencies_of
from subscriptions.links import Links
from subscriptions.models import DigestRun, Subscriber
from subscriptions.slots import Slot, Timetable

log = structlog.get_logger()

PATIENCE = timedelta(minutes=15)
POLL_S = 1.0


class _NothingToDo(Exception):
    """Another replica was faster."""


class DigestWorker:
    """Begins digest runs and plans them. Any number of replicas may run."""

    name = "digests"

    def __init__(
        self, database: Database, clock: Clock, links: Links, timetable: Timetable, *, batch_size: int = BATCH_SIZE
    ) -> None:
        self._database = database
        self._clock = clock
        self._links = links
        self._timetable = timetable
        self._batch_size = batch_size
        self._begun: date | None = None
        self._at_hand: UUID | None = None

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.begin_due()
            if not await self.advance():
                await pause(stop, POLL_S)

    async def begin_due(self) -> None:
        """Begin the run of the last slot, unless it has been. Which is the last one, is the database's to say."""
        async with self._database.reading() as session:
            now = await instant(session, self._clock)
            slot = self._timetable.last(now)
            if slot.day == self._begun:
                return
            if now < slot.at + PATIENCE and await rows.anything_on_its_way(session, slot.at):
                return
            weekly = await self._is_weekly(session, slot)
        async with self._database.transaction() as session:
            begun = await rows.begin(session, derived_id("digest", slot.day), slot.at, now, weekly=weekly)
        self._begun = slot.day
        if begun:
            log.info("digest_run_begun", day=str(slot.day), weekly=weekly, late_s=int((now - slot.at).total_seconds()))

    async def advance(self) -> bool:
        """Plan one page, if there is one to plan."""
        async with self._database.reading() as session:
            if not await rows.has_plannable(session, self._clock.now()):
                return False
            if await unconfirmed(session, limit=AHEAD) >= AHEAD:
                return False
        self._at_hand = None
        try:
            async with self._database.transaction() as session:
                await self._plan(session)
        except _NothingToDo:
            return False
        except Exception as error:
            if is_transient(error) or self._at_hand is None:
                raise
            await self._put_off(self._at_hand, error)
        return True

    async def _is_weekly(self, session: AsyncSession, slot: Slot) -> bool:
        """Also when the week's own slot passed while nobody was here."""
        last = await rows.last_slot_at(session)
        passed = self._timetable.between(last, slot.at) if last else [slot]
        return any(each.weekly for each in passed)

    async def _plan(self, session: AsyncSession) -> None:
        current = await rows.take_plannable(session, self._clock.now())
        if current is None:
            raise _NothingToDo
        self._at_hand = current.id
        found = await rows.page(session, current, self._batch_size)
        mails = excluded = 0
        if found:
            with correlated(Correlation(str(current.id))):
                mails, excluded = await self._page(session, current, found)
        last = found[-1].id if len(found) == self._batch_size else None
        await rows.move_on(session, current, last, self._clock.now(), mails=mails, excluded=excluded)

    async def _page(self, session: AsyncSession, current: DigestRun, found: Sequence[Subscriber]) -> tuple[int, int]:
        readers = await self._readers(session, found)
        waiting = await rows.entries_of(session, [reader.row.id for reader in readers], current.slot_at)
        items = await rows.newest_of(session, (entry.item_id for listed in waiting.values() for entry in listed))
        made = [(reader, self._digest(reader, waiting, items, current)) for reader in readers]
        await rows.take(session, [entry for _, digest in made for entry in digest.due])
        recipients = [self._recipient(reader, digest.carried) for reader, digest in made if digest.carried]
        left_out = [one for reader, digest in made if (one := exclusion(reader, digest))]
        if recipients or left_out:
            carried = {each.item.item_id: each.item for _, digest in made for each in digest.carried}
            await self._request(session, current, carried.values(), recipients, left_out)
        return len(recipients), len(left_out)

    def _digest(
        self,
        reader: Reader,
        waiting: dict[UUID, list[rows.Entry]],
        items: dict[UUID, ItemSnapshot],
        current: DigestRun,
    ) -> Digest:
        mine = waiting.get(reader.row.id, [])
        return digest_for(reader, mine, items, self._clock.now(), weekly=current.weekly)

    async def _readers(self, session: AsyncSession, found: Sequence[Subscriber]) -> list[Reader]:
        ids = [row.id for row in found]
        roles, left = await people.roles_of(session, ids), await people.left_by(session, ids)
        chosen = await frequencies_of(session, ids)
        return [Reader(row, roles[row.id], frozenset(left[row.id]), chosen.get(row.id, {})) for row in found]

    async def _request(
        self,
        session: AsyncSession,
        current: DigestRun,
        carried: Iterable[ItemSnapshot],
        recipients: Sequence[Recipient],
        left_out: Sequence[Exclusion],
    ) -> None:
        batch_id = derived_id("batch", current.id, current.last_subscriber_id)
        event = MailRequested(
            batch_id=batch_id,
            subject_kind=SubjectKind.DIGEST_RUN,
            subject_id=current.id,
            revision=0,
            form=Form.DIGEST,
            lane=Lane.DIGEST,
            planned_at=current.started_at,
            digest=tuple(DigestItem.of(item) for item in carried),
            recipients=tuple(recipients),
            exclusions=tuple(left_out),
        )
        event_id, now = derived_id("mail.requested", batch_id), self._clock.now()
        await emit(session, event, source=SOURCE, subject=current.id, at=now, event_id=event_id)

    def _recipient(self, reader: Reader, carried: Sequence[Carrying]) -> Recipient:
        row, locale = reader.row, Locale(reader.row.locale)
        audiences = {carrying.role.audience for carrying in carried}
        audience: Audience | None = audiences.pop() if len(audiences) == 1 else None
        out = self._links.unsubscribe(row.id, row.generation, audience)
        return Recipient(
            recipient_id=row.id,
            address=row.address,
            locale=locale,
            audience=audience,
            reason=why(carried, locale),
            preferences_url=self._links.preferences(row.id, row.generation),
            unsubscribe_url=out,
            one_click_url=out,
            carries=tuple(Carried(item_id=each.item.item_id, audience=each.role.audience) for each in carried),
        )

    async def _put_off(self, run_id: UUID, error: Exception) -> None:
        async with self._database.transaction() as session:
            failures = await rows.put_off(session, run_id, self._clock.now())
        log.error("digest_page_failed", run_id=str(run_id), failures=failures, exc_info=error)
