"""Webhooks from the ledger's port to a real receiver, with endpoints in a real database."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from standardwebhooks.webhooks import Webhook
from tests.eventually import eventually
from tests.integration.distributor.conftest import snapshot
from tests.servers.receiver import CUT, HANG, Answer, HttpReceiver, redirect

from distributor.channels import Content, Dispatch, Fault
from distributor.settings import DistributorSettings
from distributor.webhooks import endpoints, targets
from distributor.webhooks.models import DisabledReason, Endpoint
from distributor.webhooks.sending import SLOTS_PER_ENDPOINT, WebhookSender, seal_of
from distributor.webhooks.signing import new_secret
from shared.clock import FixedClock, SystemClock
from shared.contracts.delivery import Channel, DeliveryState
from shared.contracts.mail import Form, Lane, SubjectKind
from shared.contracts.news import ItemState
from shared.database import Database

CLOCK = SystemClock()
WANTED = {
    "name": "Insidan",
    "organisation": "Nybro kommun",
    "contact_email": "webb@nybro.example",
    "audiences": ["agency_official"],
    "municipalities": [],
    "topics": [],
}


@dataclass
class Desk:
    """A sender with its database and a receiver to send to."""

    settings: DistributorSettings
    database: Database
    receiver: HttpReceiver
    sender: WebhookSender
    secrets: dict[UUID, str] = field(default_factory=dict)

    async def endpoint(self, path: str = "/hook", *, url: str = "") -> UUID:
        secret = new_secret()
        wanted = {**WANTED, "url": url or self.receiver.url(path)}
        async with self.database.transaction() as session:
            endpoint_id = await endpoints.register(session, wanted, secret, seal=seal_of(self.settings), at=CLOCK.now())
        self.secrets[endpoint_id] = secret
        return endpoint_id

    async def stored(self, endpoint_id: UUID) -> Endpoint:
        async with self.database.reading() as session:
            found = await endpoints.find(session, endpoint_id)
        assert found is not None
        return found


def settings_for(database_url: str, **changes: Any) -> DistributorSettings:
    fields = {
        "database_url": database_url,
        "broker_url": "embedded:x",
        "secret_keys": "k" * 40,
        "webhook_allow_loopback": True,
        "webhook_timeout_s": 5,
    }
    return DistributorSettings(**{**fields, **changes})


@pytest.fixture
async def desk(database_url: str, http_receiver: HttpReceiver) -> AsyncIterator[Desk]:
    settings = settings_for(database_url)
    database = Database(database_url)
    sender = WebhookSender(settings, database, CLOCK)
    yield Desk(settings, database, http_receiver, sender)
    await sender.close()
    await database.dispose()


def dispatch(
    endpoint_id: UUID, *, state: ItemState = ItemState.PUBLISHED, form: Form = Form.NEWS, note: str = ""
) -> Dispatch:
    item = snapshot(uuid4(), state=state, body_text="Brödtexten", body_html="<p>Brödtexten</p>")
    content = Content(SubjectKind.ITEM, item.item_id, 1, item, note, correlation_id="c-1")
    return Dispatch(uuid4(), Channel.WEBHOOK, endpoint_id, form, Lane.NEWS, content, CLOCK.now(), attempt=1)


async def test_a_webhook_verifies_and_tells_the_item(desk: Desk) -> None:
    endpoint_id = await desk.endpoint()
    told = dispatch(endpoint_id)
    outcome = await desk.sender.send(told)
    assert (outcome.state, outcome.code) == (DeliveryState.SENT, 204)
    (request,) = desk.receiver.requests
    event = Webhook(desk.secrets[endpoint_id]).verify(request.body, request.header_map)
    assert event["type"] == "se.budkavle.news.published.v1"
    assert event["data"]["title"] == "Fler vägar tillbaka till arbete"
    assert request.header("webhook-id") == str(told.delivery_id)
    assert request.header("content-type") == "application/cloudevents+json; charset=utf-8"


async def test_a_withdrawal_carries_no_text(desk: Desk) -> None:
    endpoint_id = await desk.endpoint()
    await desk.sender.send(dispatch(endpoint_id, state=ItemState.WITHDRAWN, form=Form.WITHDRAWAL, note="Fel uppgift"))
    (request,) = desk.receiver.requests
    event = Webhook(desk.secrets[endpoint_id]).verify(request.body, request.header_map)
    assert event["type"] == "se.budkavle.news.withdrawn.v1"
    assert event["data"]["reason"] == "Fel uppgift"
    assert "Brödtexten" not in request.body.decode()


async def test_a_repeat_has_the_same_id_and_bytes_and_a_time_of_its_own(desk: Desk) -> None:
    clock = FixedClock(CLOCK.now() - timedelta(seconds=60))
    sender = WebhookSender(desk.settings, desk.database, clock)
    endpoint_id = await desk.endpoint()
    desk.receiver.script("/hook", 500, 200)
    first = dispatch(endpoint_id)
    assert (await sender.send(first)).state is DeliveryState.DEFERRED
    clock.advance(timedelta(seconds=30))
    content = replace(first.content)
    assert content is not first.content
    assert (await sender.send(first._replace(content=content, attempt=2))).state is DeliveryState.SENT
    await sender.close()
    one, two = desk.receiver.requests
    assert (one.body, one.header("webhook-id")) == (two.body, two.header("webhook-id"))
    assert int(two.header("webhook-timestamp") or 0) - int(one.header("webhook-timestamp") or 0) == 30
    for request in (one, two):
        Webhook(desk.secrets[endpoint_id]).verify(request.body, request.header_map)


async def test_410_disables_the_endpoint_and_nothing_more_is_sent(desk: Desk) -> None:
    endpoint_id = await desk.endpoint()
    desk.receiver.always("/hook", 410)
    assert (await desk.sender.send(dispatch(endpoint_id))).state is DeliveryState.FAILED
    stored = await desk.stored(endpoint_id)
    assert (stored.state, stored.disabled_reason) == ("disabled", "gone")
    later = await desk.sender.send(dispatch(endpoint_id))
    assert (later.state, later.reply) == (DeliveryState.FAILED, "the endpoint is disabled")
    assert len(desk.receiver.requests) == 1


async def test_a_change_counts_within_a_second(desk: Desk) -> None:
    endpoint_id = await desk.endpoint()
    assert (await desk.sender.send(dispatch(endpoint_id))).state is DeliveryState.SENT
    async with desk.database.transaction() as session:
        await endpoints.disable(session, endpoint_id, DisabledReason.BY_HAND, CLOCK.now())
    changed_at = time.monotonic()

    async def refused() -> bool:
        return (await desk.sender.send(dispatch(endpoint_id))).state is DeliveryState.FAILED

    await eventually(refused, within=5)
    assert time.monotonic() - changed_at < 1.3  # a second, and a slow machine


async def test_endpoints_that_are_used_are_read_together(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """One read for all that were asked for at once; later, what grows old goes along with whatever must be read."""
    keys = [await desk.endpoint(f"/hook/{number}") for number in range(6)]
    reads: list[set[UUID]] = []
    read = endpoints.targets

    async def counted(session: Any, asked: Any, at: Any) -> Any:
        reads.append(set(asked))
        return await read(session, asked, at)

    monkeypatch.setattr(endpoints, "targets", counted)
    book = targets.TargetBook(desk.database, CLOCK)
    found = await asyncio.gather(*(book.find(key) for key in [*keys, uuid4()]))
    assert [target.url for target in found[:-1] if target] == [desk.receiver.url(f"/hook/{n}") for n in range(6)]
    assert found[-1] is None
    assert len(reads) == 1
    assert set(keys) < reads[0]
    monkeypatch.setattr(targets, "FRESH_S", -1)
    monkeypatch.setattr(targets, "OLD_S", -1)
    await book.find(keys[0])
    assert set(keys) < reads[1]
    monkeypatch.setattr(targets, "LATELY_S", -1)
    await book.find(keys[0])
    assert reads[2:] == [{keys[0]}]
    await book.close()


async def test_a_deleted_endpoint_is_not_called(desk: Desk) -> None:
    outcome = await desk.sender.send(dispatch(uuid4()))
    assert (outcome.state, outcome.reply) == (DeliveryState.FAILED, "the endpoint is deleted")


@pytest.mark.parametrize("answer", [404, 500, 401, redirect("http://169.254.169.254/"), CUT], ids=str)
async def test_other_answers_are_tried_again(desk: Desk, answer: int | Answer) -> None:
    desk.receiver.always("/hook", answer)
    endpoint_id = await desk.endpoint()
    outcome = await desk.sender.send(dispatch(endpoint_id))
    assert (outcome.state, outcome.counts, outcome.fault) == (DeliveryState.DEFERRED, True, Fault.NONE)
    assert (await desk.stored(endpoint_id)).state == "enabled"


async def test_a_receiver_may_ask_for_time(desk: Desk) -> None:
    desk.receiver.always("/hook", Answer(503, {"Retry-After": "90"}, b"underh\xc3\xa5ll"))
    outcome = await desk.sender.send(dispatch(await desk.endpoint()))
    assert (outcome.retry_after, outcome.reply) == (timedelta(seconds=90), "underhåll")


async def test_what_may_not_be_dialled_is_given_up(database_url: str, desk: Desk) -> None:
    """The operator's setting counts when the call is made, not when the endpoint was registered."""
    sender = WebhookSender(settings_for(database_url, webhook_allow_loopback=False), desk.database, CLOCK)
    outcome = await sender.send(dispatch(await desk.endpoint()))
    await sender.close()
    assert outcome.state is DeliveryState.FAILED
    assert outcome.reply.startswith("url_not_allowed")
    assert desk.receiver.requests == []


