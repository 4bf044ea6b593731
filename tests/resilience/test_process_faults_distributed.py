"""F1–F11 where each service is a process of its own: killed at the byte, by the proxies on its links."""

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable

import httpx2
import pytest
from tests.deployments import SERVICES, Distributed
from tests.desk import CONTENT, Json
from tests.eventually import eventually
from tests.inboxes import Inboxes
from tests.resilience.moments import (
    AFTER_COMMIT,
    BEFORE_ACK,
    BEFORE_COMMIT,
    BEFORE_CONFIRM,
    BEFORE_PUBLISH,
    Moment,
)
from tests.resilience.scene import FEW, HOOK, NEWSROOMS, UNPUBLISHED, Scene
from tests.resilience.tap import tapped

REPLAYED = "Idempotent-Replayed"
HERE_AGAIN_WITHIN_S = 60.0
HEAD_START_S = 8.0
RESUMED_WITHIN_S = 5.0


@pytest.fixture
def kind() -> str:
    return Distributed.kind


@pytest.mark.parametrize(
    ("moment", "act"),
    [
        pytest.param(BEFORE_COMMIT, "draft", id="before_the_commit-draft"),
        pytest.param(AFTER_COMMIT, "publish", id="after_the_commit-publish"),
        pytest.param(BEFORE_COMMIT, "publish", id="before_the_commit-publish", marks=pytest.mark.soak),
        pytest.param(AFTER_COMMIT, "draft", id="after_the_commit-draft", marks=pytest.mark.soak),
    ],
)
async def test_f1_f2_content_dies_and_the_editor_asks_again(scene: Scene, moment: Moment, act: str) -> None:
    """With the same Idempotency-Key: it is done once, whether or not the first request had come to its commit."""
    path, body = f"{CONTENT}/items", {**FEW, "title": f"Nytt {secrets.token_hex(4)}"}
    if act == "publish":
        path, body = f"{CONTENT}/items/{await scene.desk.draft(body)}/publish", {}
    died = scene.kill_when("content", moment)
    first = await _post(scene, path, body)
    assert first.status_code in (502, 503)
    await scene.revive("content", died)
    again, thrice = await _post(scene, path, body), await _post(scene, path, body)
    assert again.is_success
    assert (REPLAYED in again.headers, REPLAYED in thrice.headers) == (moment is AFTER_COMMIT, True)
    assert again.json() == thrice.json()
    item = again.json()["id"]
    if act == "draft":
        assert [row["id"] for row in await _titled(scene, body["title"])] == [item]
        await scene.desk.publish(item)
    told = f"SELECT count(*) FROM outbox WHERE convert_from(body, 'UTF8') LIKE '%{item}%'"
    assert scene.deployment.ask("content", told)[0][0] == 1
    scene.oracle.accepted(item, frozenset(NEWSROOMS), frozenset({HOOK}))
    totals = await scene.check_sound()
    assert totals["repeats"] == 0


@pytest.mark.soak
@pytest.mark.parametrize("moment", [BEFORE_COMMIT, AFTER_COMMIT, BEFORE_PUBLISH, BEFORE_ACK], ids=lambda one: one.name)
@pytest.mark.parametrize("service", SERVICES)
async def test_f1_f3_f4_f5_f6_each_moment_in_turn_is_a_service_s_last(
    scene: Scene, service: str, moment: Moment
) -> None:
    """The first of an item's way, then the second, and so on to the end of the way: no crash point is left out."""
    sends = service == "distributor"  # no other's death is an excuse for a repeat
    for nth in itertools.count(1):
        died = scene.kill_when(service, moment.of(nth))
        reviving = asyncio.create_task(scene.revive(service, died, within=60))
        item, _ = await scene.publish_at_last()
        await scene.desk.reached(item, within=90)
        if not died.is_set():
            reviving.cancel()
            break
        await reviving
        await scene.check_sound(kills=nth * sends, within=90)
    scene.link(service, moment.link).mend()
    await scene.check_sound(kills=nth * sends)
    print(f"measured: {service} died {moment.name} {nth - 1} times, each time one later")
    assert nth > 1


async def _post(scene: Scene, path: str, body: Json) -> httpx2.Response:
    return await scene.desk.api.post(path, json=body, headers={"Idempotency-Key": f"nyckel-{path}-{body.get('title')}"})


async def _titled(scene: Scene, title: str) -> list[Json]:
    return [row for row in await scene.desk.all_pages(f"{CONTENT}/items") if row["title"] == title]


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(BEFORE_CONFIRM, id="before_the_confirm"),
        pytest.param(
            BEFORE_COMMIT.of(4), id="before_the_mark"
        ),  # the draft's, the publication's, the claim's, the mark's
        pytest.param(BEFORE_PUBLISH, id="before_the_publication", marks=pytest.mark.soak),
    ],
)
async def test_f3_the_relay_dies(scene: Scene, moment: Moment) -> None:
    """The event comes once more, the same to the byte under the same id, and nobody gets a second mail."""
    assert isinstance(scene.deployment, Distributed)
    async with tapped(scene.deployment, "news") as tap:
        died = scene.kill_when("content", moment)
        await scene.publish_to_few()
        await scene.revive("content", died)
        began = time.monotonic()
        await eventually(lambda: scene.deployment.ask("content", UNPUBLISHED)[0][0] == 0, within=20)
        assert time.monotonic() - began < RESUMED_WITHIN_S
        totals = await scene.check_sound()
        assert len({key for key, _ in tap.heard}) == 1
        assert tap.repeats == (moment != BEFORE_PUBLISH)
    assert totals["repeats"] == 0


@pytest.mark.parametrize(
    "order",
    [
        ("database", "services", "broker"),
        *(
            pytest.param(order, marks=pytest.mark.soak)
            for order in itertools.permutations(("database", "services", "broker"))
            if order != ("database", "services", "broker")
        ),
    ],
    ids="_".join,
)
async def test_f8_power_cut(scene: Scene, new_inboxes: Callable[..., Inboxes], order: tuple[str, ...]) -> None:
    """Every service, the broker and the database at once, in the middle of a drain; they come back in any order."""
    assert scene.broker is not None
    assert scene.database is not None
    begin = {
        "database": lambda: asyncio.to_thread(scene.database.start),
        "broker": lambda: asyncio.to_thread(scene.broker.start),
        "services": lambda: asyncio.gather(*map(scene.start, SERVICES)),
    }
    scene.inboxes = new_inboxes(scene.deployment, "--delay", "0.005")
    await scene.publish()
    await scene.until_received(20)
    for service in SERVICES:
        await scene.kill(service)
    await asyncio.gather(asyncio.to_thread(scene.broker.kill), asyncio.to_thread(scene.database.kill))
    began = time.monotonic()
    starting = []
    for number, what in enumerate(order):
        starting.append(asyncio.ensure_future(begin[what]()))
        if number < len(order) - 1:  # a head start; services say that they are ready when their database is
            await asyncio.wait(starting[-1:], timeout=HEAD_START_S)
    await asyncio.gather(*starting)
    started = time.monotonic()
    totals = await scene.check_sound(kills=1, within=90)
    print(
        f"measured: {' '.join(order)}: all started after {started - began:.1f} s,"
        f" sound {time.monotonic() - began:.1f} s after the first, {totals['repeats']} repeats"
    )
    assert time.monotonic() - began < HERE_AGAIN_WITHIN_S
