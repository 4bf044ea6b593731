"""F54: a correction or withdrawal that comes while the first revision is on its way, or before it: nobody gets the faulty
revision once it took effect, and everybody who got it is told."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from tests.deployments import Distributed, Standalone
from tests.desk import Json
from tests.eventually import eventually
from tests.inboxes import Inboxes, Mail
from tests.resilience.scene import (
    BODY_MARK,
    EVERYBODY,
    FIELDS,
    HOOK,
    NEWSROOMS,
    Scene,
    check_ledger,
    check_nobody_after,
    check_once_each,
    check_settled,
    now,
)

SLOWLY = ("--delay", "0.01")  # 400 mails a second over four connections: a drain takes three seconds
CHANGES = {"title": "Fler i arbete, rättad", "body": f"{BODY_MARK} med rätta siffror."}
soak = pytest.mark.soak
DISTRIBUTED = pytest.mark.parametrize("kind", [Distributed.kind, pytest.param(Standalone.kind, marks=soak)])
STANDALONE = pytest.mark.parametrize("kind", [Standalone.kind, pytest.param(Distributed.kind, marks=soak)])
"""On one of the two deployments in turn; on the other in `make soak`."""


@DISTRIBUTED
async def test_f54_corrected_in_the_middle_of_a_drain(scene: Scene, new_inboxes: Callable[..., Inboxes]) -> None:
    scene.inboxes = new_inboxes(scene.deployment, *SLOWLY)
    item = await scene.publish()
    await scene.until_received(150)
    await scene.desk.correct(item, CHANGES, "Siffran var fel.")
    took_effect_at = now()
    reach = await all_told(scene, item)
    mails = scene.inboxes.of(item)
    check_nobody_after(mails, 1, took_effect_at)
    faulty, right = by_revision(mails, 1), by_revision(mails, 2)
    assert 150 <= len(faulty) < len(EVERYBODY)
    check_once_each([mail for mail in mails if mail.revision == 2], EVERYBODY)
    for mailbox, mail in right.items():
        _check_corrected(mail, faulty.get(mailbox))
    check_reach(reach, sent=len(EVERYBODY), cancelled=0, followed_up=len(faulty))
    await _check_told(scene, item, "se.budkavle.news.corrected.v1")
    await check_settled(scene)
    check_ledger(scene, item)


@STANDALONE
async def test_f54_withdrawn_in_the_middle_of_a_drain(scene: Scene, new_inboxes: Callable[..., Inboxes]) -> None:
    scene.inboxes = new_inboxes(scene.deployment, *SLOWLY)
    item = await scene.publish()
    await scene.until_received(150)
    await scene.desk.withdraw(item, "Fel underlag.")
    took_effect_at = now()
    reach = await all_told(scene, item)
    mails = scene.inboxes.of(item)
    check_nobody_after(mails, 1, took_effect_at)
    faulty, taken_back = by_revision(mails, 1), by_revision(mails, 2)
    assert 150 <= len(faulty) < len(EVERYBODY)
    assert set(taken_back) == set(faulty)  # those who got it are told, and nobody else hears of it
    assert len(mails) == 2 * len(faulty)
    assert all(taken_back[box].header("In-Reply-To") == mail.message_id for box, mail in faulty.items())
    check_reach(reach, sent=len(faulty), cancelled=len(EVERYBODY) - len(faulty), followed_up=len(faulty))
    await _check_told(scene, item, "se.budkavle.news.withdrawn.v1")
    await check_settled(scene)
    check_ledger(scene, item)


@STANDALONE
async def test_f54_corrected_before_anybody_was_found(scene: Scene) -> None:
    item = await scene.desk.draft(FIELDS)
    async with _subscriptions_stopped(scene):
        await scene.desk.publish(item)
        await scene.desk.correct(item, CHANGES, "Siffran var fel.")
    await scene.desk.reached(item)
    mails = scene.inboxes.of(item)
    check_once_each(mails, EVERYBODY)
    assert {mail.revision for mail in mails} == {2}
    for mail in mails:
        _check_corrected(mail, None)
    await check_settled(scene)
    check_ledger(scene, item)


@DISTRIBUTED
async def test_f54_withdrawn_before_anybody_was_found(scene: Scene) -> None:
    item = await scene.desk.draft(FIELDS)
    async with _subscriptions_stopped(scene):
        await scene.desk.publish(item)
        await scene.desk.withdraw(item, "Fel underlag.")
    reach = await scene.desk.reached(item)
    assert reach["fanout"]["cut_short"]
    assert scene.inboxes.of(item) == []
    await check_settled(scene)
    check_ledger(scene, item)


async def test_f54_withdrawn_in_the_middle_of_a_fan_out(scene: Scene, new_inboxes: Callable[..., Inboxes]) -> None:
    """The first mails are out and later batches still to be planned."""
    scene.inboxes = new_inboxes(scene.deployment, *SLOWLY)
    item = await scene.publish()
    await scene.until_received(1)
    await scene.desk.withdraw(item, "Fel underlag.")
    took_effect_at = now()
    reach = await all_told(scene, item)
    mails = scene.inboxes.of(item)
    check_nobody_after(mails, 1, took_effect_at)
    faulty = by_revision(mails, 1)
    assert set(by_revision(mails, 2)) == set(faulty)
    assert len(mails) == 2 * len(faulty)
    check_reach(reach, sent=len(faulty), cancelled=reach["total"]["cancelled"], followed_up=len(faulty))
    await check_settled(scene)
    check_ledger(scene, item)


@asynccontextmanager
async def _subscriptions_stopped(scene: Scene) -> AsyncIterator[None]:
    """Its process, or, where that is everybody's, its database."""
    if isinstance(scene.deployment, Standalone):
        with scene.deployment.locked("subscriptions"):
            yield
        return
    await scene.end("subscriptions")
    yield
    await scene.start("subscriptions")