async def test_no_connection_is_held_while_the_network_is_waited_for(desk: Desk) -> None:
    desk.receiver.always("/hook", HANG)
    task = asyncio.create_task(desk.sender.send(dispatch(await desk.endpoint())))
    await eventually(lambda: desk.receiver.requests)
    assert desk.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_tar_pit_slows_down_nobody_else(desk: Desk) -> None:
    desk.receiver.always("/pit", HANG)
    pit, others = await desk.endpoint("/pit"), [await desk.endpoint(f"/hook/{number}") for number in range(5)]
    stuck = [asyncio.create_task(desk.sender.send(dispatch(pit))) for _ in range(SLOTS_PER_ENDPOINT)]
    await eventually(lambda: len(desk.receiver.requests_to("/pit")) == SLOTS_PER_ENDPOINT)
    began = time.monotonic()
    outcomes = await asyncio.gather(*(desk.sender.send(dispatch(other)) for other in others * 4))
    assert {outcome.state for outcome in outcomes} == {DeliveryState.SENT}
    assert time.monotonic() - began < 2
    turned_away = await desk.sender.send(dispatch(pit))
    assert (turned_away.state, turned_away.counts) == (DeliveryState.DEFERRED, False)
    assert turned_away.retry_after is not None
    assert time.monotonic() - began < 4
    assert len(desk.receiver.requests_to("/pit")) == SLOTS_PER_ENDPOINT
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)
    assert len(desk.sender._crowds) == 0


