"""How does one message get out?

1. A row of the ledger comes due: it was just accepted, or its next attempt has come.
2. The worker hands the journal what has come back since the last time, and asks for as many due rows as it has places,
   the strongest lane first. One group commit records the outcomes and begins the rows: they are leased, ours while our
   process lives, and marked as begun. In that commit a stop, a correction or a withdrawal has its last word.
3. A row becomes a dispatch: its own words, and the content that it shares with thousands of others.
4. The channel sends it and answers with an outcome. No transaction is open meanwhile.
5. With the next group the outcome is recorded: the state, the attempt with the receiver's words, the next attempt if
   there is to be one. First attempt and retry are the same path.

If the process dies after step 2 and before 5, the row is in doubt, and `recovery` says so; at most as many rows as the
channel has slots can be. If it dies anywhere else, nothing was sent that is not recorded, and nothing recorded was
lost.

When the way out itself is broken (the relay is down, or refuses everybody), the whole channel pauses instead of burning
through the ledger, and one delivery tries it again before the others follow: see `breaker`.
"""

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from contextvars import Context
from dataclasses import replace
from datetime import UTC
from functools import lru_cache

import structlog
from prometheus_client import Counter, Gauge, Histogram

from distributor import leases, restored
from distributor.at_hand import AtHand
from distributor.breaker import Breaker, Heard, Pauses
from distributor.channels import Content, Dispatch, Outcome, Sender
from distributor.contents import load_content
from distributor.journal import Finished, Journal
from distributor.leases import Claimed
from distributor.pace import Pace
from distributor.settings import DistributorSettings
from distributor.states import DEFERRED, LANE_OF_RANK, SENT
from shared import correlation
from shared.clock import Clock
from shared.contracts.delivery import Channel
from shared.contracts.mail import Form
from shared.contracts.news import Audience, Locale
from shared.database import Database

log = structlog.get_logger()

LINGER_S, LONGEST_LINGER_S = 0.003, 0.02
"""Outcomes wait for each other as long as one comes in each such while, and no longer than the longest before they are
written: saves commits, costs no one a noticeable delay."""
CHUNKS_AHEAD = 4
"""With a limit per domain, claim up to this many rows a slot, so that there is something for other domains."""
FOLLOW_UPS = frozenset({Form.CORRECTION, Form.WITHDRAWAL})
POLL_S = 1.0
PAUSE_FIRST_S, PAUSE_LONGEST_S = 1.0, 30.0
"""While the relay is away: the first mail leaves within a minute of its return."""
REFUSED_FIRST_S, REFUSED_LONGEST_S = 30.0, 300.0
"""While it refuses everybody: somebody has to mend it, and each try makes a block worse."""
CONTENTS_KEPT = 64
CROWDED = Outcome(DEFERRED, reply="the domain is busy with earlier mails", phase="wait", counts=False)
Key = tuple[uuid.UUID, int]
Known = tuple[Content | None, Context | None]
UNKNOWN: Known = (None, None)

attempts_total = Counter("budkavle_delivery_attempts_total", "Attempts by channel and outcome", ["channel", "state"])
attempt_seconds = Histogram("budkavle_delivery_attempt_seconds", "Time that an attempt took", ["channel"])
paused = Gauge("budkavle_channel_paused", "1 while a channel backs away from a broken way out", ["channel"])


