"""How does one message get out?

1. A row of the ledger comes due: it was just accepted, or its next attempt has come.
2. The feeder claims a chunk of due rows, the strongest lane first. They are leased: ours while our process lives.
3. One of the channel's slots takes a row and asks the journal for leave to begin. In that commit a stop, a
   correction or a withdrawal has its last word; and what the slot sent before is recorded in the same commit.
4. The row becomes a dispatch: its own words, and the content that it shares with thousands of others.
5. The channel sends it and answers with an outcome. No transaction is open meanwhile.
6. With its next turn the slot hands the outcome to the journal: the state, the attempt with the receiver's words, the
   next attempt if there is to be one. First attempt and retry are the same path.

If the process dies after step 3 and before 6, the row is in doubt, and `recovery` says so; at most one row a slot can
be. If it dies anywhere else, nothing was sent that is not recorded, and nothing recorded was lost.

When the way out itself is broken (the relay is down, or refuses everybody), the whole channel pauses instead of burning
through the ledger, and one delivery tries it again before the others follow: see `breaker`.
"""

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import structlog
from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy import Row

from distributor import leases
from distributor.at_hand import AtHand
from distributor.breaker import Breaker, Flow, Heard, Pauses
from distributor.channels import Content, Dispatch, Outcome, Sender
from distributor.contents import load_content
from distributor.journal import Journal
from distributor.pace import Pace
from distributor.settings import DistributorSettings
from distributor.states import DEFERRED, LANE_OF_RANK
from shared import correlation
from shared.clock import Clock
from shared.contracts.delivery import Channel
from shared.contracts.mail import Form
from shared.contracts.news import Audience, Locale
from shared.database import Database

log = structlog.get_logger()

CHUNKS_AHEAD = 4
"""Claim up to this many rows a slot: enough to keep all slots busy over a claim, few enough that a press release
waits behind no more than that of a digest."""
POLL_S = 1.0
PAUSE_FIRST_S, PAUSE_LONGEST_S = 1.0, 30.0
"""While the relay is away: the first mail leaves within a minute of its return."""
REFUSED_FIRST_S, REFUSED_LONGEST_S = 30.0, 300.0
"""While it refuses everybody: somebody has to mend it, and each try makes a block worse."""
CONTENTS_KEPT = 64

attempts_total = Counter("budkavle_delivery_attempts_total", "Attempts by channel and outcome", ["channel", "state"])
attempt_seconds = Histogram("budkavle_delivery_attempt_seconds", "Time that an attempt took", ["channel"])
paused = Gauge("budkavle_channel_paused", "1 while a channel backs away from a broken way out", ["channel"])


