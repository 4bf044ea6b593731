"""What two replicas of each service bear that one alone would not show: a frozen sender (F10), a wrong clock (F56), a rotation
of every key and password under load (F58). A broker and a database server of their own."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url
from tests.deployments import SERVICES, Distributed, Replica
from tests.eventually import eventually
from tests.inboxes import Inboxes
from tests.resilience.faketime import WRONG_CLOCK, faketime_library
from tests.resilience.house import Home, own_home
from tests.resilience.rotation import NEW, OLD, Keys, check_webhooks, new_webhook_secret, opened
from tests.resilience.scene import SETTINGS, Scene, asked
from tests.resilience.test_schedule_faults import scheduled
from tests.servers.postgres import PrivatePostgres, plain
from tests.servers.rabbitmq import PrivateRabbitMQ

pytestmark = pytest.mark.soak
MODES = ("run", "run")
SCHEDULED_WITHIN_S = 5.0


@pytest.fixture(scope="module")
def home(keys: Keys) -> Iterator[Home]:
    with own_home(PrivatePostgres(durable=False), modes=MODES, settings={**SETTINGS, **keys.old}) as home:
        yield home


@pytest.fixture
def distributed(scene: Scene) -> Distributed:
    assert isinstance(scene.deployment, Distributed)
    return scene.deployment


async def test_f10_a_sender_freezes_for_a_minute_and_wakes(
    scene: Scene, distributed: Distributed, new_inboxes: Callable[..., Inboxes]
) -> None:
    """The other takes over what it held; what it writes when it wakes is refused."""
    scene.inboxes = new_inboxes(scene.deployment, "--delay", "0.05")
    await scene.publish()
    await scene.until_received(100)
    frozen = distributed.replicas["distributor"][0]
    frozen.pause()
    began = time.monotonic()
    await eventually(lambda: "deliveries_taken_over" in _log(distributed.replicas["distributor"][1]), within=30)
    print(f"measured: taken over after {time.monotonic() - began:.1f} s")
    await asyncio.sleep(max(60 - (time.monotonic() - began), 0))
    frozen.resume()
    totals = await scene.check_sound(kills=1, within=90)
    await eventually(lambda: "sender_lease_lost" in _log(frozen), within=30)
    print(f"measured: {totals['repeats']} repeats")


def _log(replica: Replica) -> str:
    return replica.log.read_text(errors="replace")


@pytest.mark.parametrize("offset", ["+600", "-600"])
async def test_f56_one_replica_of_each_service_has_a_wrong_clock(
    scene: Scene, distributed: Distributed, offset: str
) -> None:
    skewed = [distributed.replicas[service][1] for service in SERVICES]
    wrong = {**WRONG_CLOCK, "LD_PRELOAD": faketime_library(), "FAKETIME": offset}
    said_before = len(_log(skewed[2]))
    try:
        await asyncio.gather(*(asyncio.to_thread(replica.again, **wrong) for replica in skewed))
        due = [await scheduled(scene, after=timedelta(seconds=10)) for _ in range(2)]
        for _ in range(4):
            await scene.publish_to_few()
        await scene.publish()
        totals = await scene.check_sound(within=120)
        assert totals["repeats"] == 0
        for item, publish_at in due:
            _check_in_time(scene, item, publish_at)
        _check_no_time_is_negative(scene)
        await eventually(lambda: '"clock_wrong"' in _log(skewed[2])[said_before:], within=30)
        assert "deliveries_taken_over" not in _log(skewed[2])[said_before:]
    finally:
        await asyncio.gather(*(asyncio.to_thread(replica.again, LD_PRELOAD="") for replica in skewed))


def _check_in_time(scene: Scene, item: str, publish_at: datetime) -> None:
    """Published at its time by the database's clock, which is this machine's, and gone out after that."""
    asked = f"SELECT published_at FROM items WHERE id = '{item}'"
    ((published_at,),) = scene.deployment.ask("content", asked)
    late_s = (published_at - publish_at).total_seconds()
    print(f"measured: published {late_s:.2f} s after its time")
    assert 0 <= late_s <= SCHEDULED_WITHIN_S
    assert min(mail.dot_at for mail in scene.inboxes.of(item)) >= publish_at.timestamp()


def _check_no_time_is_negative(scene: Scene) -> None:
    """An item is published, then planned, then sent, whichever clocks had a hand in it."""
    told = scene.deployment.ask("content", "SELECT id, published_at FROM items WHERE published_at IS NOT NULL")
    published = {str(item): at for item, at in told}
    rows = scene.deployment.ask("distributor", "SELECT subject_id, planned_at, created_at, changed_at FROM deliveries")
    backwards = [row for row in rows if str(row[0]) in published and list(row[1:]) != sorted(row[1:])]
    backwards += [row for row in rows if str(row[0]) in published and row[1] < published[str(row[0])]]
    assert not backwards, f"{len(backwards)} of {len(rows)} took less than no time, such as {backwards[0]}"


async def test_f58_every_key_and_password_is_rotated_under_load(
    scene: Scene, distributed: Distributed, keys: Keys
) -> None:
    """By rolling restarts, replica by replica; the links' key in two steps, since what a new one signs must be known wherever
    it is shown. Links, signatures and calls of before, meanwhile and after all hold."""
    assert scene.broker is not None
    assert scene.database is not None
    await asyncio.to_thread(_second_logins, scene.broker, scene.database)
    before = await scene.publish_to_few()
    await scene.desk.reached(before)
    async with _load(scene) as statuses:
        secret = await new_webhook_secret(scene)
        await _rolled(distributed, lambda _: {"BUDKAVLE_SECRET_KEYS": keys.known["SECRET_KEYS"]})
        await _rolled(distributed, lambda service: keys.new(service, **_logins(distributed, service)))
        await asyncio.to_thread(scene.broker.control, "delete_user", "guest")
        await asyncio.to_thread(_no_first_logins, scene.database)
    after = await scene.publish_to_few()
    totals = await scene.check_sound(within=120)
    assert totals["repeats"] == 0
    assert len(statuses) > 50
    assert set(statuses) <= {200, 201, 202}, sorted(set(statuses))
    check_webhooks(scene, secret)
    assert keys.signed_with(scene.inboxes.of(before)) == {OLD}
    assert keys.signed_with(scene.inboxes.of(after)) == {NEW}
    assert keys.signed_with(scene.inboxes.mails) == {OLD, NEW}
    assert set(await opened(scene, scene.inboxes.of(before))) == {200}


async def _rolled(distributed: Distributed, environment: Callable[[str], dict[str, str | None]]) -> None:
    """Replica by replica, each in its service's new environment."""
    for number in range(len(MODES)):
        for service in SERVICES:
            await asyncio.to_thread(distributed.replicas[service][number].again, **environment(service))