async def test_own_headers_under_a_lost_key_wait_for_the_operator(database_url: str, desk: Desk) -> None:
    """Nothing goes out without them: it would only be turned away."""
    endpoint_id = await desk.endpoint()
    sealed = {"X-Api-Key": seal_of(settings_for(database_url, secret_keys="o" * 40)).close("hemligt")}
    async with desk.database.transaction() as session:
        assert await endpoints.change(session, endpoint_id, {"headers": sealed}, version=None, at=CLOCK.now())
    outcome = await desk.sender.send(dispatch(endpoint_id))
    assert (outcome.state, outcome.counts, outcome.fault) == (DeliveryState.DEFERRED, False, Fault.NONE)
    assert desk.receiver.requests == []


async def test_a_secret_under_a_lost_key_waits_for_the_operator(database_url: str, desk: Desk) -> None:
    sender = WebhookSender(settings_for(database_url, secret_keys="n" * 40), desk.database, CLOCK)
    endpoint_id = await desk.endpoint()
    outcome = await sender.send(dispatch(endpoint_id))
    await sender.close()
    assert (outcome.state, outcome.counts, outcome.fault) == (DeliveryState.DEFERRED, False, Fault.NONE)
    assert desk.receiver.requests == []
    both = WebhookSender(settings_for(database_url, secret_keys=f"{'n' * 40},{'k' * 40}"), desk.database, CLOCK)
    assert (await both.send(dispatch(endpoint_id))).state is DeliveryState.SENT
    await both.close()
