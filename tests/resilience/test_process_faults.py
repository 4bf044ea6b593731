"""What the death of a process does, by the numbers of docs/reliability.md (F1–F11): nothing lost, nobody unexpected,
repeats bounded and alike, the ledger equal to what was seen."""

import asyncio
import contextlib
import itertools
import json
import resource
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Literal

import httpx2
import pytest
from standardwebhooks import Webhook
from tests.deployments import SERVICES, Distributed, Standalone
from tests.eventually import eventually
from tests.inboxes import Inboxes
from tests.resilience.moments import BEFORE_ANSWER, IN_TEXT, ON_DATA, ON_MAIL, ON_RCPT, Moment
from tests.resilience.scene import EVERYBODY, NEWSROOMS, RESENT_WITHIN_S, UNPUBLISHED, Scene, asked, now

TAKEN_BY_RELAY = "SELECT count(*) FROM outbox WHERE leased_until IS NOT NULL OR published_at IS NOT NULL"
RESUMED_WITHIN_S = 5.0
FAN_OUT_RESUMED_WITHIN_S = 10.0
LOOKED_WITHIN_S = 1.5
PAUSED_FOR_S = 5.0
NO_FILE = "Too many open files"
TAKEN_OVER_WITHIN_S = 30.0
soak = pytest.mark.soak
DISTRIBUTED = pytest.mark.parametrize("kind", [Distributed.kind, pytest.param(Standalone.kind, marks=soak)])
STANDALONE = pytest.mark.parametrize("kind", [Standalone.kind, pytest.param(Distributed.kind, marks=soak)])
"""On one of the two deployments in turn; on the other in `make soak`."""
BATCH_OF_NEWS = b"\x13mail.requested.news"  # the routing key of one batch, as AMQP writes it


@DISTRIBUTED
async def test_f3_content_dies_between_commit_and_publication(scene: Scene) -> None:
    with scene.bus_stopped("content"):
        taken = scene.deployment.ask("content", TAKEN_BY_RELAY)[0][0]
        await scene.publish()
        await eventually(lambda: scene.deployment.ask("content", TAKEN_BY_RELAY)[0][0] > taken)
        await scene.kill("content")
    killed_at = now()
    assert scene.inboxes.count == 0
    await scene.start("content")
    started_at = now()
    await eventually(lambda: scene.deployment.ask("content", UNPUBLISHED)[0][0] == 0, within=20)
    assert now() < max(killed_at + RESUMED_WITHIN_S, started_at + LOOKED_WITHIN_S)  # a busy machine starts slowly
    totals = await scene.check_sound()
    assert totals["repeats"] == 0


@pytest.mark.parametrize(
    ("kind", "nth"),
    [
        (Standalone.kind, 2),
        *(pytest.param(Standalone.kind, nth, marks=soak) for nth in (1, 3, 4)),
        *(pytest.param(Distributed.kind, nth, marks=soak) for nth in (1, 2, 3)),
    ],
)
async def test_f4_subscriptions_dies_in_the_middle_of_a_fan_out(scene: Scene, nth: int) -> None:
    """At its n-th batch of four: the first is for newsrooms, the others are news."""
    if isinstance(scene.deployment, Standalone):
        item = await _killed_while_planning(scene, nth)
        await scene.start("subscriptions")
    else:
        died = scene.kill_when("subscriptions", Moment("before a batch", "broker", BATCH_OF_NEWS, nth=nth))
        item = await scene.publish()
        await scene.revive("subscriptions", died)
    started = time.monotonic()
    await scene.until_planned(item)
    assert time.monotonic() - started < FAN_OUT_RESUMED_WITHIN_S
    totals = await scene.check_sound(kills=isinstance(scene.deployment, Standalone))  # a sender dies there too
    print(f"measured: {totals['repeats']} repeats")
    planned = f"FROM deliveries WHERE channel = 'mail' AND subject_id = '{scene.key(item)}'"
    assert scene.deployment.ask("distributor", f"SELECT count(*), count(DISTINCT recipient_id) {planned}") == [
        (len(EVERYBODY), len(EVERYBODY))
    ]


