"""The journal: group commits for many slots, so that a crash leaves no more doubt than there are slots.

A slot that has sent something hands in how it ended and, in the same turn, what it wants to send next; it goes on
when both are on disk. Turns that come while a commit is under way share the next one. So at any moment at most one
message a slot has left without its outcome being recorded, and every such message is marked as begun: after a crash
exactly those are in doubt, and none of the others.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from distributor import leases
from distributor.channels import Outcome
from distributor.leases import Ended
from distributor.retry_policy import Verdict, decide, jittered
from distributor.states import BOUNCED, SENT
from distributor.webhooks import health
from shared.clock import Clock
from shared.contracts.delivery import BounceKind, Channel, DeliveryBounced, fingerprint
from shared.correlation import correlated, current
from shared.database import Database, instant, is_transient
from shared.messaging.outbox import emit

log = structlog.get_logger()

LINGER_S = 0.002
"""Wait this long for the other slots before committing: saves commits, costs no one a noticeable delay."""
REPEAT_AFTER_S = 0.5
REFUSALS_BORNE = 3


@dataclass(slots=True)
class _Turn:
    finished: tuple[Row[Any], Outcome] | None
    wanted: Row[Any] | None
    granted: "asyncio.Future[bool]"


class Journal:
    """Records outcomes and beginnings of one sender process."""

    def __init__(
        self, database: Database, clock: Clock, *, slots: int, repeat_doubtful: bool, retry_scale: float
    ) -> None:
        self._database = database
        self._clock = clock
        self._slots = slots
        self._repeat_doubtful = repeat_doubtful
        self._retry_scale = retry_scale
        self._turns: list[_Turn] = []
        self._arrived = asyncio.Event()
        self._active = 0
        self.owner = ""

    async def turn(self, finished: tuple[Row[Any], Outcome] | None, wanted: Row[Any] | None) -> bool:
        """Record `finished`, begin `wanted`; True when `wanted` may go out. Returns when it is on disk."""
        turn = _Turn(finished, wanted, asyncio.get_running_loop().create_future())
        self._turns.append(turn)
        self._arrived.set()
        return await turn.granted

    async def run(self) -> None:
        """Commit turns until cancelled."""
        while True:
            await self._arrived.wait()
            if len(self._turns) < self._slots:
                await asyncio.sleep(LINGER_S)
            turns, self._turns = self._turns, []
            self._arrived.clear()
            await self._commit_until_done(turns)

    async def _commit_until_done(self, turns: Sequence[_Turn]) -> None:
        """An outcome must not be lost to a database that is away for a while: come again until it is there."""
        ended = {id(turn): self._judge(*turn.finished) for turn in turns if turn.finished}
        refusals = 0
        while refusals <= REFUSALS_BORNE:
            try:
                _grant(turns, await self._commit(turns, [*ended.values()]))
            except Exception as error:  # noqa: BLE001 - see above
                log.warning("outcomes_wait_for_database", turns=len(turns), error=type(error).__name__)
                refusals += not is_transient(error)
                await asyncio.sleep(REPEAT_AFTER_S)
            else:
                return
        for turn in turns:
            await self._commit_alone(turn, ended.get(id(turn)))

    async def _commit_alone(self, turn: _Turn, ended: Ended | None) -> None:
        """One outcome that the database refuses for what it is must hold up no other. What it may refuse is the
        receiver's words, so it is written without them; where that fails too, the worker starts anew.
        """
        try:
            _grant([turn], await self._commit([turn], [ended] if ended else []))
        except Exception as error:
            if ended is None:
                raise
            log.error("reply_not_recorded", delivery_id=str(ended.row.id), error=type(error).__name__)
            bare = replace(ended, outcome=replace(ended.outcome, reply="", enhanced="", phase=""))
            _grant([turn], await self._commit([turn], [bare]))

    async def _commit(self, turns: Sequence[_Turn], ended: Sequence[Ended]) -> set[UUID]:
        wanted = [turn.wanted.id for turn in turns if turn.wanted is not None]
        granted: set[UUID] = set()
        # Only a bounce leaves something for others to do at once (its event); what is due later is polled for. Waking
        # everybody after every handful of mails would cost more than the mails.
        quiet = all(one.verdict.state is not BOUNCED for one in ended)
        async with self._database.transaction(quiet=quiet) as session:
            if ended:
                await self._record(session, ended)
            if wanted:
                granted = await leases.begin(session, self._database, self.owner, wanted)
        return granted

    async def _record(self, session: AsyncSession, ended: Sequence[Ended]) -> None:
        now = await instant(session, self._clock)
        await leases.record(session, ended, now)
        await health.note(session, ended, now)
        for one in ended:
            if one.verdict.state is BOUNCED:
                with correlated(one.outcome.trail or current()):
                    await self._tell_bounce(session, one)

    async def _tell_bounce(self, session: AsyncSession, ended: Ended) -> None:
        row = ended.row
        event = DeliveryBounced(
            delivery_id=row.id,
            recipient_id=row.recipient_id,
            kind=BounceKind.HARD,
            status=ended.outcome.enhanced,
            address_fingerprint=fingerprint(row.recipient_id, row.address) if row.address else "",
        )
        await emit(session, event, source="distributor", subject=row.subject_id, at=self._clock.now())

    def _judge(self, row: Row[Any], outcome: Outcome) -> Ended:
        verdict = decide(
            Channel(row.channel),
            outcome,
            attempts=row.attempts + int(outcome.counts),
            repeats=row.repeats + int(row.leased_from == "uncertain"),
            repeat_doubtful=self._repeat_doubtful,
        )
        wait = jittered(verdict.wait, self._retry_scale) if verdict.wait is not None else None
        if verdict.state is not SENT:
            with correlated(outcome.trail or current()):
                _tell(row, outcome, verdict, wait)
        return Ended(row, outcome, verdict, wait)


def _grant(turns: Sequence[_Turn], granted: set[UUID]) -> None:
    for turn in turns:
        if not turn.granted.done():
            turn.granted.set_result(turn.wanted is not None and turn.wanted.id in granted)


def _tell(row: Row[Any], outcome: Outcome, verdict: Verdict, wait: timedelta | None) -> None:
    """What was sent is told by the ledger; a log line is for what was not."""
    log.info(
        "delivery_attempt_ended",
        delivery_id=str(row.id),
        attempt=row.tries + 1,
        state=str(verdict.state),
        code=outcome.code,
        enhanced=outcome.enhanced,
        phase=outcome.phase,
        fault=str(outcome.fault),
        wait_s=int(wait.total_seconds()) if wait else None,
    )
