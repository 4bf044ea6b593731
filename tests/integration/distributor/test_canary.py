"""The canary, on both databases: what goes out to it is missing until it is seen there, and nothing else lets it be seen."""

import asyncio
import smtplib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog
from prometheus_client import REGISTRY
from pydantic import SecretStr
from tests.eventually import eventually
from tests.integration.distributor.conftest import CLOCK, Room, batch, people, retention_in, snapshot
from tests.integration.distributor.mail_room import said
from tests.integration.distributor.test_bounce_intake import BOUNCE_ADDRESS, EXAMPLES, HARD, listening
from tests.integration.distributor.webhook_room import URL, HookRoom, opened
from tests.servers.post import Post
from tests.servers.receiver import HttpReceiver, ReceivedRequest
from tests.servers.smtp import ReceivedMail, SmtpServer

from distributor.bounces.applying import Result
from distributor.bounces.intake import Intake
from distributor.bounces.mailbox import MailboxWorker
from distributor.canary import CanaryWorker
from distributor.ledger import arrivals
from distributor.mail.sending import MailSender
from distributor.settings import DistributorSettings
from distributor.webhooks.urls import CANARY_PATH
from shared.contracts.mail import Form, Lane, MailRequested, RequestContent, SubjectKind
from shared.database import Database


class Cage:
    """A canary among readers, and the relay that all their mail went through."""

    def __init__(self, room: Room, relay: SmtpServer) -> None:
        self.room = room
        self.relay = relay
        self.people = people(2)
        self.canary, self.reader = self.people
        self.settings: DistributorSettings = room.settings.model_copy(
            update={
                "bounce_address": BOUNCE_ADDRESS,
                "canary_subscriber": self.canary.recipient_id,
                "smtp_url": SecretStr(relay.url),
            }
        )
        self.intake = Intake(self.settings, room.database, CLOCK)
        self.worker = CanaryWorker(room.database, CLOCK, self.settings)

    async def send(self) -> None:
        item = snapshot(uuid4())
        await self.room.hear(batch(item, self.people))
        await self.room.drain(sender=MailSender(self.settings))  # type: ignore[arg-type]

    def mail_to(self, person: Any) -> ReceivedMail:
        return self.relay.to(person.address)[-1]

    async def missing(self) -> int:
        await self.worker.look()
        return int(REGISTRY.get_sample_value("budkavle_canary_missing", {"channel": "mail"}) or 0)

    async def misses(self, count: int) -> None:
        async def so() -> bool:
            return await self.missing() == count

        await eventually(so, within=5)


@pytest.fixture
async def cage(room: Room) -> AsyncIterator[Cage]:
    with SmtpServer() as relay:
        room.settings = room.settings.model_copy(update={"smtp_url": SecretStr(relay.url)})
        one = Cage(room, relay)
        await one.send()
        yield one


async def test_a_mail_is_missing_until_it_arrives_and_may_arrive_twice(cage: Cage, free_port: int) -> None:
    with structlog.testing.capture_logs() as logs:
        await cage.misses(1)
        await cage.misses(1)
    (line,) = said(logs, "canary_missing")
    (delivery,) = await cage.room.rows(recipient_id=cage.canary.recipient_id)
    assert (line["log_level"], line["channel"], line["delivery_ids"]) == ("error", "mail", [str(delivery.id)])
    mail = cage.mail_to(cage.canary)
    async with listening(cage, free_port):  # type: ignore[arg-type]
        for words in ("arrived", "known already"):
            assert words in await asyncio.to_thread(_hand_over, free_port, mail)
    assert await cage.missing() == 0
    assert [row.delivery_id for row in await _arrivals(cage.room.database)] == [delivery.id]
    assert {row.state for row in await cage.room.rows()} == {"sent"}


def _hand_over(port: int, mail: ReceivedMail) -> str:
    """As the relay does it; gives the last word."""
    with smtplib.LMTP("127.0.0.1", port) as client:
        client.ehlo_or_helo_if_needed()
        client.mail(mail.sender)
        client.rcpt(BOUNCE_ADDRESS)
        return client.data(mail.content)[1].decode()


