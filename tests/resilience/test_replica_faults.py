"""What two replicas of each service bear that one alone would not show: a frozen sender (F10), a wrong clock (F56), a rotation
of every key and password under load (F58). A broker and a database server of their own."""

import asyncio
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dkim
import psycopg
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy import make_url
from standardwebhooks import Webhook
from tests.deployments import SERVICES, Distributed, Replica
from tests.desk import DISTRIBUTOR
from tests.eventually import eventually
from tests.inboxes import Inboxes
from tests.resilience.faketime import WRONG_CLOCK, faketime_library
from tests.resilience.house import Home, own_home
from tests.resilience.scene import SETTINGS, Scene, asked
from tests.servers.postgres import PrivatePostgres, plain
from tests.servers.rabbitmq import PrivateRabbitMQ
from tests.servers.receiver import ReceivedRequest

pytestmark = pytest.mark.soak
MODES = ("run", "run")
OLD_KEY, NEW_KEY = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two DKIM keys by selector."""
    folder = tmp_path_factory.mktemp("dkim")
    for selector in ("gammal", "ny"):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem, plainly = serialization.Encoding.PEM, serialization.NoEncryption()
        (folder / f"{selector}.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plainly))
    return {selector: folder / f"{selector}.pem" for selector in ("gammal", "ny")}


@pytest.fixture(scope="module")
def home(keys: dict[str, Path]) -> Iterator[Home]:
    settings = {**SETTINGS, "SECRET_KEYS": OLD_KEY, "DKIM_KEYS": f"gammal={keys['gammal']}"}
    with own_home(PrivatePostgres(durable=False), modes=MODES, settings=settings) as home:
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
        for _ in range(4):
            await scene.publish_to_few()
        await scene.publish()
        totals = await scene.check_sound(within=120)
        assert totals["repeats"] == 0
        await eventually(lambda: '"clock_wrong"' in _log(skewed[2])[said_before:], within=30)
        assert "deliveries_taken_over" not in _log(skewed[2])[said_before:]
    finally:
        await asyncio.gather(*(asyncio.to_thread(replica.again, LD_PRELOAD="") for replica in skewed))


async def test_f58_every_key_and_password_is_rotated_under_load(
    scene: Scene, distributed: Distributed, keys: dict[str, Path], tmp_path: Path
) -> None:
    """Written to files, by rolling restarts, replica by replica. Links, signatures and calls of before and after all hold."""
    assert scene.broker is not None
    assert scene.database is not None
    await asyncio.to_thread(_second_logins, scene.broker, scene.database)
    before = await scene.publish_to_few()
    await scene.desk.reached(before)
    (endpoint,) = await scene.desk.all_pages(f"{DISTRIBUTOR}/endpoints")
    async with _load(scene) as statuses:
        new = await scene.desk.call("POST", f"{DISTRIBUTOR}/endpoints/{endpoint['id']}/secrets", json={"overlap_h": 24})
        for number in range(len(MODES)):
            for service in SERVICES:
                files = _secret_files(tmp_path / service, distributed, service)
                replica, dkim_keys = distributed.replicas[service][number], f"ny={keys['ny']}"
                await asyncio.to_thread(replica.again, **files, BUDKAVLE_DKIM_KEYS=dkim_keys)
        await asyncio.to_thread(scene.broker.control, "delete_user", "guest")
    after = await scene.publish_to_few()
    totals = await scene.check_sound(within=120)
    assert totals["repeats"] == 0
    assert len(statuses) > 50
    assert set(statuses) <= {200, 201, 202}, sorted(set(statuses))
    _check_signatures(scene, keys, before, after)
    _check_webhooks(scene, new["secret"])
    await _check_links(scene, before)


def _secret_files(folder: Path, distributed: Distributed, service: str) -> dict[str, str | None]:
    """The new secrets as Docker's or Kubernetes' would lie there; the environment that then names the folder alone."""
    folder.mkdir(exist_ok=True)
    database = make_url(distributed.environment(service)["BUDKAVLE_DATABASE_URL"])
    secrets = {
        "BUDKAVLE_SECRET_KEYS": f"{NEW_KEY},{OLD_KEY}",
        "BUDKAVLE_BROKER_URL": distributed.amqp_url.replace("guest:guest@", "andra:losen2@"),
        "BUDKAVLE_DATABASE_URL": database.set(username="andra", password="hemligt").render_as_string(
            hide_password=False
        ),
    }
    for name, value in secrets.items():
        (folder / name.lower()).write_text(f"{value}\n")
    return {**dict.fromkeys(secrets), "BUDKAVLE_SECRETS_DIR": str(folder)}


def _second_logins(broker: PrivateRabbitMQ, database: PrivatePostgres) -> None:
    broker.control("add_user", "andra", "losen2")
    broker.control("set_permissions", "andra", ".*", ".*", ".*")
    with psycopg.connect(plain(database.url), autocommit=True) as connection:
        connection.execute("CREATE ROLE andra LOGIN PASSWORD 'hemligt' IN ROLE content, subscriptions, distributor")


@asynccontextmanager
async def _load(scene: Scene) -> Any:
    """Publications and calls, one after the other, as long as the block lasts."""
    stop, statuses = asyncio.Event(), []

    async def publish() -> None:
        while not stop.is_set():
            await scene.publish_to_few()
            statuses.append(202)
            await asked(scene.desk, *SERVICES)
            answer = await scene.desk.api.get("/")
            statuses.append(answer.status_code)
            await asyncio.sleep(0.2)

    task = asyncio.create_task(publish())
    try:
        yield statuses
    finally:
        stop.set()
        await task


def _check_signatures(scene: Scene, keys: dict[str, Path], before: str, after: str) -> None:
    """Every mail verifies with one key or the other, by a verifier that looks the selector up."""

    def record(name: bytes, timeout: int = 5) -> bytes:
        private = serialization.load_pem_private_key(keys[name.decode().partition(".")[0]].read_bytes(), None)
        der, info = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        return b"v=DKIM1; p=" + b64encode(private.public_key().public_bytes(der, info))

    mails = [mail for item in scene.oracle.mails for mail in scene.inboxes.of(item)]
    assert all(dkim.verify(mail.content, dnsfunc=record) for mail in mails)
    for item, selector in ((before, "s=gammal"), (after, "s=ny")):
        assert all(selector in mail.header("DKIM-Signature") for mail in scene.inboxes.of(item))


def _check_webhooks(scene: Scene, new_secret: str) -> None:
    """Who knows the old secret verifies each, and who knows the new one each since it was made."""
    told = [one for one in scene.intranet.requests if any(item in one.body.decode() for item in scene.oracle.mails)]
    assert all(_signed(request, scene.hook_secret) for request in told)
    assert _signed(told[-1], new_secret)


def _signed(request: ReceivedRequest, secret: str) -> bool:
    """Whether one of its signatures is of this secret; `Webhook.verify` refuses what is five minutes old."""
    at = datetime.fromtimestamp(int(request.header("webhook-timestamp") or 0), UTC)
    expected = Webhook(secret).sign(request.header("webhook-id") or "", at, request.body.decode())
    return expected in (request.header("webhook-signature") or "").split()


async def _check_links(scene: Scene, before: str) -> None:
    """The links of a mail that went out under the old key."""
    for mail in scene.inboxes.of(before):
        link = mail.header("List-Unsubscribe").strip("<>")
        answer = await scene.desk.api.get(link)
        assert answer.status_code == 200, answer.text
