"""Faults that last, each by the alarm that it must raise and no other: what begins it, what goes on meanwhile, what mends it.

None feeds the alarm a number: something is broken, and the services say of themselves what they find.
"""

import asyncio
import sys
from dataclasses import dataclass
from uuid import UUID, uuid4

import aio_pika
import httpx2
import psycopg
from sqlalchemy import make_url
from tests.deployments import SECRET_KEY, SERVICES, Distributed
from tests.desk import CONTENT
from tests.eventually import eventually
from tests.resilience.acts import Act, broker, database, off_the_loop
from tests.resilience.faketime import WRONG_CLOCK, faketime_library
from tests.resilience.scene import HOOK, NEWSROOMS, Scene
from tests.servers.postgres import plain

from distributor.bounces.return_path import ReturnPaths
from distributor.webhooks.urls import CANARY_PATH
from shared.messaging.topology import DISTRIBUTOR_NEWS, NEWS, QUEUES

NOTICED_WITHIN_S = 150.0
"""The rules wait a minute; what they are told of is noticed before that, within half a minute at most."""
BOMBS = 400
"""For one address: five an hour are within its limit."""
BOUNCES = "studs@forbundet.example"


async def _nothing(_: Scene) -> None:
    pass


@dataclass(frozen=True)
class Fault:
    """What alone sounds, and when. Without `is_published_under` nothing can be published while it lasts; `goes_on` is done
    again and again until the alarm sounds. One that looks back over minutes does not fall silent at once."""

    alarm: str
    begin: Act
    mend: Act
    goes_on: Act = _nothing
    is_published_under: bool = True
    sounds_within_s: float = NOTICED_WITHIN_S
    falls_silent: bool = True


def _each_distributor(act: str) -> Act:
    return off_the_loop(lambda scene: [getattr(one, act)() for one in scene.deployment.replicas["distributor"]])


def _as_owner(service: str, statement: str) -> Act:
    """In the service's database, as whoever owns its tables."""
    return off_the_loop(lambda scene: _distributed(scene).execute(service, statement))


def _distributed(scene: Scene) -> Distributed:
    assert isinstance(scene.deployment, Distributed)
    return scene.deployment


async def _relay_away(scene: Scene) -> None:
    scene.deployment.mail_link.close()


async def _relay_back(scene: Scene) -> None:
    scene.deployment.mail_link.lead_to(scene.inboxes.port)


async def _distributor_again(scene: Scene, **environment: str) -> None:
    for replica in scene.deployment.replicas["distributor"]:
        await asyncio.to_thread(replica.again, **environment)


async def _clock_wrong(scene: Scene) -> None:
    await _distributor_again(scene, **WRONG_CLOCK, LD_PRELOAD=faketime_library(), FAKETIME="-90")


async def _clock_right(scene: Scene) -> None:
    await _distributor_again(scene, LD_PRELOAD="")


async def _poison(scene: Scene) -> None:
    distributed = _distributed(scene)
    async with await aio_pika.connect(distributed.amqp_url) as connection:
        channel = await connection.channel()
        message = aio_pika.Message(b"\x00\xff{", message_id=str(uuid4()))
        await channel.default_exchange.publish(message, f"{distributed.namespace}.{DISTRIBUTOR_NEWS.name}")


async def _poison_put_aside(scene: Scene) -> None:
    for service in SERVICES:
        await asyncio.to_thread(_distributed(scene).execute, service, "DELETE FROM dead_letters")


async def _news_lead_nowhere(scene: Scene) -> None:
    """Somebody took the bindings of news away, and the right to put them back."""
    distributed = _distributed(scene)
    exchange = f"{distributed.namespace}.{NEWS}"
    async with await aio_pika.connect(distributed.amqp_url) as connection:
        channel = await connection.channel()
        for bound in (queue for queue in QUEUES if queue.exchange == NEWS):
            queue = await channel.get_queue(f"{distributed.namespace}.{bound.name}")
            for key in bound.keys:
                await queue.unbind(exchange, key)
    await _rights(scene, f"^(?!{distributed.namespace}\\.{NEWS}$)")


async def _rights(scene: Scene, read: str = ".*") -> None:
    assert scene.broker is not None
    await asyncio.to_thread(scene.broker.control, "set_permissions", "guest", ".*", ".*", read)