class DeliveryWorker:
    """Drains one channel's due deliveries through its slots."""

    def __init__(self, sender: Sender, database: Database, clock: Clock, settings: DistributorSettings) -> None:
        self.name = f"delivery {sender.channel}"
        self._sender = sender
        self._database = database
        self._journal = Journal(
            database,
            clock,
            slots=sender.slots,
            repeat_doubtful=settings.uncertain == "repeat",
            retry_scale=settings.retry_scale,
        )
        self._instance = settings.instance or uuid.uuid4().hex[:12]
        self._hungry = asyncio.Event()
        self._woken = asyncio.Event()
        self._contents: OrderedDict[tuple[uuid.UUID, int], Content] = OrderedDict()
        self._clear = asyncio.Event()
        self._under_way = 0
        self._room_changed = asyncio.Event()
        mail = sender.channel is Channel.MAIL
        self._per_domain = settings.smtp_per_domain if mail else 0
        self._claimed: AtHand
        refused = Pauses(REFUSED_FIRST_S * settings.retry_scale, REFUSED_LONGEST_S * settings.retry_scale)
        self._breaker = Breaker(Pauses(PAUSE_FIRST_S, PAUSE_LONGEST_S), refused if mail else None)
        self._pace = Pace(settings.smtp_rate_per_minute if mail else 0)
        database.on_commit(self._woken.set)

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop`; then finish what has begun and let go of the rest."""
        self._clear.set()
        self._under_way = 0
        self._claimed = AtHand(self._per_domain, lambda: self._sender.room)
        await self._take_name()
        background = [asyncio.create_task(work) for work in (self._journal.run(), self._renew(), self._feed(stop))]
        slots = [asyncio.create_task(self._slot(stop)) for _ in range(self._sender.slots)]
        try:
            await _ended(slots, background)
        finally:
            for task in (*slots, *background):
                task.cancel()
            await asyncio.gather(*slots, *background, return_exceptions=True)
            if stop.is_set():  # else this worker is started again, with the same sender
                await self._sender.close()
            await self._let_go()

    async def _slot(self, stop: asyncio.Event) -> None:
        finished: tuple[Row[Any], Outcome] | None = None
        while True:
            row = self._next_at_hand(stop) if finished else await self._next(stop)
            if row is None and finished is None:
                return
            granted = await self._journal.turn(finished, row)
            if row is not None and not granted:
                self._never_began()
            finished = (row, await self._send(row)) if row is not None and granted else None
            if row is not None:
                self._claimed.leave(row)
                self._leave_place()

    def _next_at_hand(self, stop: asyncio.Event) -> Row[Any] | None:
        """A row without waiting: an outcome in hand must be recorded now, not when there is more to do."""
        if self._claimed.qsize() <= self._sender.slots:
            self._hungry.set()
        if self._claimed.empty() or not self._clear.is_set() or stop.is_set():
            return None
        if not self._has_room() or self._pace.wait_s(time.monotonic()) or not self._may_begin():
            return None
        self._under_way += 1
        return self._claimed.get_nowait()

    async def _next(self, stop: asyncio.Event) -> Row[Any] | None:
        while not stop.is_set():
            self._hungry.set()
            await _either(self._clear, stop)
            await self._take_place(stop)
            row = await self._taken(stop)
            while row is not None and (wait_s := self._pace.wait_s(time.monotonic())):
                await _first(stop, wait_s)
                if stop.is_set():
                    return None  # it has not begun: the next owner of the lease has it
            if row is None or self._may_begin():
                return row
            self._claimed.put_nowait(row)
            self._leave_place()
        return None

    # Room: a slot asks leave to begin only when its channel can carry on at once. What has begun can no longer be
    # called off, so it must not wait behind connections that a slow server has not been asked to bear yet.

    def _has_room(self) -> bool:
        return self._under_way < self._sender.room

    async def _take_place(self, stop: asyncio.Event) -> None:
        while not self._has_room() and not stop.is_set():
            self._room_changed.clear()
            await _either(self._room_changed, stop)
        self._under_way += 1

    def _leave_place(self) -> None:
        self._under_way -= 1
        self._room_changed.set()

    async def _taken(self, stop: asyncio.Event) -> Row[Any] | None:
        taking = asyncio.create_task(self._claimed.get())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({taking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return taking.result() if taking.done() and not stop.is_set() else None
        finally:
            taking.cancel()
            stopping.cancel()

    async def _send(self, row: Row[Any]) -> Outcome:
        try:
            dispatch = await self._dispatch(row)
            trail = correlation.Correlation(dispatch.content.correlation_id, dispatch.content.traceparent)
            with correlation.correlated(trail):
                outcome = replace(await self._sender.send(dispatch), trail=trail)
        except Exception as error:
            log.error("channel_failed", delivery_id=str(row.id), channel=row.channel, exc_info=error)
            outcome = Outcome(DEFERRED, reply=f"internal error: {type(error).__name__}", phase="internal")
        outcome = self._back_away(row.id, outcome)
        attempts_total.labels(row.channel, outcome.state).inc()
        attempt_seconds.labels(row.channel).observe(outcome.duration.total_seconds())
        return outcome

    # Backing away: `_clear` is set while a slot may ask the breaker for leave

    def _may_begin(self) -> bool:
        may = self._breaker.may_begin()
        if self._breaker.flow is not Flow.FLOWING:
            self._clear.clear()
        return may

    def _never_began(self) -> None:
        self._breaker.never_began()
        self._open()

    def _open(self) -> None:
        if self._breaker.flow is not Flow.PAUSED:
            self._clear.set()

    def _probe(self) -> None:
        self._breaker.probe()
        self._open()

    def _back_away(self, delivery_id: uuid.UUID, outcome: Outcome) -> Outcome:
        heard = self._breaker.hear(delivery_id, outcome, time.monotonic())
        if heard.pause_s:
            self._clear.clear()
            self._tell_pause(heard)
            asyncio.get_running_loop().call_later(heard.pause_s, self._probe)
        elif heard.resumed:
            paused.labels(self._sender.channel).set(0)
            log.info("channel_resumed", channel=str(self._sender.channel))
            self._clear.set()
        elif self._breaker.flow is Flow.PROBING:
            self._open()
        return heard.outcome

    def _tell_pause(self, heard: Heard) -> None:
        paused.labels(self._sender.channel).set(1)
        outcome = heard.outcome
        why = {
            "channel": str(self._sender.channel),
            "pause_s": heard.pause_s,
            "code": outcome.code,
            "phase": outcome.phase,
            "reply": outcome.reply[:200],
        }
        if heard.alert:
            log.error("channel_refused", **why)
        else:
            log.warning("channel_paused", **why)

    async def _feed(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._hungry.wait()
            self._hungry.clear()
            if self._claimed.qsize() > self._sender.slots:  # as while the channel pauses: enough is at hand
                continue
            self._woken.clear()
            if not await self._claim():
                await _first(self._woken, POLL_S)
                self._hungry.set()

    async def _claim(self) -> bool:
        try:
            async with self._database.transaction(quiet=True) as session:
                rows = await leases.claim(
                    session,
                    self._database,
                    channel=self._sender.channel,
                    owner=self._journal.owner,
                    limit=self._sender.slots * CHUNKS_AHEAD,
                )
        except Exception as error:  # noqa: BLE001 - the database may be away; claim again later
            log.warning("claim_failed", channel=str(self._sender.channel), error=type(error).__name__)
            return False
        for row in rows:
            self._claimed.put_nowait(row)
        return bool(rows)

    async def _dispatch(self, row: Row[Any]) -> Dispatch:
        return Dispatch(
            delivery_id=row.id,
            channel=Channel(row.channel),
            recipient_id=row.recipient_id,
            form=Form(row.form),
            lane=LANE_OF_RANK[row.lane],
            content=await self._content(row),
            planned_at=row.planned_at,
            attempt=row.tries + 1,
            locale=Locale(row.locale),
            audience=Audience(row.audience) if row.audience else None,
            address=row.address or "",
            reason=row.reason or "",
            preferences_url=row.preferences_url or "",
            unsubscribe_url=row.unsubscribe_url or "",
            one_click_url=row.one_click_url or "",
            thread_of=tuple(_earlier(part) for part in row.thread_of.split(",") if part),
        )

    async def _content(self, row: Row[Any]) -> Content:
        key = (row.edition_id or row.subject_id, row.revision)
        content = self._contents.get(key)
        follows_up = row.form in (Form.CORRECTION, Form.WITHDRAWAL)
        if content is None or (
            follows_up and not content.note
        ):  # a batch may have told of the revision before the news
            content = await load_content(self._database, row.subject_id, row.revision, row.edition_id)
            self._contents[key] = content
            while len(self._contents) > CONTENTS_KEPT:
                self._contents.popitem(last=False)
        return content

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(leases.RENEW_EVERY_S)
            try:
                if not await self._hold(self._journal.owner):
                    log.warning("sender_lease_lost", owner=self._journal.owner)
                    await self._take_name()
            except Exception as error:  # noqa: BLE001 - tried again in a moment
                log.warning("sender_lease_not_renewed", error=type(error).__name__)

    async def _take_name(self) -> None:
        """Be a new owner; its lease stands before anything is claimed in its name."""
        owner = f"{self._instance}-{uuid.uuid4().hex[:8]}"
        await self._hold(owner)
        self._journal.owner = owner

    async def _hold(self, owner: str) -> bool:
        async with self._database.transaction(quiet=True) as session:
            return await leases.hold(session, self._database, owner)

    async def _let_go(self) -> None:
        async with self._database.transaction(quiet=True) as session:
            await leases.let_go(session, self._journal.owner)


def _earlier(part: str) -> int | uuid.UUID:
    """A revision of the item itself, or the digest run that carried it."""
    return int(part) if part.isdecimal() else uuid.UUID(part)


async def _ended(slots: Sequence[asyncio.Task[None]], background: Sequence[asyncio.Task[None]]) -> None:
    """Wait for the slots. A task that fails ends the wait: without the journal, say, they would wait for ever."""
    left: set[asyncio.Task[None]] = {*slots, *background}
    while not all(slot.done() for slot in slots):
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()


async def _either(first: asyncio.Event, second: asyncio.Event) -> None:
    if first.is_set() or second.is_set():
        return
    waits = [asyncio.create_task(event.wait()) for event in (first, second)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _first(event: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return


__all__: Sequence[str] = ("DeliveryWorker",)
