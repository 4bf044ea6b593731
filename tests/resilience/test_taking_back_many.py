"""F54 at its size: five thousand are to get an item, and two thousand of them have it when it is corrected or withdrawn. A
deployment of its own."""

from collections.abc import Callable, Iterator

import pytest
from tests.inboxes import Inboxes
from tests.resilience.house import Home, own_home
from tests.resilience.scene import (
    EVERYBODY,
    TAKES_EFFECT_S,
    Scene,
    check_ledger,
    check_nobody_after,
    check_once_each,
    check_settled,
    now,
)
from tests.resilience.test_taking_back import CHANGES, all_told, by_revision, check_reach
from tests.servers.postgres import PrivatePostgres

pytestmark = pytest.mark.soak
CROWD = frozenset(f"skara{number}@folk.example" for number in range(5_000 - len(EVERYBODY)))
HAVE_IT = 2_000


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    with own_home(PrivatePostgres(durable=False)) as home:
        yield home


@pytest.fixture
async def everybody(scene: Scene) -> frozenset[str]:
    await scene.desk.import_file("public", "\n".join(("email", *CROWD)).encode())
    return EVERYBODY | CROWD


async def test_f54_corrected_when_two_of_five_thousand_have_it(
    scene: Scene, everybody: frozenset[str], new_inboxes: Callable[..., Inboxes]
) -> None:
    scene.inboxes = new_inboxes(scene.deployment, "--delay", "0.01")
    item = await scene.publish()
    await scene.until_received(HAVE_IT, within=120)
    await scene.desk.correct(item, CHANGES, "Siffran var fel.")
    took_effect_at = now()
    reach = await all_told(scene, item, within=180)
    mails = scene.inboxes.of(item)
    faulty = _measured(scene, item, took_effect_at)
    check_once_each([mail for mail in mails if mail.revision == 2], everybody)
    assert all(
        mail.header("In-Reply-To") == faulty[mail.to] for mail in mails if mail.revision == 2 and mail.to in faulty
    )
    check_reach(reach, sent=len(everybody), cancelled=0, followed_up=len(faulty))
    await check_settled(scene)
    check_ledger(scene, item)


async def test_f54_withdrawn_when_two_of_five_thousand_have_it(
    scene: Scene, everybody: frozenset[str], new_inboxes: Callable[..., Inboxes]
) -> None:
    scene.inboxes = new_inboxes(scene.deployment, "--delay", "0.01")
    item = await scene.publish()
    await scene.until_received(HAVE_IT, within=120)
    await scene.desk.withdraw(item, "Fel underlag.")
    took_effect_at = now()
    reach = await all_told(scene, item, within=180)
    faulty = _measured(scene, item, took_effect_at)
    check_once_each([mail for mail in scene.inboxes.of(item) if mail.revision == 2], frozenset(faulty))
    check_reach(reach, sent=len(faulty), cancelled=reach["total"]["cancelled"], followed_up=len(faulty))
    await check_settled(scene)
    check_ledger(scene, item)


def _measured(scene: Scene, item: str, took_effect_at: float) -> dict[str, str]:
    """Who has the first revision, and under which Message-ID; each once, and nobody late."""
    mails = scene.inboxes.of(item)
    check_nobody_after(mails, 1, took_effect_at)
    faulty = by_revision(mails, 1)
    check_once_each([mail for mail in mails if mail.revision == 1], frozenset(faulty))
    last = max(mail.dot_at for mail in faulty.values()) - took_effect_at
    print(f"measured: {len(faulty)} of 5000 had it, the last {last:.2f} s after, of {TAKES_EFFECT_S} that it may be")
    return {to: mail.message_id for to, mail in faulty.items()}
