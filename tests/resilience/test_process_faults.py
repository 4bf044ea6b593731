"""What the death of a process does, by the numbers of docs/reliability.md (F1–F11): nothing lost, nobody unexpected,
repeats bounded and alike, the ledger equal to what was seen."""

import contextlib
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
from tests.deployments import Distributed, Standalone
from tests.eventually import eventually
from tests.inboxes import Inboxes
from tests.resilience.moments import BEFORE_ANSWER, IN_TEXT, ON_DATA, ON_MAIL, ON_RCPT, Moment
from tests.resilience.scene import (
    EVERYBODY,
    FIELDS,
    NEWSROOMS,
    RESENT_WITHIN_S,
    UNPUBLISHED,
    Scene,
    check_ledger,
    check_once_each,
    check_settled,
    now,
)

TAKEN_BY_RELAY = "SELECT count(*) FROM outbox WHERE leased_until IS NOT NULL OR published_at IS NOT NULL"
RESUMED_WITHIN_S = 5.0
LOOKED_WITHIN_S = 1.5
PAUSED_FOR_S = 5.0
TAKEN_OVER_WITHIN_S = 30.0
soak = pytest.mark.soak
DISTRIBUTED = pytest.mark.parametrize("kind", [Distributed.kind, pytest.param(Standalone.kind, marks=soak)])
STANDALONE = pytest.mark.parametrize("kind", [Standalone.kind, pytest.param(Distributed.kind, marks=soak)])
"""On one of the two deployments in turn; on the other in `make soak`."""
BATCH_OF_NEWS = b"\x13mail.requested.news"  # the routing key of one batch, as AMQP writes it


@DISTRIBUTED
async def test_f3_content_dies_between_commit_and_publication(scene: Scene) -> None:
    item = await scene.desk.draft(FIELDS)
    with scene.bus_stopped("content"):
        taken = scene.deployment.ask("content", TAKEN_BY_RELAY)[0][0]
        await scene.desk.publish(item)
        await eventually(lambda: scene.deployment.ask("content", TAKEN_BY_RELAY)[0][0] > taken)
        await scene.kill("content")
    killed_at = now()
    assert scene.inboxes.count == 0
    await scene.start("content")
    started_at = now()
    await eventually(lambda: scene.deployment.ask("content", UNPUBLISHED)[0][0] == 0, within=20)
    assert now() < max(killed_at + RESUMED_WITHIN_S, started_at + LOOKED_WITHIN_S)  # a busy machine starts slowly
    await scene.desk.reached(item)
    assert check_once_each(scene.inboxes.of(item), EVERYBODY) == 0
    await check_ledger(scene, item)
    await check_settled(scene)


@STANDALONE
async def test_f4_subscriptions_dies_in_the_middle_of_a_fan_out(scene: Scene) -> None:
    if isinstance(scene.deployment, Standalone):
        item = await _killed_while_planning(scene)
    else:
        link = scene.broker_link("subscriptions")
        passed = link.when(BATCH_OF_NEWS, link.hold, nth=2)
        item = await scene.publish()
        await eventually(passed.is_set, within=20)
        await scene.kill("subscriptions")
        link.cut()
        link.release()
    await scene.start("subscriptions")
    await scene.desk.reached(item)
    check_once_each(scene.inboxes.of(item), EVERYBODY, kills=scene.kills)
    await check_ledger(scene, item)
    await check_settled(scene)


async def _killed_while_planning(scene: Scene) -> str:
    """Standalone has one process; it dies as soon as a second batch is planned."""
    item = await scene.publish()
    batches = f"SELECT count(*) FROM fanout_batches WHERE item_id = '{item.replace('-', '')}'"
    await eventually(lambda: scene.deployment.ask("subscriptions", batches)[0][0] >= 2, every=0.002)
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
    await scene.desk.reached(item)
    assert check_once_each(scene.inboxes.of(item), EVERYBODY) == 0
    await check_ledger(scene, item)
    await check_settled(scene)


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
    await scene.desk.reached(item, within=RESENT_WITHIN_S + 30)
    mails = scene.inboxes.of(item)
    repeats = check_once_each(mails, EVERYBODY, kills=1)
    assert repeats >= (moment == "before")  # the doubtful one came again
    assert scene.deployment.metric("distributor", "budkavle_deliveries_uncertain_total") >= repeats
    assert max(mail.dot_at for mail in mails) - killed_at < RESENT_WITHIN_S
    if isinstance(scene.deployment, Standalone):  # alone with its files: it waits for no lease to run out
        anew = sorted(mail.dot_at for mail in mails if mail.dot_at > started_at)  # how fast is the machine's
        assert max(later - earlier for earlier, later in pairwise(anew)) < PAUSED_FOR_S
    await check_ledger(scene, item)
    await check_settled(scene)


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
    began_at = datetime.now(UTC)
    scene.deployment.mail_link.close()
    item = await (scene.publish_to_few() if receivers == len(NEWSROOMS) else scene.publish())
    await scene.until_planned(item, receivers)
    pids = [pid for service in scene.deployment.replicas for pid in scene.deployment.pids(service)]
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids}
    try:
        for pid, (_, most) in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(list(Path(f"/proc/{pid}/fd").iterdir())), most))
        scene.deployment.mail_link.lead_to(scene.inboxes.port)
        began = time.monotonic()
        while time.monotonic() - began < lasts_s:
            with contextlib.suppress(httpx2.TransportError):
                answer = await scene.desk.api.get("/api/content/v1/items", timeout=3)
                assert answer.status_code in (200, 502, 503), answer.text
    finally:
        for pid, limit in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
    totals = await scene.check_sound(within=90)
    assert totals["repeats"] == 0
    assert pids == [pid for service in scene.deployment.replicas for pid in scene.deployment.pids(service)]
    assert any(line["level"] in ("warning", "error") for line in scene.deployment.log_lines(since=began_at))