def _logins(distributed: Distributed, service: str) -> dict[str, str]:
    """To broker and database, as whom `_second_logins` made."""
    database = make_url(distributed.environment(service)["BUDKAVLE_DATABASE_URL"])
    told = database.set(username="andra", password="hemligt").render_as_string(hide_password=False)
    broker = distributed.amqp_url.replace("guest:guest@", "andra:losen2@")
    return {"BUDKAVLE_BROKER_URL": broker, "BUDKAVLE_DATABASE_URL": told}


def _second_logins(broker: PrivateRabbitMQ, database: PrivatePostgres) -> None:
    broker.control("add_user", "andra", "losen2")
    broker.control("set_permissions", "andra", ".*", ".*", ".*")
    with psycopg.connect(plain(database.url), autocommit=True) as connection:
        connection.execute("CREATE ROLE andra LOGIN PASSWORD 'hemligt' IN ROLE content, subscriptions, distributor")


def _no_first_logins(database: PrivatePostgres) -> None:
    """Whoever still used one would be thrown out, and kept out."""
    with psycopg.connect(plain(database.url), autocommit=True) as connection:
        for service in SERVICES:
            connection.execute(f"ALTER ROLE {service} NOLOGIN".encode())
        first = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = ANY(%s)"
        assert connection.execute(first, [list(SERVICES)]).fetchone() == (0,)


@asynccontextmanager
async def _load(scene: Scene) -> Any:
    """Publications and calls, and readers who open the link in the newest mail, one after the other, as long as the block
    lasts."""
    stop, statuses = asyncio.Event(), []

    async def publish() -> None:
        while not stop.is_set():
            await scene.publish_to_few()
            statuses.append(202)
            await asked(scene.desk, *SERVICES)
            answer = await scene.desk.api.get("/")
            statuses.extend((answer.status_code, *await opened(scene, scene.inboxes.mails[-1:])))
            await asyncio.sleep(0.2)

    task = asyncio.create_task(publish())
    try:
        yield statuses
    finally:
        stop.set()
        await task
