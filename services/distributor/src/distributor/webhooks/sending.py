"""How one webhook gets out: read the endpoint, sign, post, say how it ended.

The database is read before and written after the network, never during. A webhook may be repeated: its `webhook-id`
is the delivery's id, and receivers know it again; so whatever is in doubt is deferred, never given up.

An endpoint gets a few of the slots at most. One that is slow keeps those, and what else is due to it is put off
without counting as a try, so that it slows down nobody but itself.
"""

import asyncio
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from uuid import UUID

import structlog

from distributor.channels import Dispatch, Outcome
from distributor.settings import DistributorSettings
from distributor.webhooks import endpoints
from distributor.webhooks.body import CONTENT_TYPE, news_body
from distributor.webhooks.client import Answer, Silence, WebhookClient, Why
from distributor.webhooks.endpoints import Target
from distributor.webhooks.models import DisabledReason
from distributor.webhooks.signing import Seal, SecretUnreadable, signed_headers
from distributor.webhooks.targets import TargetBook
from shared.clock import Clock
from shared.contracts.delivery import Channel, DeliveryState
from shared.database import Database

log = structlog.get_logger()

REPLY_BYTES = 4096
LONGEST_WAIT = timedelta(hours=24)
GONE = 410
ASKS_TO_WAIT = frozenset({429, 503})

SLOTS_PER_ENDPOINT = 4
WAITING_PER_ENDPOINT = 4
"""So many more may wait for one of them; with these an endpoint holds eight of the sender's slots at most."""
WAIT_FOR_SLOT_S = 1.0
TRY_AGAIN = timedelta(seconds=3)
MENDED_BY_OPERATOR = timedelta(minutes=5)

BUSY = Outcome(
    DeliveryState.DEFERRED,
    reply="the endpoint is busy with earlier webhooks",
    phase="wait",
    retry_after=TRY_AGAIN,
    counts=False,
)


def new_client(settings: DistributorSettings, connections: int | None = None) -> WebhookClient:
    """A client that dials only where the operator's settings allow, with a connection for every slot."""
    return WebhookClient(
        settings.address_policy,
        timeout_s=settings.webhook_timeout_s,
        ca_file=settings.webhook_ca_file,
        connections=connections or settings.webhook_slots,
    )


def seal_of(settings: DistributorSettings) -> Seal:
    return Seal([key.get_secret_value() for key in settings.secret_keys])


class WebhookSender:
    """The webhooks' way out."""

    channel = Channel.WEBHOOK

    def __init__(
        self, settings: DistributorSettings, database: Database, clock: Clock, client: WebhookClient | None = None
    ) -> None:
        self.slots = settings.webhook_slots
        self._database = database
        self._clock = clock
        self._seal = seal_of(settings)
        self._client = client or new_client(settings)
        self._targets = TargetBook(database, clock)
        self._crowds = Crowds()

    @property
    def room(self) -> int:
        """Every slot may be used: each endpoint has a few of its own at most."""
        return self.slots

    async def send(self, dispatch: Dispatch) -> Outcome:
        """Post `dispatch` to its endpoint, unless the endpoint has its hands full."""
        try:
            await self._crowds.enter(dispatch.recipient_id)
        except Crowded:
            return BUSY
        try:
            return await self._deliver(dispatch)
        finally:
            self._crowds.leave(dispatch.recipient_id)

    async def close(self) -> None:
        await self._targets.close()
        await self._client.close()

    async def _deliver(self, dispatch: Dispatch) -> Outcome:
        target = await self._targets.find(dispatch.recipient_id)
        if target is None or not target.enabled:
            words = "the endpoint is deleted" if target is None else "the endpoint is disabled"
            return Outcome(DeliveryState.FAILED, reply=words, phase="prepare")
        try:
            outcome = await self._post(dispatch, target)
        except SecretUnreadable:
            log.error("endpoint_secret_unreadable", endpoint_id=str(dispatch.recipient_id))
            return unreadable()
        if outcome.code == GONE:
            await self._disable(dispatch.recipient_id)
        return outcome

    async def _post(self, dispatch: Dispatch, target: Target) -> Outcome:
        body = news_body(dispatch.content, dispatch.form, dispatch.planned_at)
        signed = Signed(str(dispatch.delivery_id), self._clock.now(), body)
        return classified(await posted(signed, target, self._client, self._seal), self._clock.now())

    async def _disable(self, endpoint_id: UUID) -> None:
        async with self._database.transaction() as session:
            disabled = await endpoints.disable(session, endpoint_id, DisabledReason.GONE, self._clock.now())
        self._targets.forget(endpoint_id)
        if disabled:
            log.warning("endpoint_disabled", endpoint_id=str(endpoint_id), reason="gone")


class Signed(NamedTuple):
    """What is signed and posted: under which id, when, and the body."""

    message_id: str
    at: datetime
    body: bytes


