"""The consumer: turns a message into one transaction, and whatever goes wrong into a value.

A message is decoded, its handler runs in a transaction, the transaction commits, and only then is the message
acknowledged; so a handler may run twice, and it is the unique indexes that make it safe. What cannot be decoded,
is of a version that we do not know, or tells of news that is none any more, is parked at once. What raises is tried
five times in under two minutes and then parked. A fault that is not the message's own (the database is away) waits
without counting.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

import structlog
from prometheus_client import Counter
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from shared import correlation
from shared.clock import Clock
from shared.contracts.envelope import Envelope, Event
from shared.database import Database, is_transient, lost_a_race
from shared.messaging import dead_letters
from shared.messaging.bus import Ack, DeadLetter, Incoming, Outcome, Retry
from shared.messaging.topology import RETRY_DELAYS_S, Queue

log = structlog.get_logger()

UNDECODABLE, TOO_LARGE, FROM_THE_FUTURE, UNKNOWN_TYPE, INVALID_DATA, TOO_OLD, EXHAUSTED, GIVEN_UP = (
    "undecodable",
    "too_large",
    "from_the_future",
    "unknown_type",
    "invalid_data",
    "too_old",
    "retries_exhausted",
    "broker_gave_up",
)

TRIES = len(RETRY_DELAYS_S) + 1
HANDLING_LIMIT_S = 30.0
"""Longer than any statement may take. A handler that hangs would otherwise hold its queue up for ever."""
PAUSE_S = 1.0
"""While the database is away every message of the queue would be sent round and round; this slows it down."""

MAX_BODY_BYTES = 8_000_000
"""Ten times the largest of ours: 500 recipients with their links, and an item of 50,000 characters in two forms."""
AHEAD = timedelta(days=1)
"""No clock of ours is wrong by so much: whoever wrote it is none of ours, or nothing of it can be believed."""

DEADLOCKS_BORNE = 3

handled_total = Counter("budkavle_messages_total", "Messages by queue and outcome", ["queue", "outcome"])

E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class Received(Generic[E]):
    """An event with the envelope it came in."""

    event: E
    envelope: Envelope


# `Any` stands for the event type that the handler is registered for.
Handler = Callable[[AsyncSession, Received[Any]], Awaitable[Outcome | None]]


class HandlerHung(Exception):
    """The handler was stopped because it did not come to an end."""


class _Undone(Exception):
    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


class Consumer:
    """Handles one queue's messages. `routes` names a handler for each event type that the queue may bring."""

    def __init__(
        self,
        queue: Queue,
        database: Database,
        clock: Clock,
        routes: Mapping[type[Event], Handler],
        *,
        limit_s: float = HANDLING_LIMIT_S,
    ) -> None:
        self.queue = queue
        self._limit_s = limit_s
        self._database = database
        self._clock = clock
        self._routes = {kind.event_type(): (kind, handler) for kind, handler in routes.items()}
        _counted(queue, DeadLetter)  # from nought: the alarm hears a number grow, not one that comes up as a one

    async def receive(self, incoming: Incoming) -> Ack | Retry:
        """Handle one message; never raises, except when cancelled."""
        envelope, outcome = self._open(incoming)
        if envelope is None:
            return await self._conclude(incoming, outcome, "")
        with correlation.correlated(correlation.Correlation(envelope.correlationid, envelope.traceparent)):
            if isinstance(outcome, Ack):
                outcome = await self._handle(envelope, incoming)
            return await self._conclude(incoming, outcome, envelope.type)

    def _open(self, incoming: Incoming) -> tuple[Envelope | None, Outcome]:
        if len(incoming.body) > MAX_BODY_BYTES:
            return None, DeadLetter(TOO_LARGE, f"{len(incoming.body)} bytes of at most {MAX_BODY_BYTES}")
        try:
            envelope = Envelope.model_validate_json(incoming.body)
        except ValidationError as error:
            return None, DeadLetter(UNDECODABLE, _summary(error))
        if incoming.given_up:
            return envelope, DeadLetter(GIVEN_UP, "the broker's delivery limit was reached")
        if envelope.type not in self._routes:
            return envelope, DeadLetter(UNKNOWN_TYPE, f"no handler for {envelope.type}")
        return envelope, self._timely(envelope)

    def _timely(self, envelope: Envelope) -> Outcome:
        """Whether it comes at a time at which it can be believed, and still means something."""
        age = self._clock.now() - (envelope.replayedtime or envelope.time)
        kind, _ = self._routes[envelope.type]
        if age < -AHEAD:
            return DeadLetter(FROM_THE_FUTURE, f"written at {envelope.time.isoformat()}")
        if kind.stale_after and age > kind.stale_after:
            return DeadLetter(TOO_OLD, f"said {age.days} days ago; replay it if it should still go out")
        return Ack()

    async def _handle(self, envelope: Envelope, incoming: Incoming) -> Outcome:
        kind, handler = self._routes[envelope.type]
        try:
            event = kind.model_validate(envelope.data)
        except ValidationError as error:
            return DeadLetter(INVALID_DATA, _summary(error))
        try:
            await self._transact_again(handler, Received(event, envelope))
        except _Undone as undone:
            return _bounded(undone.outcome, incoming)
        except Exception as error:  # noqa: BLE001 - whatever it was, the message must not be lost
            return await self._after_failure(error, incoming)
        return Ack()

    async def _transact_again(self, handler: Handler, received: Received[Event]) -> None:
        """A deadlock has ended with its loser: doing the whole once more will pass."""
        for _ in range(DEADLOCKS_BORNE):
            try:
                return await self._transact(handler, received)
            except DBAPIError as error:
                if not lost_a_race(error):
                    raise
        return await self._transact(handler, received)

    async def _transact(self, handler: Handler, received: Received[Event]) -> None:
        limit = asyncio.timeout(self._limit_s)
        try:
            async with limit, self._database.transaction() as session:
                outcome = await handler(session, received) or Ack()
                if not isinstance(outcome, Ack):
                    raise _Undone(outcome)
        except TimeoutError as error:
            if limit.expired():
                raise HandlerHung(f"not done in {self._limit_s:g} s") from error
            raise

    async def _after_failure(self, error: Exception, incoming: Incoming) -> Outcome:
        if is_transient(error):
            log.warning("message_waits", queue=self.queue.name, error=type(error).__name__)
            await asyncio.sleep(PAUSE_S)
            return Retry(RETRY_DELAYS_S[1], counts=False)
        if incoming.attempt < TRIES:
            log.warning("message_handling_failed", queue=self.queue.name, attempt=incoming.attempt, exc_info=error)
            return Retry(RETRY_DELAYS_S[incoming.attempt - 1])
        return DeadLetter(EXHAUSTED, f"{type(error).__name__}: {error}")

    async def _conclude(self, incoming: Incoming, outcome: Outcome, event_type: str) -> Ack | Retry:
        _counted(self.queue, type(outcome)).inc()
        if not isinstance(outcome, DeadLetter):
            return outcome
        try:
            async with self._database.transaction() as session:
                key = await dead_letters.park(
                    session, self.queue.name, incoming, outcome, event_type, self._clock.now()
                )
        except Exception as error:  # noqa: BLE001 - without the store, the broker keeps it
            log.warning("dead_letter_store_failed", queue=self.queue.name, error=type(error).__name__)
            await asyncio.sleep(PAUSE_S)
            return Retry(RETRY_DELAYS_S[1], counts=False)
        log.error(
            "message_parked", queue=self.queue.name, dead_letter_id=str(key), reason=outcome.reason, type=event_type
        )
        return Ack()


def _bounded(outcome: Outcome, incoming: Incoming) -> Outcome:
    """A handler that asks for one try after the other gets no more of them than one that raises."""
    if isinstance(outcome, Retry) and outcome.counts and incoming.attempt >= TRIES:
        return DeadLetter(EXHAUSTED, "the handler asked for another try")
    return outcome


def _summary(error: ValidationError) -> str:
    """What was wrong, without the input: it may hold addresses."""
    details: Sequence[str] = [
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
        for problem in error.errors(include_input=False, include_url=False)[:10]
    ]
    return "; ".join(details)


def _counted(queue: Queue, outcome: type[Outcome]) -> Counter:
    return handled_total.labels(queue.name, outcome.__name__.lower())