async def all_told(scene: Scene, item: str, *, within: float = 60.0) -> Json:
    """`reach`, once everybody who has the faulty revision has been told.

    What was on its way out when it was taken back arrives first, and is followed up within a second: in between, nobody
    waits for anything, and `reach` looks settled.
    """
    await scene.desk.reached(item, within=within)

    def told() -> bool:
        mails = scene.inboxes.of(item)
        untold = set(by_revision(mails, 1)) - set(by_revision(mails, 2))
        assert not untold, untold
        return True

    await eventually(told, within=within)
    return await scene.desk.reached(item, within=within)


def check_reach(reach: Json, **mails: int) -> None:
    """The editor's page counts what the mail server saw: who has it, who was spared it, who was told of the change."""
    first, then = ([row for row in reach[what] if row["channel"] == "mail"] for what in ("audiences", "follow_ups"))
    counted = {state: sum(row[state] for row in first) for state in ("sent", "cancelled")}
    assert {**counted, "followed_up": sum(row["sent"] for row in then)} == mails


def _check_corrected(mail: Mail, original: Mail | None) -> None:
    """Who had the faulty one gets a correction in its thread; who had not gets the right text as if nothing had been."""
    text = mail.part("plain")
    assert CHANGES["title"] in text
    assert (BODY_MARK in text) == (mail.to in NEWSROOMS)
    if original is None:
        assert mail.header("Subject") == CHANGES["title"]
        assert not mail.header("In-Reply-To")
    else:
        assert mail.header("Subject") == f"Rättelse: {CHANGES['title']}"
        assert mail.header("In-Reply-To") == original.message_id
        assert "Siffran var fel." in text


def by_revision(mails: list[Mail], revision: int) -> dict[str, Mail]:
    return {mail.to: mail for mail in mails if mail.revision == revision}


async def _check_told(scene: Scene, item: str, kind: str) -> None:
    """The intranet, which had the first revision at once, was told as well."""
    bodies = [one.body.decode() for one in scene.told if one.path == HOOK and item in one.body.decode()]
    assert len(bodies) == 2
    assert kind in bodies[1]