async def _arrivals(database: Database) -> list[Any]:
    async with database.reading() as session:
        return list((await session.execute(arrivals.select())).all())


async def test_a_mail_arrives_by_a_mailbox_that_it_was_forwarded_to(cage: Cage, free_port: int) -> None:
    mail = cage.mail_to(cage.canary)
    forwarded = f"Return-Path: <SRS0=HHH=TT=forbundet.example={mail.sender.partition('@')[0]}@mx.example>\r\n"
    post = Post([forwarded.encode() + mail.content])
    server = await post.serve("imap", free_port)
    await MailboxWorker(f"imap://u:p@127.0.0.1:{free_port}", cage.intake).visit(asyncio.Event())
    server.close()
    assert post.mails == {}
    assert len(await _arrivals(cage.room.database)) == 1


async def test_a_mail_that_overtakes_its_outcome_has_arrived(cage: Cage) -> None:
    mail = cage.mail_to(cage.canary)
    await cage.room.force(state="leased")
    assert await cage.intake.take(mail.content, [mail.sender]) is Result.ARRIVED


async def test_what_is_not_the_mail_itself_is_no_arrival(cage: Cage) -> None:
    mail, other = cage.mail_to(cage.canary), cage.mail_to(cage.reader)
    forged = mail.sender[:20] + ("a" if mail.sender[20] != "a" else "b") + mail.sender[21:]
    assert await cage.intake.take(mail.content) is Result.NOT_OURS  # nothing but a Message-ID
    assert await cage.intake.take(mail.content, [forged]) is Result.NOT_OURS
    assert await cage.intake.take(mail.content, [other.sender]) is Result.APPLIED  # under a reader's return path
    assert await cage.intake.take(other.content, [other.sender]) is Result.APPLIED  # a reader forwards theirs
    assert await cage.intake.take(b"Message-ID: <x@y>\r\n\r\n" + mail.content, [mail.sender]) is Result.APPLIED
    await cage.misses(1)
    bounce = (EXAMPLES / f"{HARD}.eml").read_bytes().replace(BOUNCE_ADDRESS.encode(), mail.sender.encode())
    assert await cage.intake.take(bounce) is Result.APPLIED
    assert [row.state for row in await cage.room.rows(recipient_id=cage.canary.recipient_id)] == ["bounced"]
    await cage.misses(1)
    assert await _arrivals(cage.room.database) == []


async def test_what_counts(cage: Cage) -> None:
    an_hour_ago, too_long_ago = CLOCK.now() - timedelta(hours=1), CLOCK.now() - timedelta(hours=25)
    for forced, count in (
        ({"state": "sent"}, 1),
        ({"state": "cancelled"}, 0),
        ({"state": "uncertain"}, 1),
        ({"state": "planned"}, 0),
        ({"state": "failed"}, 1),
        ({"state": "deferred"}, 1),
        ({"planned_at": an_hour_ago, "changed_at": CLOCK.now() + timedelta(minutes=1)}, 1),
        ({"changed_at": too_long_ago}, 0),
    ):
        await cage.room.force(**forced)
        await cage.misses(count)


async def test_within_ten_minutes_nothing_is_missing(cage: Cage) -> None:
    patient = cage.settings.model_copy(update={"retry_scale": 1.0})
    cage.worker = CanaryWorker(cage.room.database, CLOCK, patient)
    await cage.room.force(changed_at=CLOCK.now() - timedelta(minutes=9))
    assert await cage.missing() == 0
    await cage.room.force(changed_at=CLOCK.now() - timedelta(minutes=11))
    assert await cage.missing() == 1


async def test_a_mail_of_its_own_is_not_listened_for(cage: Cage) -> None:
    await cage.misses(1)
    await cage.room.hear(
        MailRequested(
            batch_id=uuid4(),
            subject_kind=SubjectKind.REQUEST,
            subject_id=uuid4(),
            revision=0,
            form=Form.CONFIRM,
            lane=Lane.TRANSACTIONAL,
            planned_at=CLOCK.now(),
            request=RequestContent(subject="Kvitto", paragraphs=("Text.",)),
            recipients=(cage.canary,),
        )
    )
    await cage.room.drain(sender=MailSender(cage.settings))  # type: ignore[arg-type]
    assert len(await cage.room.rows(recipient_id=cage.canary.recipient_id, state="sent")) == 2
    assert await cage.missing() == 1


