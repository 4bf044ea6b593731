"""Who is signed in with a key, and an end to it from elsewhere."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from tests.integration.subscriptions.office import Clerk, Seen

from shared import keys
from shared.clock import FixedClock
from shared.keys import Scope
from shared.service import Service

PATH = "/kansli/inloggningar"
OPENED = ["12 maj 2026 kl. 12.00", "12 maj 2026 kl. 12.10", "12 maj 2026 kl. 12.20"]


@pytest.fixture
async def key(service: Service) -> str:
    return await a_key(service)


@pytest.fixture
async def clerks(service: Service, key: str, clock: FixedClock) -> AsyncIterator[list[Clerk]]:
    """Three browsers with one key, ten minutes apart."""
    clerks = [Clerk(service) for _ in OPENED]
    for clerk in clerks:
        await clerk.sign_in(key)
        clock.advance(timedelta(minutes=10))
    yield clerks
    for clerk in clerks:
        await clerk.browser.aclose()


async def a_key(service: Service) -> str:
    async with service.database.transaction() as session:
        return await keys.create(session, name="Kansliet", scopes=[Scope.ADMIN], at=service.clock.now())


async def who_are_in(*clerks: Clerk) -> list[bool]:
    return [(await clerk.browser.get(PATH)).status_code == 200 for clerk in clerks]


def to_end(page: Seen, opened: str) -> str:
    return page.link(f"Avsluta inloggningen från {opened}")


async def test_a_session_is_ended_from_elsewhere_by_the_key(
    clerks: list[Clerk], service: Service, key: str, clock: FixedClock
) -> None:
    first, second, _ = clerks
    other = Clerk(service)
    await other.sign_in(await a_key(service))
    assert (await other.look(PATH)).entries() == ["Inloggad sedan 12 maj 2026 kl. 12.30 Den här"]
    clock.advance(timedelta(minutes=5))
    page = await second.look(PATH)
    newest, middle, oldest = (f"Inloggad sedan {opened_at}" for opened_at in OPENED[::-1])
    assert page.entries() == [newest, f"{middle} Den här", oldest]
    assert f"Senast använd {OPENED[0]}" in page.text
    assert "Senast använd 12 maj 2026 kl. 12.35" in (await second.look(PATH)).text
    door = to_end(page, OPENED[0])
    assert OPENED[0] in (await second.look(door)).text
    assert await who_are_in(*clerks, other) == [True] * 4, "nothing ends by looking"
    answer = await second.post(door, nyckel=key)
    assert "Inloggningen är avslutad." in (await second.look(answer.headers["location"])).text
    assert await who_are_in(*clerks, other) == [False, True, True, True]
    assert (await second.post(door, nyckel=key)).status_code == 303, "to end it twice is no fault"
    assert await who_are_in(*clerks, other) == [False, True, True, True]
    await second.look(door, 404)
    await first.sign_in(key)
    assert await who_are_in(first) == [True], "it was a session that ended, not the key"
    await other.browser.aclose()


async def test_all_others_are_ended_at_once(clerks: list[Clerk], service: Service, key: str) -> None:
    other = Clerk(service)
    await other.sign_in()
    page = await clerks[2].look(PATH)
    answer = await clerks[2].post(page.link("Avsluta alla andra"), nyckel=key)
    seen = await clerks[2].look(answer.headers["location"])
    assert "Alla andra inloggningar är avslutade." in seen.text
    assert "Ingen annan är inloggad med nyckeln." in seen.text
    assert await who_are_in(*clerks, other) == [False, False, True, True]
    await other.browser.aclose()


@pytest.mark.parametrize("which", ["one", "all"])
async def test_without_the_own_key_none_is_ended(clerks: list[Clerk], service: Service, key: str, which: str) -> None:
    page = await clerks[0].look(PATH)
    door = page.link("Avsluta alla andra") if which == "all" else to_end(page, OPENED[1])
    for typed, status in (("", 422), ("bk_nobody_at-all", 403), (await a_key(service), 403), (f"{key}x", 403)):
        answer = await clerks[0].post(door, nyckel=typed)
        assert (answer.status_code, "Något behöver rättas" in Seen(answer.text).text) == (status, True)
        assert typed == "" or typed not in answer.text
    assert (await clerks[0].post(door, {"Origin": "https://evil.example"}, nyckel=key)).status_code == 403
    assert await who_are_in(*clerks) == [True] * 3


async def test_trying_keys_is_limited_as_at_the_door(clerks: list[Clerk]) -> None:
    door = (await clerks[0].look(PATH)).link("Avsluta alla andra")
    for _ in range(27):  # three signed in
        assert (await clerks[0].post(door, nyckel="bk_nobody_at-all")).status_code == 403
    answer = await clerks[0].post(door, nyckel="bk_nobody_at-all")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, str(30 * 60))
    assert "fler än 30 försök att logga in från ditt nätverk" in Seen(answer.text).text


async def test_sessions_that_ended_are_not_listed(clerks: list[Clerk], clock: FixedClock) -> None:
    clock.advance(timedelta(minutes=35))  # the first was opened 65 minutes ago, and nobody has come since
    assert len((await clerks[1].look(PATH)).entries()) == 2
    await clerks[1].post("/kansli/logga-ut")
    assert (await clerks[2].look(PATH)).entries() == [f"Inloggad sedan {OPENED[2]} Den här"]


async def test_only_sessions_of_the_own_key_have_a_door(clerks: list[Clerk], service: Service, key: str) -> None:
    stranger, strange = Clerk(service), await a_key(service)
    await stranger.sign_in(strange)
    door = to_end(await clerks[0].look(PATH), OPENED[1])
    for path in (door, f"{PATH}/nobody/avsluta", f"{PATH}/%/avsluta"):
        await stranger.look(path, 404)
        await stranger.post(path, nyckel=strange)
    assert await who_are_in(*clerks, stranger) == [True] * 4
    await clerks[0].post("/kansli/logga-ut")
    assert (await clerks[0].browser.get(door)).headers["location"].startswith("/kansli/logga-in?vidare=")
    assert (await clerks[0].post(door, nyckel=key)).status_code == 401
    assert await who_are_in(*clerks) == [False, True, True]
    await stranger.browser.aclose()
