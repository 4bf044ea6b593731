"""A new version, with new keys, is rolled out replica by replica in the middle of a fan-out: no mail twice, no call fails, and
what was signed with the old keys holds."""

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
from tests.deployments import SERVICES, Distributed, Replica
from tests.desk import DISTRIBUTOR, SUBSCRIPTIONS
from tests.inboxes import Inboxes
from tests.resilience.house import Home
from tests.resilience.rotation import NEW, OLD, Keys, check_webhooks, new_webhook_secret, opened
from tests.resilience.scene import FIELDS, SETTINGS, Scene, populate
from tests.servers.rabbitmq import shared_amqp_url
from tests.servers.receiver import HttpReceiver

REPLICAS = ("run", "run")
APART = ("run", "serve", "work")
"""The second replica as two processes."""
DRAINED_WITHIN_S = 10.0
CALLS = (
    ("GET", "/api/content/v1/items", None),
    ("GET", f"{SUBSCRIPTIONS}/subscribers?limit=1", None),
    ("GET", f"{DISTRIBUTOR}/deliveries?limit=1", None),
    ("GET", "/", None),
    ("POST", "/api/content/v1/items", {**FIELDS, "title": "Ett utkast"}),
    ("POST", f"{SUBSCRIPTIONS}/audience-preview", {"audiences": ["public"]}),
)


@pytest.fixture
def home(keys: Keys, modes: tuple[str, ...]) -> Iterator[Home]:
    """Two replicas of each service."""
    made = Distributed(shared_amqp_url(), modes=modes, settings={**SETTINGS, **keys.known})
    with HttpReceiver() as intranet, made.opened():
        yield Home(made, intranet, hook_secret=populate(made, intranet))


@pytest.mark.parametrize(("modes", "rounds"), [(REPLICAS, 1), pytest.param(APART, 4, marks=pytest.mark.soak)])
async def test_f9_f58_no_mail_twice_no_call_fails_and_what_the_old_keys_signed_holds(
    scene: Scene, new_inboxes: Callable[..., Inboxes], keys: Keys, modes: tuple[str, ...], rounds: int
) -> None:
    """A round is one restart of each of a service's processes; something goes out after each. The first brings the keys
    (with the logins to broker and database too: `test_replica_faults.py`)."""
    scene.inboxes = new_inboxes(scene.deployment, "--delay", "0.05")  # the drain lasts as long as the rolling
    before = await scene.publish()
    await scene.until_received(20)
    secret = await new_webhook_secret(scene)
    for service in SERVICES:
        for replica in scene.deployment.replicas[service]:
            replica.tell(**keys.new(service))
    rolled = asyncio.Event()
    calling = asyncio.create_task(_call_until(scene, rolled))
    slowest = 0.0
    for number in range(rounds * len(modes)):
        replicas = [scene.deployment.replicas[service][number % len(modes)] for service in SERVICES]
        slowest = max(slowest, *await asyncio.gather(*map(_restarted, replicas)))
        ends_a_round = number % len(modes) == len(modes) - 1 and number < rounds * len(modes) - 1
        await (scene.publish() if ends_a_round else scene.publish_to_few())
    rolled.set()
    statuses = await calling
    assert len(statuses) > 50
    assert set(statuses) <= {200, 201}, sorted(statuses)
    assert slowest < DRAINED_WITHIN_S
    print(
        f"measured: {rounds * len(modes)} restarts of each service, {len(statuses)} calls, drained within {slowest:.1f} s"
    )
    totals = await scene.check_sound(within=120)
    assert totals["repeats"] == 0
    mails = [mail for item in scene.oracle.mails for mail in scene.inboxes.of(item)]
    assert keys.signed_with(mails[::20]) == {OLD, NEW}
    check_webhooks(scene, secret)
    assert set(await opened(scene, scene.inboxes.of(before)[:20])) == {200}


async def _restarted(replica: Replica) -> float:
    """SIGTERM and start again; gives the seconds that it took to end."""
    began = time.monotonic()
    await asyncio.to_thread(replica.end)
    ended = time.monotonic()
    await asyncio.to_thread(replica.start)
    return ended - began


async def _call_until(scene: Scene, rolled: asyncio.Event) -> list[int]:
    """One call after another, as editors and administrators go on working, and readers open the link in the newest mail."""
    statuses = []
    while not rolled.is_set():
        for method, path, body in CALLS:
            answer = await scene.desk.api.request(method, path, json=body)
            statuses.append(answer.status_code)
        statuses += await opened(scene, scene.inboxes.mails[-1:])
    return statuses