async def _killed_while_planning(scene: Scene, nth: int) -> str:
    """Standalone has one process; it dies as soon as its n-th batch is planned."""
    item = await scene.publish()
    batches = f"SELECT count(*) FROM fanout_batches WHERE item_id = '{scene.key(item)}'"
    await eventually(lambda: scene.deployment.ask("subscriptions", batches)[0][0] >= nth, every=0.002)
    await scene.kill("subscriptions")
    return item


@DISTRIBUTED
async def test_f5_distributor_dies_between_accept_and_send(scene: Scene) -> None:
    scene.deployment.mail_link.close()
    item = await scene.publish()
    await scene.until_planned(item)
    await scene.kill("distributor")
    scene.deployment.mail_link.lead_to(scene.inboxes.port)
    await scene.start("distributor")
    totals = await scene.check_sound(kills=1)
    assert totals["repeated_mails"] == 0  # a webhook may have been on its way


@pytest.mark.parametrize(
    ("kind", "moment"),
    [
        (Distributed.kind, "before"),
        (Standalone.kind, "after"),
        pytest.param(Distributed.kind, "after", marks=soak),
        pytest.param(Standalone.kind, "before", marks=soak),
    ],
)
async def test_f6_distributor_dies_with_a_mail_in_doubt(
    scene: Scene, new_inboxes: Callable[..., Inboxes], tmp_path: Path, moment: Literal["before", "after"]
) -> None:
    """Killed by the mail server itself, between the final dot and its 250 or just after the 250."""
    pids = tmp_path / "pids"
    pids.write_text(" ".join(map(str, scene.deployment.pids("distributor"))))
    options = ("--kill-pid-file", str(pids), "--kill-at", "300", "--kill-when", moment, "--delay", "0.005")
    scene.inboxes = new_inboxes(scene.deployment, *options)
    item = await scene.publish()
    await eventually(lambda: not scene.deployment.pids("distributor"), within=30)
    killed_at = now()
    await scene.kill("distributor")
    await scene.start("distributor")
    started_at = now()
    totals = await scene.check_sound(kills=1, within=RESENT_WITHIN_S + 30)
    mails, repeats = scene.inboxes.of(item), totals["repeated_mails"]
    assert repeats >= (moment == "before")  # the doubtful one came again
    assert scene.deployment.metric("distributor", "budkavle_deliveries_uncertain_total") >= repeats
    assert max(mail.dot_at for mail in mails) - killed_at < RESENT_WITHIN_S
    if isinstance(scene.deployment, Standalone):  # alone with its files: it waits for no lease to run out
        anew = sorted(mail.dot_at for mail in mails if mail.dot_at > started_at)  # how fast is the machine's
        assert max(later - earlier for earlier, later in pairwise(anew)) < PAUSED_FOR_S


@STANDALONE
@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(IN_TEXT, id="amid_the_text"),
        pytest.param(ON_MAIL, id="at_mail", marks=soak),
        pytest.param(ON_RCPT, id="at_rcpt", marks=soak),
        pytest.param(ON_DATA, id="at_data", marks=soak),
    ],
)
async def test_f5_the_distributor_dies_before_a_dot(scene: Scene, moment: Moment) -> None:
    """The first mail of all never came to its dot, so nobody gets a mail twice. A webhook that went out at the same time
    may be in doubt, and is told again.
    """
    died = scene.kill_when("distributor", moment)
    await scene.publish_to_few()
    await scene.revive("distributor", died)
    began = time.monotonic()
    await scene.until_received(len(NEWSROOMS), within=TAKEN_OVER_WITHIN_S + 10)
    assert time.monotonic() - began < TAKEN_OVER_WITHIN_S
    totals = await scene.check_sound(kills=1)
    assert totals["repeated_mails"] == 0