class _ForgottenTransaction:
    """Somebody looked at deliveries in a transaction of their own, with FOR UPDATE, and went home."""

    def __init__(self) -> None:
        self._theirs: psycopg.Connection | None = None

    async def begin(self, scene: Scene) -> None:
        """The intranet puts a webhook off; before the next try its row is somebody else's."""
        scene.intranet.always(HOOK, 503)
        await scene.publish_to_few()
        self._theirs = psycopg.connect(_distributed(scene).owner_url("distributor"))
        await eventually(self._has_a_row, every=0.01)
        scene.intranet.always(HOOK, 204)

    def _has_a_row(self) -> bool:
        assert self._theirs is not None
        looked = self._theirs.execute("SELECT id FROM deliveries WHERE state = 'deferred' FOR UPDATE SKIP LOCKED")
        found = looked.fetchall()
        if not found:
            self._theirs.rollback()
        return bool(found)

    async def end(self, _: Scene) -> None:
        assert self._theirs is not None
        self._theirs.close()


async def _ask_for_items(scene: Scene) -> None:
    answer = await scene.desk.api.get(f"{CONTENT}/items")
    assert answer.status_code >= 500, answer.text


async def _bomb(scene: Scene) -> None:
    """A machine fills in the form with one victim's address."""
    form = {"email": "offer@folk.example"}
    scene.oracle.askers.add(form["email"])
    origin = {"Origin": scene.deployment.url}
    for _ in range(BOMBS):
        answer = await scene.desk.api.post("/prenumerera", data=form, headers=origin)
        assert answer.status_code in (200, 429), answer.text


async def _put_back_from_a_backup(scene: Scene) -> None:
    """One of eleven minutes ago: it is made now, and dated so."""
    distributed, server = _distributed(scene), scene.database
    assert server is not None
    await scene.end("distributor")
    await asyncio.to_thread(_put_back, plain(server.url), make_url(distributed.owner_url("distributor")).database or "")
    earlier = "UPDATE ledger_home SET seen_at = seen_at - interval '11 minutes'"
    await asyncio.to_thread(distributed.execute, "distributor", earlier)
    await scene.start("distributor")


