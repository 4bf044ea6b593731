"""Who comes in to the office's pages, for how long, and who does not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select, text
from tests.integration.subscriptions.conftest import ADMIN
from tests.integration.subscriptions.office import FROM_HERE, Clerk, Seen
from tests.servers.migrated import migrated_sqlite

from shared import keys
from shared.clock import FixedClock
from shared.keys import Scope
from shared.service import Service
from subscriptions.app import build
from subscriptions.office.models import OfficeSession
from subscriptions.weeding import Weeder

COOKIE = "__Host-budkavle-kansli"
PEOPLE = "/kansli/personer"


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """SQLite alone: nothing here asks what the two databases answer differently."""
    return migrated_sqlite("subscriptions", tmp_path)


@pytest.fixture
async def clerk(service: Service) -> AsyncIterator[Clerk]:
    clerk = Clerk(service)
    yield clerk
    await clerk.browser.aclose()


@asynccontextmanager
async def of_another_service(service: Service, **settings: Any) -> AsyncIterator[Clerk]:
    """A clerk at one that has the same database and other settings."""
    changed: Any = service.settings.model_copy(update=settings)
    other = build(changed, service.clock)
    clerk = Clerk(other)
    try:
        yield clerk
    finally:
        await clerk.browser.aclose()
        await other.database.dispose()


async def a_key(service: Service, *scopes: Scope) -> str:
    async with service.database.transaction() as session:
        return await keys.create(session, name="Kansliet", scopes=scopes, at=service.clock.now())


async def sessions(service: Service) -> list[OfficeSession]:
    async with service.database.reading() as session:
        return list(await session.scalars(select(OfficeSession)))


async def test_a_key_opens_the_door_and_the_page_that_was_asked_for(clerk: Clerk) -> None:
    answer = await clerk.browser.get(f"{PEOPLE}?lage=paused")
    assert answer.status_code == 303
    sign_in = answer.headers["location"]
    assert sign_in == "/kansli/logga-in?vidare=%2Fkansli%2Fpersoner%3Flage%3Dpaused"
    page = await clerk.look(sign_in)
    [onward] = [e.get("value") for e in page.tree.iter("input") if e.get("name") == "vidare"]
    answer = await clerk.sign_in(onward=onward)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{PEOPLE}?lage=paused")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert {part.strip().lower() for part in cookie.split(";")[1:]} >= {"secure", "httponly", "samesite=lax", "path=/"}
    assert "domain" not in cookie.lower()
    answer = await clerk.browser.get(PEOPLE)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert "Inloggad med nyckeln admin." in Seen(answer.text).text


async def test_a_wrong_key_says_so_and_opens_nothing(clerk: Clerk, service: Service) -> None:
    reading = await a_key(service, Scope.READ, Scope.WRITE, Scope.PUBLISH)
    for key, status in (("bk_nobody_at-all", 403), (reading, 403), ("", 422), ("ö" * 10_000, 403)):
        answer = await clerk.sign_in(key)
        assert answer.status_code == status
        assert "set-cookie" not in answer.headers
        assert "Något behöver rättas" in Seen(answer.text).text
        assert key == "" or key not in answer.text
    assert await sessions(service) == []


async def test_every_sign_in_has_a_cookie_of_its_own(clerk: Clerk, service: Service) -> None:
    await clerk.sign_in()
    first = clerk.browser.cookies[COOKIE]
    await clerk.sign_in()
    second = clerk.browser.cookies[COOKIE]
    [kept] = await sessions(service)
    assert len({first, second, kept.token_sha256}) == 3
    async with service.database.reading() as session:
        row = str((await session.execute(text("SELECT * FROM office_sessions"))).one())
    assert second not in row
    assert ADMIN not in row
    clerk.browser.cookies.clear()
    clerk.browser.cookies.set(COOKIE, first, domain="nyheter.example")
    assert (await clerk.browser.get(PEOPLE)).status_code == 303


async def test_it_closes_when_nobody_comes_and_after_a_working_day(
    clerk: Clerk, service: Service, clock: FixedClock
) -> None:
    await clerk.sign_in()
    for _ in range(13):  # whoever works stays in, but not for ever
        clock.advance(timedelta(minutes=55))
        assert (await clerk.browser.get(PEOPLE)).status_code == 200
    clock.advance(timedelta(minutes=10))
    assert (await clerk.browser.get(PEOPLE)).status_code == 303
    await clerk.sign_in()
    clock.advance(timedelta(minutes=60))
    assert (await clerk.browser.get(PEOPLE)).status_code == 303
    [weeder] = [worker for worker in service.workers if isinstance(worker, Weeder)]
    await weeder.weed()
    assert await sessions(service) == []


async def test_signing_out_ends_it_here_and_there(clerk: Clerk, service: Service) -> None:
    await clerk.sign_in()
    token = clerk.browser.cookies[COOKIE]
    answer = await clerk.post("/kansli/logga-ut")
    assert "Du är utloggad." in (await clerk.look(answer.headers["location"])).text
    assert COOKIE not in clerk.browser.cookies
    clerk.browser.cookies.set(COOKIE, token, domain="nyheter.example")
    assert (await clerk.browser.get(PEOPLE)).status_code == 303
    assert await sessions(service) == []


async def test_a_revoked_key_ends_its_sessions(clerk: Clerk, service: Service) -> None:
    key = await a_key(service, Scope.ADMIN)
    await clerk.sign_in(key)
    assert (await clerk.browser.get(PEOPLE)).status_code == 200
    async with service.database.transaction() as session:
        assert await keys.revoke(session, key.split("_")[1], service.clock.now())
    assert (await clerk.browser.get(PEOPLE)).status_code == 303


@pytest.mark.parametrize("newer", ["another-key-of-the-settings", None])
async def test_another_key_in_the_settings_ends_the_sessions_of_the_former(
    clerk: Clerk, service: Service, newer: str | None
) -> None:
    await clerk.sign_in()
    async with of_another_service(service, admin_key=SecretStr(newer) if newer else None) as later:
        later.browser.cookies = clerk.browser.cookies
        assert (await later.browser.get(PEOPLE)).status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://nyheter.example.evil.example"},
        {**FROM_HERE, "Sec-Fetch-Site": "cross-site"},
        {**FROM_HERE, "Sec-Fetch-Site": "same-site"},
    ],
)
async def test_b22_a_form_on_another_site_does_nothing(clerk: Clerk, service: Service, headers: dict[str, str]) -> None:
    """B22."""
    await clerk.sign_in()
    for path in ("/kansli/logga-ut", "/kansli/logga-in"):
        assert (await clerk.post(path, headers, nyckel=ADMIN)).status_code == 403
    assert len(await sessions(service)) == 1


@pytest.mark.parametrize(
    "onward",
    ["//evil.example/kansli", "https://evil.example/kansli/", "/\\evil.example", "/kansliet", "", "/kansli\\@evil"],
)
async def test_b30_signing_in_leads_nowhere_else(clerk: Clerk, onward: str) -> None:
    """B30."""
    assert (await clerk.sign_in(onward=onward)).headers["location"] == "/kansli"


async def test_tries_are_limited_by_name(clerk: Clerk, clock: FixedClock) -> None:
    for _ in range(30):
        assert (await clerk.sign_in("bk_nobody_at-all")).status_code == 403
    answer = await clerk.sign_in()
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) == 3600
    assert "fler än 30 försök att logga in från ditt nätverk" in Seen(answer.text).text
    clock.advance(timedelta(hours=1))
    assert (await clerk.sign_in()).status_code == 303


async def test_without_encryption_no_key_is_taken_but_on_the_own_machine(service: Service) -> None:
    for origin, status, prefix in (
        ("http://intern.example", 403, ""),
        ("http://localhost:8080", 303, "budkavle-kansli="),
        ("http://127.0.0.1:8080", 303, "budkavle-kansli="),
    ):
        async with of_another_service(service, public_url=origin) as clerk:
            answer = await clerk.post(
                "/kansli/logga-in", {"Origin": origin, "Sec-Fetch-Site": "same-origin"}, nyckel=ADMIN, vidare=""
            )
        assert answer.status_code == status, origin
        assert answer.headers.get("set-cookie", "").startswith(prefix)
        assert "secure" not in answer.headers.get("set-cookie", "").lower()