@STANDALONE
async def test_f7_the_distributor_dies_with_a_webhook_answered(scene: Scene) -> None:
    """The intranet gets it again: the same id and body, signed anew, at a new time."""
    already = len(scene.intranet.requests)
    died = scene.kill_when("distributor", BEFORE_ANSWER)
    await scene.publish_to_few()
    await scene.revive("distributor", died)
    await scene.check_sound(kills=1)
    first, second = scene.intranet.requests[already:]
    assert first.header("webhook-id") == second.header("webhook-id")
    assert first.body == second.body
    assert int(first.header("webhook-timestamp") or 0) < int(second.header("webhook-timestamp") or 0)
    secret = Webhook(scene.hook_secret)
    for request in (first, second):
        secret.verify(request.body, request.header_map)


@pytest.mark.parametrize(
    ("kind", "receivers", "lasts_s"),
    [
        (Standalone.kind, len(NEWSROOMS), 2),
        pytest.param(Standalone.kind, len(EVERYBODY), 15, marks=soak),
        pytest.param(Distributed.kind, len(EVERYBODY), 15, marks=soak),
    ],
)
async def test_f11_no_file_can_be_opened(scene: Scene, receivers: int, lasts_s: float) -> None:
    """Neither a connection taken nor one made: whoever calls waits or is told to come back, and all goes on by itself."""
    scene.deployment.mail_link.close()
    item = await (scene.publish_to_few() if receivers == len(NEWSROOMS) else scene.publish())
    await scene.until_planned(item, receivers)
    pids = [pid for service in scene.deployment.replicas for pid in scene.deployment.pids(service)]
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids}
    try:
        for pid, (_, most) in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (_first_free_file(pid), most))
        scene.deployment.mail_link.lead_to(scene.inboxes.port)
        began, began_at = time.monotonic(), datetime.now(UTC)
        while time.monotonic() - began < lasts_s or not _says_that_no_file_opens(scene, began_at):
            assert time.monotonic() - began < lasts_s + 30, "it was not said by its name, only what it brings about"
            with contextlib.suppress(httpx2.TransportError):
                answer = await scene.desk.api.get("/api/content/v1/items", timeout=3)
                assert answer.status_code in (200, 429, 502, 503), answer.text
    finally:
        for pid, limit in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
    totals = await scene.check_sound(within=90)
    assert totals["repeats"] == 0
    assert pids == [pid for service in scene.deployment.replicas for pid in scene.deployment.pids(service)]


def _first_free_file(pid: int) -> int:
    """The number that the next file would get: with this limit there is none, though higher ones are open."""
    taken = {int(file.name) for file in Path(f"/proc/{pid}/fd").iterdir()}
    return next(number for number in itertools.count() if number not in taken)


def _says_that_no_file_opens(scene: Scene, since: datetime) -> bool:
    with contextlib.suppress(json.JSONDecodeError):  # the last line may be half written
        said = scene.deployment.log_lines(since=since)
        return any(NO_FILE in str(line) for line in said if line["level"] in ("warning", "error"))
    return False


@soak
async def test_f34_the_logs_disk_is_full(scene: Scene) -> None:
    """Every line is refused, from the start: all goes on, and the lines are counted."""
    replicas = list(dict.fromkeys(scene.deployment.every_replica()))
    logs = [replica.log for replica in replicas]
    try:
        for replica in replicas:
            replica.say_into(Path("/dev/full"))
            await asyncio.to_thread(replica.again)
        await scene.publish()
        await asked(scene.desk, *SERVICES)
        totals = await scene.check_sound()
        dropped = [scene.deployment.metric(service, "budkavle_log_lines_dropped_total") for service in SERVICES]
        print(f"measured: lines dropped {dropped}, {totals['repeats']} repeats")
        assert min(dropped) > 0
        assert totals["repeats"] == 0
    finally:
        for replica, log in zip(replicas, logs, strict=True):
            replica.say_into(log)
            await asyncio.to_thread(replica.again)