class DeliveryWorker:
    """Drains one channel's due deliveries: at most `slots` of them are in its hands."""

    def __init__(self, sender: Sender, database: Database, clock: Clock, settings: DistributorSettings) -> None:
        self.name = f"delivery {sender.channel}"
        self._sender = sender
        self._database = database
        self._journal = Journal(
            database,
            clock,
            sender.channel,
            repeated_lanes=settings.repeated_lanes,
            retry_scale=settings.retry_scale,
        )
        self._instance = settings.instance or uuid.uuid4().hex[:12]
        self._under_way: set[asyncio.Task[None]] = set()
        self._finished: list[Finished] = []
        self._changed = asyncio.Event()
        self._company = asyncio.Event()  # enough has come home to be written
        self._look = True  # something may be due
        self._broken: BaseException | None = None
        self._contents: OrderedDict[Key, Known] = OrderedDict()
        self._reading: dict[Key, asyncio.Task[Content]] = {}
        mail = sender.channel is Channel.MAIL
        self._company_of = max(sender.slots // (2 if mail or database.is_sqlite else 4), 1)
        self._per_domain = settings.smtp_per_domain if mail else 0
        self._at_hand: AtHand
        refused = Pauses(REFUSED_FIRST_S * settings.retry_scale, REFUSED_LONGEST_S * settings.retry_scale)
        self._breaker = Breaker(Pauses(PAUSE_FIRST_S, PAUSE_LONGEST_S), refused if mail else None)
        self._pace = Pace(settings.smtp_rate_per_minute if mail else 0)
        self._seconds = attempt_seconds.labels(sender.channel)
        database.on_commit(self._wake)

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop`; then finish what has begun and let go of the rest."""
        self._broken = None
        await restored.until_it_may(self._database, stop)
        self._at_hand = AtHand(self._per_domain, lambda: self._sender.room)
        await self._take_name()
        background = [asyncio.create_task(work) for work in (self._renew(), self._stopping(stop))]
        try:
            await self._go_round(stop)
        finally:
            tasks = (*self._under_way, *self._reading.values(), *background)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._finished.clear()
            self._reading.clear()
            if stop.is_set():  # else this worker is started again, with the same sender
                await self._sender.close()
            await self._journal.close()
            await self._let_go()

    async def _go_round(self, stop: asyncio.Event) -> None:
        while not stop.is_set() or self._under_way or self._finished:
            await self._something_to_do(stop)
            finished, self._finished = self._finished, []
            wanted = 0 if stop.is_set() else self._places()
            self._look = self._look and not wanted  # whoever wakes us meanwhile is heard
            begun = await self._exchanged(finished, wanted)
            self._look = self._look or not (wanted == 0 or self._journal.exhausted)
            await self._begin(begun)

    async def _exchanged(self, finished: Sequence[Finished], wanted: int) -> list[Claimed]:
        """What begins now that `finished` is recorded. With a limit per domain more is claimed than begins: of that, a
        domain's surplus stands aside, and what has a place begins with the next group.
        """
        if not self._per_domain:
            return await self._journal.write(finished, wanted)
        ahead = max(self._sender.slots * CHUNKS_AHEAD - self._at_hand.qsize(), 0) if wanted else 0
        taken = [self._at_hand.get_nowait() for _ in range(min(wanted, self._at_hand.qsize()))]
        rows = await self._journal.write(finished, ahead, ahead=True, starting=taken)
        begun = [row for row in rows if row.begun_at is not None]
        going = {row.id for row in begun}
        for row in taken:
            if row.id not in going:
                self._at_hand.leave(row)
        for row in rows:
            if row.begun_at is None:
                self._take_in(row)
        self._look = self._look or (bool(rows) and not self._at_hand.empty())
        return begun

    def _take_in(self, row: Claimed) -> None:
        wait = self._at_hand.take_in(row, time.monotonic())
        if wait is not None:
            content, _ = self._known(row)
            trail = None if content is None else content.trail
            self._finished.append((row, replace(CROWDED, retry_after=wait, trail=trail)))

    async def _something_to_do(self, stop: asyncio.Event) -> None:
        """Until there is a group to write, or a place and perhaps something due."""
        while not stop.is_set() or self._under_way:
            self._changed.clear()
            if self._broken is not None:
                raise self._broken
            if self._finished:
                await self._gather()
                return
            if self._look and self._places() and not stop.is_set():
                return
            poll = asyncio.get_running_loop().call_later(self._pace.wait_s(time.monotonic()) or POLL_S, self._wake)
            await self._changed.wait()
            poll.cancel()

    async def _gather(self) -> None:
        """Let a good part of what is under way come home, so that one commit serves many, and the rest keeps us busy.

        Of webhooks on PostgreSQL a quarter is enough: a fifth more go out than in halves. A group more costs more than
        it saves where a fan-out of mails wants the processor, and on SQLite, whose thread takes it from us.
        """
        loop, seen = asyncio.get_running_loop(), 0
        longest = loop.time() + LONGEST_LINGER_S
        while not self._in_company() and seen < len(self._finished) and loop.time() < longest:
            seen = len(self._finished)
            self._company.clear()
            alarm = loop.call_later(LINGER_S, self._company.set)
            await self._company.wait()
            alarm.cancel()

    def _in_company(self) -> bool:
        return not self._under_way or len(self._finished) >= self._company_of

    def _places(self) -> int:
        """How many may begin now, each to go forward at once.

        What has begun can no longer be called off, so it must not wait behind connections that a slow server has not
        been asked to bear yet.
        """
        free = min(self._sender.slots, self._sender.room) - len(self._under_way)
        return self._breaker.allows(min(max(free, 0), self._pace.free(time.monotonic())))

    def _wake(self) -> None:
        self._look = True
        self._changed.set()

    async def _stopping(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._changed.set()

    async def _begin(self, rows: Sequence[Claimed]) -> None:
        going = self._breaker.allows(len(rows))  # it may have heard something while the commit was under way
        self._pace.take(going)
        for row in rows[:going]:
            self._breaker.may_begin()
            content, context = self._known(row)
            task = asyncio.create_task(self._attempt(row, content), context=context)
            self._under_way.add(task)
            task.add_done_callback(self._landed)
        if going < len(rows):
            for row in rows[going:]:
                self._at_hand.leave(row)
            await self._journal.give_back(rows[going:])

    def _landed(self, task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._broken = task.exception()
        self._changed.set()
        if self._in_company():
            self._company.set()

    async def _attempt(self, row: Claimed, content: Content | None) -> None:
        outcome = await self._send(row, content)  # first: the list is another one by then
        self._finished.append((row, outcome))
        if self._per_domain:
            self._at_hand.leave(row)
            self._look = True

    async def _send(self, row: Claimed, content: Content | None) -> Outcome:
        try:
            if content is None:
                content = await self._content(row)
                correlation.enter(content.trail)
            outcome = await self._sender.send(_dispatch(row, content))
            if outcome.state is not SENT:
                outcome = replace(outcome, trail=content.trail)
        except Exception as error:
            log.error("channel_failed", delivery_id=str(row.id), channel=row.channel, exc_info=error)
            outcome = Outcome(DEFERRED, reply=f"internal error: {type(error).__name__}", phase="internal")
        outcome = self._back_away(row.id, outcome)
        _attempts(row.channel, outcome.state).inc()
        self._seconds.observe(outcome.duration.total_seconds())
        return outcome

    # Backing away

    def _never_began(self) -> None:
        self._breaker.never_began()
        self._changed.set()

    def _probe(self) -> None:
        self._breaker.probe()
        self._changed.set()

    def _back_away(self, delivery_id: uuid.UUID, outcome: Outcome) -> Outcome:
        heard = self._breaker.hear(delivery_id, outcome, time.monotonic())
        if heard.pause_s:
            self._tell_pause(heard)
            asyncio.get_running_loop().call_later(heard.pause_s, self._probe)
        elif heard.resumed:
            paused.labels(self._sender.channel).set(0)
            log.info("channel_resumed", channel=str(self._sender.channel))
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

    def _known(self, row: Claimed) -> Known:
        """What the delivery says, if it was read before, and the context that its attempts share."""
        known = self._contents.get((row.edition_id or row.subject_id, row.revision), UNKNOWN)
        if known[0] is not None and not known[0].note and row.form in FOLLOW_UPS:
            return UNKNOWN  # a batch may have told of the revision before the news did
        return known

    async def _content(self, row: Claimed) -> Content:
        """Read what the delivery says. Whoever asks while it is being read shares the answer."""
        key = (row.edition_id or row.subject_id, row.revision)
        if key not in self._reading:
            self._reading[key] = asyncio.create_task(self._read(row))
        try:
            return await asyncio.shield(self._reading[key])
        finally:
            if key in self._reading and self._reading[key].done():
                del self._reading[key]

    async def _read(self, row: Claimed) -> Content:
        content = await load_content(self._database, row.subject_id, row.revision, row.edition_id)
        context = correlation.context_of(content.trail)
        self._contents[row.edition_id or row.subject_id, row.revision] = (content, context)
        while len(self._contents) > CONTENTS_KEPT:
            self._contents.popitem(last=False)
        return content

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(leases.RENEW_EVERY_S)
            try:
                if not await self._renewed():
                    log.warning("sender_lease_lost", owner=self._journal.owner)
                    await self._take_name()
            except Exception as error:  # noqa: BLE001 - tried again in a moment
                log.warning("sender_lease_not_renewed", error=type(error).__name__)

    async def _take_name(self) -> None:
        """Be a new owner; its lease stands before anything is claimed in its name."""
        owner = f"{self._instance}-{uuid.uuid4().hex[:8]}"
        async with self._database.transaction(quiet=True) as session:
            await leases.take(session, self._database, owner)
        self._journal.owner = owner

    async def _renewed(self) -> bool:
        async with self._database.transaction(quiet=True) as session:
            return await leases.renew(session, self._database, self._journal.owner)

    async def _let_go(self) -> None:
        async with self._database.transaction(quiet=True) as session:
            await leases.let_go(session, self._journal.owner)


def _dispatch(row: Claimed, content: Content) -> Dispatch:
    channel, form, locale, audience = _kind(row.channel, row.form, row.locale, row.audience)
    return Dispatch(
        delivery_id=row.id,
        channel=channel,
        recipient_id=row.recipient_id,
        form=form,
        lane=LANE_OF_RANK[row.lane],
        content=content,
        planned_at=row.planned_at.astimezone(UTC),
        attempt=row.tries + 1,
        locale=locale,
        audience=audience,
        address=row.address or "",
        reason=row.reason or "",
        preferences_url=row.preferences_url or "",
        unsubscribe_url=row.unsubscribe_url or "",
        one_click_url=row.one_click_url or "",
        thread_of=tuple(_earlier(part) for part in row.thread_of.split(",") if part) if row.thread_of else (),
    )


@lru_cache
def _kind(channel: str, form: str, locale: str, audience: str | None) -> tuple[Channel, Form, Locale, Audience | None]:
    return Channel(channel), Form(form), Locale(locale), Audience(audience) if audience else None


def _earlier(part: str) -> int | uuid.UUID:
    """A revision of the item itself, or the digest run that carried it."""
    return int(part) if part.isdecimal() else uuid.UUID(part)


@lru_cache
def _attempts(channel: str, state: str) -> Counter:
    return attempts_total.labels(channel, state)


__all__: Sequence[str] = ("DeliveryWorker",)