async def test_an_arrival_goes_with_its_delivery(cage: Cage) -> None:
    mail = cage.mail_to(cage.canary)
    await cage.intake.take(mail.content, [mail.sender])
    retention = retention_in(cage.room, timedelta(days=1200))
    for _ in range(2):
        await retention.weed(asyncio.Event())
    assert await _arrivals(cage.room.database) == []


async def test_without_the_setting_the_mail_is_taken_as_before(cage: Cage) -> None:
    mail = cage.mail_to(cage.canary)
    intake = Intake(cage.settings.model_copy(update={"canary_subscriber": None}), cage.room.database, CLOCK)
    assert await intake.take(mail.content, [mail.sender]) is Result.APPLIED
    assert await _arrivals(cage.room.database) == []


@asynccontextmanager
async def _told(database_url: str, receiver: HttpReceiver) -> AsyncIterator[tuple[HookRoom, UUID, ReceivedRequest]]:
    """An endpoint is made and named as the canary; a webhook has gone to it, and is on its way."""
    async with opened(database_url) as hooks:
        key = await hooks.endpoint(receiver.url("/canary"))
        await hooks.publish()
        async with hooks.sending():
            await hooks.settled()
    async with opened(database_url, canary_endpoint=key) as hooks:
        yield hooks, key, receiver.requests[-1]


async def _missing_webhooks(hooks: HookRoom) -> int:
    await CanaryWorker(hooks.database, CLOCK, hooks.settings).look()
    return int(REGISTRY.get_sample_value("budkavle_canary_missing", {"channel": "webhook"}) or 0)


async def _post(hooks: HookRoom, body: bytes, headers: dict[str, str]) -> int:
    kept = {name: value for name, value in headers.items() if name.startswith(("webhook-", "content-type"))}
    async with hooks.stranger() as stranger:
        return (await stranger.post(CANARY_PATH, content=body, headers=kept)).status_code


async def test_a_webhook_is_missing_until_it_arrives_and_may_arrive_twice(
    database_url: str, http_receiver: HttpReceiver
) -> None:
    async with _told(database_url, http_receiver) as (hooks, _, told):
        assert await _missing_webhooks(hooks) == 1
        for _ in range(2):
            assert await _post(hooks, told.body, told.header_map) == 204
        assert await _missing_webhooks(hooks) == 0
        assert [str(row.delivery_id) for row in await _arrivals(hooks.database)] == [told.header("webhook-id")]


async def test_a_webhook_that_we_did_not_sign_is_no_arrival(database_url: str, http_receiver: HttpReceiver) -> None:
    async with _told(database_url, http_receiver) as (hooks, _, told):
        headers = told.header_map
        other = await hooks.endpoint(http_receiver.url("/other"))
        assert (await hooks.api.post(f"{URL}/{other}/test")).status_code == 200
        others = http_receiver.requests[-1]
        forgeries = (
            (told.body + b" ", headers),
            (told.body, headers | {"webhook-id": str(uuid4())}),
            (told.body, headers | {"webhook-timestamp": "1"}),
            (told.body, headers | {"webhook-signature": "v1,AAAA v1a,AAAA v1"}),
            (told.body, {name: value for name, value in headers.items() if name != "webhook-signature"}),
            (others.body, others.header_map),
            (b"", {}),
        )
        for body, forged in forgeries:
            assert await _post(hooks, body, forged) == 401
        assert await _missing_webhooks(hooks) == 1


async def test_a_sample_is_answered_and_noted_nowhere(database_url: str, http_receiver: HttpReceiver) -> None:
    async with _told(database_url, http_receiver) as (hooks, key, _):
        await hooks.api.post(f"{URL}/{key}/test")
        sample = http_receiver.requests[-1]
        assert await _post(hooks, sample.body, sample.header_map) == 204
        assert await _arrivals(hooks.database) == []


async def test_without_the_setting_there_is_no_such_place(database_url: str) -> None:
    async with opened(database_url) as hooks:
        assert await _post(hooks, b"{}", {"webhook-signature": "v1,x"}) == 404