async def posted(signed: Signed, target: Target, client: WebhookClient, seal: Seal) -> Answer | Silence:
    """Post to `target` with the headers of its own; what its answer repeats of their values is blotted out.

    Raises `SecretUnreadable`.
    """
    own = seal.own_headers(target.headers)
    headers = signed_headers(*signed, [seal.signer(sealed) for sealed in target.sealed])
    headers["Content-Type"] = CONTENT_TYPE
    answer = await client.post(target.url, headers, signed.body, own)
    if not target.headers or isinstance(answer, Silence):
        return answer
    return replace(answer, body=own.blotted(answer.body))


class Crowded(Exception):
    """The endpoint has as many webhooks under way, and waiting, as it may have."""


class Crowds:
    """Who is with which endpoint. An endpoint that nobody is with costs nothing."""

    def __init__(self) -> None:
        self._under_way: dict[UUID, int] = {}
        self._waiting: dict[UUID, deque[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        return len(self._under_way) + len(self._waiting)

    async def enter(self, endpoint_id: UUID) -> None:
        """Take a place with the endpoint; raises `Crowded` when none is free within a second."""
        under_way = self._under_way.get(endpoint_id, 0)
        if under_way < SLOTS_PER_ENDPOINT:
            self._under_way[endpoint_id] = under_way + 1
        else:
            await self._wait(endpoint_id)

    def leave(self, endpoint_id: UUID) -> None:
        """Give the place to whoever has waited longest, if anybody has."""
        for heir in self._waiting.get(endpoint_id, ()):
            if not heir.done():
                heir.set_result(None)
                return
        left = self._under_way[endpoint_id] - 1
        if left:
            self._under_way[endpoint_id] = left
        else:
            del self._under_way[endpoint_id]

    async def _wait(self, endpoint_id: UUID) -> None:
        queue = self._waiting.setdefault(endpoint_id, deque())
        if len(queue) >= WAITING_PER_ENDPOINT:
            raise Crowded
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            async with asyncio.timeout(WAIT_FOR_SLOT_S):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn.done() and not turn.cancelled():  # the place came in the same moment
                self.leave(endpoint_id)
            if isinstance(error, TimeoutError):
                raise Crowded from error
            raise
        finally:
            queue.remove(turn)
            if not queue:
                self._waiting.pop(endpoint_id, None)


def classified(answer: Answer | Silence, now: datetime) -> Outcome:
    """What an answer, or the lack of one, means for the delivery.

    2xx is sent; 410 is failed, and the endpoint is to be disabled; an address that may not be dialled is failed.
    Everything else is tried again: an intranet under repair answers 404 for a day.
    """
    if isinstance(answer, Silence):
        state = DeliveryState.FAILED if answer.why is Why.DENIED else DeliveryState.DEFERRED
        words = readable(answer.detail.encode())
        return Outcome(state, reply=words, phase=answer.why, duration=answer.duration)
    wait = retry_after(answer.retry_after, now) if answer.status in ASKS_TO_WAIT else None
    return Outcome(
        _state(answer.status),
        code=answer.status,
        reply=readable(answer.body),
        phase="answer",
        retry_after=wait,
        duration=answer.duration,
    )


def _state(status: int) -> DeliveryState:
    if 200 <= status < 300:
        return DeliveryState.SENT
    return DeliveryState.FAILED if status == GONE else DeliveryState.DEFERRED


def retry_after(text: str | None, now: datetime) -> timedelta | None:
    """How long a receiver asks us to wait (RFC 9110, section 10.2.3), at most a day; `None` for what is no answer."""
    text = (text or "").strip()
    if text.isascii() and text.isdecimal():
        seconds = int(text[:12])  # more digits are more than a day in any case
        return min(timedelta(seconds=min(seconds, 86_400)), LONGEST_WAIT)
    try:
        until = parsedate_to_datetime(text)
        wait = (until if until.tzinfo else until.replace(tzinfo=UTC)) - now
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(wait, timedelta(0)), LONGEST_WAIT)


def readable(raw: bytes) -> str:
    """A receiver's words, at most 4 kB, with everything escaped that could act on a terminal or a log."""
    text = raw[:REPLY_BYTES].decode("utf-8", "backslashreplace")
    if text.isascii() and text.isprintable():
        return text
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
    return shown.encode()[:REPLY_BYTES].decode("utf-8", "ignore")


def unreadable() -> Outcome:
    """What a secret, or an endpoint's own header, means that cannot be opened: ours to mend, and no try that counts.

    Not called systemic: other endpoints' secrets may well be readable, and their webhooks shall not wait.
    """
    return Outcome(
        DeliveryState.DEFERRED,
        reply="the endpoint's secret or headers were sealed under a key that is no longer in BUDKAVLE_SECRET_KEYS",
        phase="prepare",
        retry_after=MENDED_BY_OPERATOR,
        counts=False,
    )
