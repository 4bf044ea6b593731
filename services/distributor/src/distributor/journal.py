"""The journal: group commits for all that is under way, so that a crash leaves no more doubt than there are slots.

What has been sent is handed in with its outcome, and in the same commit others begin in its place. So at any moment at
most one delivery a slot has left without its outcome being recorded, and every such delivery is marked as begun: after
a crash exactly those are in doubt, and none of the others.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog

from distributor import leases
from distributor.channels import Outcome
from distributor.group_commit import Group, GroupCommit
from distributor.group_commit_postgresql import PostgresGroupCommit
from distributor.group_commit_sqlite import SqliteGroupCommit
from distributor.leases import Claimed, Ended
from distributor.retry_policy import Verdict, decide, jittered
from distributor.states import BOUNCED, SENT
from distributor.webhooks import health
from shared.clock import Clock
from shared.contracts.delivery import BounceKind, Channel, DeliveryBounced, fingerprint
from shared.correlation import correlated, current
from shared.database import Database, is_transient
from shared.messaging.outbox import outbox_row

log = structlog.get_logger()

REPEAT_AFTER_S = 0.5
REFUSALS_BORNE = 3

Finished = tuple[Claimed, Outcome]


class Journal:
    """Records outcomes and beginnings of one sender process on one channel, one group at a time.

    `exhausted`: the last group found less that was due than was wanted.
    """

    def __init__(
        self, database: Database, clock: Clock, channel: Channel, *, repeated_lanes: frozenset[int], retry_scale: float
    ) -> None:
        self._database = database
        self._clock = clock
        self._channel = channel
        self._repeated_lanes = repeated_lanes
        self._retry_scale = retry_scale
        self._commit: GroupCommit = (
            SqliteGroupCommit(database, clock) if database.is_sqlite else PostgresGroupCommit(database)
        )
        self._out: set[UUID] = set()
        self._aside: list[Claimed] = []
        self._unsure = False
        self.exhausted = True
        self.owner = ""

    async def write(
        self, finished: Sequence[Finished], wanted: int, *, ahead: bool = False, starting: Sequence[Claimed] = ()
    ) -> list[Claimed]:
        """Record `finished` and begin up to `wanted` others; returns those when all is on disk. What is claimed `ahead`
        has not begun, and does with the group that it is `starting` in. Of these, those that may not go are ours no
        more.

        An outcome must not be lost to a database that is away for a while: it comes again until it is there. Without
        outcomes in hand it does not wait, and begins nothing.
        """
        ended = [self._judge(row, outcome) for row, outcome in finished]
        bounces = [self._bounce(one) for one in ended if one.verdict.state is BOUNCED]
        self.exhausted = True
        refusals = 0
        while refusals <= REFUSALS_BORNE:
            try:
                return await self._written(ended, bounces, wanted, ahead=ahead, starting=starting)
            except Exception as error:  # noqa: BLE001 - see above
                self._unsure = True
                if not ended:
                    log.warning("claim_failed", channel=str(self._channel), error=type(error).__name__)
                    self._aside += starting
                    return []
                log.warning("outcomes_wait_for_database", outcomes=len(ended), error=type(error).__name__)
                refusals += not is_transient(error)
                await asyncio.sleep(REPEAT_AFTER_S)
        for one in ended:
            await self._write_alone(one)
        self._aside += starting
        return []

    async def give_back(self, rows: Sequence[Claimed]) -> None:
        """These were claimed, and nothing of them was sent. What cannot be written now comes with a later group."""
        self._aside += rows
        ids = [row.id for row in self._aside]
        if not ids:
            return
        try:
            async with self._database.transaction(quiet=True) as session:
                await leases.set_aside(session, self._database, self.owner, ids)
        except Exception as error:  # noqa: BLE001 - they are ours until then, and go nowhere
            log.warning("claim_failed", channel=str(self._channel), error=type(error).__name__)
        else:
            self._aside.clear()
            self._out.difference_update(ids)

    async def close(self) -> None:
        """Let go of the database, and of what is in hand: whoever takes over has it."""
        self._out.clear()
        self._aside.clear()
        await self._commit.close()

    async def _written(
        self,
        ended: Sequence[Ended],
        bounces: Sequence[dict[str, Any]],
        wanted: int = 0,
        *,
        ahead: bool = False,
        starting: Sequence[Claimed] = (),
    ) -> list[Claimed]:
        lost = await self._never_heard_of() if self._unsure else []
        group = Group(
            ended=ended,
            fared=health.fared(ended) if self._channel is Channel.WEBHOOK else [],
            bounces=bounces,
            channel=self._channel,
            owner=self.owner,
            wanted=max(wanted - len(lost), 0),
            ahead=ahead,
            starting=[row.id for row in starting],
        )
        rows = [*lost, *await self._commit.write(group)]
        self._unsure = False
        started = set(group.starting)
        self.exhausted = sum(row.id not in started for row in rows) < wanted
        self._out.difference_update(one.row.id for one in ended)
        self._out.difference_update(started)
        self._out.update(row.id for row in rows)
        if bounces:
            # Only a bounce leaves something for others to do at once (its event); what is due later is polled for.
            # Waking everybody after every handful of mails would cost more than the mails.
            self._database.wake()
        barred = {row.id: row for row in rows if row.begun_at is None and (not ahead or row.id in started)}
        if barred or self._aside:
            await self.give_back(list(barred.values()))
        return [row for row in rows if row.id not in barred]

    async def _never_heard_of(self) -> list[Claimed]:
        """What a commit claimed for us whose answer was lost with the connection."""
        async with self._database.reading() as session:
            return [row for row in await leases.held(session, self.owner) if row.id not in self._out]

    async def _write_alone(self, one: Ended) -> None:
        """One outcome that the database refuses for what it is must hold up no other. What it may refuse is the
        receiver's words, so it is written without them; where that fails too, the worker starts anew.
        """
        bounces = [self._bounce(one)] if one.verdict.state is BOUNCED else []
        try:
            await self._written([one], bounces)
        except Exception as error:  # noqa: BLE001 - whatever it was, the words may have been it
            log.error("reply_not_recorded", delivery_id=str(one.row.id), error=type(error).__name__)
            bare = one._replace(outcome=replace(one.outcome, reply="", enhanced="", phase=""))
            await self._written([bare], bounces)

    def _bounce(self, one: Ended) -> dict[str, Any]:
        row = one.row
        event = DeliveryBounced(
            delivery_id=row.id,
            recipient_id=row.recipient_id,
            kind=BounceKind.HARD,
            status=one.outcome.enhanced,
            address_fingerprint=fingerprint(row.recipient_id, row.address) if row.address else "",
        )
        with correlated(one.outcome.trail or current()):
            return outbox_row(event, source="distributor", subject=row.subject_id, at=self._clock.now())

    def _judge(self, row: Claimed, outcome: Outcome) -> Ended:
        verdict = decide(
            self._channel,
            outcome,
            attempts=row.attempts + int(outcome.counts),
            repeats=row.repeats + int(row.leased_from == "uncertain"),
            repeat_doubtful=row.lane in self._repeated_lanes,
        )
        wait = jittered(verdict.wait, self._retry_scale) if verdict.wait is not None else None
        if verdict.state is not SENT:
            with correlated(outcome.trail or current()):
                _tell(row, outcome, verdict, wait)
        return Ended(row, outcome, verdict, wait)


def _tell(row: Claimed, outcome: Outcome, verdict: Verdict, wait: timedelta | None) -> None:
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