def _put_back(server: str, name: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        for statement in (
            f"CREATE DATABASE backup TEMPLATE {name}",
            f"DROP DATABASE {name} WITH (FORCE)",
            f"ALTER DATABASE backup RENAME TO {name}",
        ):
            connection.execute(statement.encode())


async def _say_that_it_was_only_moved(scene: Scene) -> None:
    await asyncio.to_thread(_distributed(scene).budkavle, "restored", "--send")


class _LostMail:
    """One newsroom is the canary, and its mail server takes mails and keeps them from us."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    async def begin(self, scene: Scene) -> None:
        found = f"SELECT id FROM subscribers WHERE address = '{NEWSROOMS[0]}'"
        self._told = {
            "BUDKAVLE_BOUNCE_ADDRESS": BOUNCES,
            "BUDKAVLE_CANARY_SUBSCRIBER": await _id(scene, "subscriptions", found),
        }
        await _as_if_days_ago(scene)  # what went out before has no return path of its own
        await _distributor_again(scene, **self._told)

    async def end(self, scene: Scene) -> None:
        """They are found, and brought in as by a mail server's pipe."""
        sent = f"SELECT subject_id, id FROM deliveries WHERE channel = 'mail' AND address = '{NEWSROOMS[0]}'"
        deliveries = dict(await asyncio.to_thread(scene.deployment.ask, "distributor", sent))
        for mail in [mail for mail in scene.inboxes.mails if mail.to == NEWSROOMS[0]]:
            return_path = ReturnPaths(BOUNCES, [SECRET_KEY]).of(deliveries[UUID(mail.item)])
            await self._pipe(scene, f"Return-Path: <{return_path}>\r\n".encode() + mail.content)
        await _seen(scene)
        await _distributor_again(scene, **dict.fromkeys(self._told, ""))

    async def _pipe(self, scene: Scene, mail: bytes) -> None:
        environment = scene.deployment.environment("distributor") | self._told
        command = (sys.executable, "-m", "distributor.bounces")
        pipe = await asyncio.create_subprocess_exec(*command, env=environment, stdin=asyncio.subprocess.PIPE)
        await pipe.communicate(mail)
        assert pipe.returncode == 0


class _LostWebhooks:
    """One intranet is the canary, and what it takes does not come to us."""

    async def begin(self, scene: Scene) -> None:
        canary = await _id(scene, "distributor", f"SELECT id FROM endpoints WHERE url LIKE '%{HOOK}'")
        await _as_if_days_ago(scene)
        await _distributor_again(scene, BUDKAVLE_CANARY_ENDPOINT=canary)

    async def end(self, scene: Scene) -> None:
        """They are handed on as they came."""
        async with httpx2.AsyncClient(base_url=scene.deployment.url) as stranger:
            for told in [told for told in scene.told if told.path == HOOK]:
                headers = {name: value for name, value in told.header_map.items() if name.startswith("webhook-")}
                answer = await stranger.post(CANARY_PATH, content=told.body, headers=headers)
                assert answer.status_code == 204, answer.text
        await _seen(scene)
        await _distributor_again(scene, BUDKAVLE_CANARY_ENDPOINT="")


async def _id(scene: Scene, service: str, question: str) -> str:
    return str((await asyncio.to_thread(scene.deployment.ask, service, question))[0][0])


async def _as_if_days_ago(scene: Scene) -> None:
    await _as_owner("distributor", "UPDATE deliveries SET changed_at = changed_at - interval '2 days'")(scene)


async def _seen(scene: Scene) -> None:
    await eventually(lambda: scene.deployment.metric("distributor", "budkavle_canary_missing") == 0, within=60, every=1)


_lost_mail, _lost_webhooks = _LostMail(), _LostWebhooks()
_forgotten = _ForgottenTransaction()
FAULTS = {
    "a_service_is_gone": Fault(
        "BudkavleServiceAway", lambda scene: scene.kill("distributor"), lambda scene: scene.start("distributor")
    ),
    "a_service_hangs": Fault("BudkavleServiceAway", _each_distributor("pause"), _each_distributor("resume")),
    "the_broker_is_gone": Fault("BudkavleBrokerRefuses", broker("kill"), broker("start")),
    "the_broker_hangs": Fault("BudkavleBrokerRefuses", broker("pause"), broker("resume")),
    "the_broker_is_full": Fault("BudkavleBrokerRefuses", broker("raise_memory_alarm"), broker("clear_memory_alarm")),
    "the_database_is_gone": Fault(
        "BudkavleDatabaseAway", database("stop_immediately"), database("start"), is_published_under=False
    ),
    "the_database_hangs": Fault(
        "BudkavleDatabaseAway", database("pause"), database("resume"), is_published_under=False
    ),
    "the_relay_is_gone": Fault("BudkavleChannelPaused", _relay_away, _relay_back),
    # Ten minutes after they were sent, which these services take for one, and one minute more.
    "a_relay_loses_mail": Fault("BudkavleCanaryMissing", _lost_mail.begin, _lost_mail.end, sounds_within_s=240),
    "webhooks_are_lost": Fault("BudkavleCanaryMissing", _lost_webhooks.begin, _lost_webhooks.end, sounds_within_s=240),
    "a_clock_is_wrong": Fault("BudkavleClockWrong", _clock_wrong, _clock_right),
    # It counts the last quarter of an hour.
    "a_message_is_given_up": Fault("BudkavleMessagesGivenUp", _poison, _poison_put_aside, falls_silent=False),
    "news_lead_nowhere": Fault("BudkavleEventsWait", _news_lead_nowhere, _rights, sounds_within_s=60),
    # Due for a quarter of an hour without an attempt, and then five minutes more.
    "a_transaction_is_forgotten": Fault(
        "BudkavleDeliveriesStalled",
        _forgotten.begin,
        _forgotten.end,
        is_published_under=False,
        sounds_within_s=1500,
    ),
    # For ten minutes; it counts the last five.
    "a_right_is_taken_away": Fault(
        "BudkavleServerErrors",
        _as_owner("content", "REVOKE SELECT ON items FROM content"),
        _as_owner("content", "GRANT SELECT ON items TO content"),
        goes_on=_ask_for_items,
        is_published_under=False,
        sounds_within_s=800,
        falls_silent=False,
    ),
    # It counts the last ten minutes; the limits, the last hour.
    "a_form_is_filled_in_by_machine": Fault(
        "BudkavleListBomb", _bomb, _as_owner("subscriptions", "DELETE FROM tallies"), falls_silent=False
    ),
    "a_ledger_is_put_back": Fault("BudkavleLedgerRestored", _put_back_from_a_backup, _say_that_it_was_only_moved),
}
