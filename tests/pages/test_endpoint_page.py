"""An endpoint's own page in a real browser: by keyboard alone, wide and narrow, in each state that it can have."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import update
from tests.eventually import eventually
from tests.integration.distributor.webhook_room import HookRoom, opened
from tests.pages.visitor import Visitor
from tests.servers.migrated import migrated_sqlite
from tests.servers.receiver import Answer, HttpReceiver

from distributor.app import build
from distributor.webhooks.links import EndpointLinks
from distributor.webhooks.models import Endpoint
from shared.service import HttpServer
from shared.tokens import TokenSigner
from shared.web.static import static_files

LONG_ANSWER = b"<!DOCTYPE html><html><head><title>IIS 10.0 Detailed Error - 500.19</title></head>" + b"x" * 3000
LONG_NAME = "Insidan-för-medarbetare-i-Kalmar-kommun-och-kommunalförbunden"


@pytest.fixture
async def hooks(tmp_path: Path, free_port: int) -> AsyncIterator[tuple[HookRoom, str]]:
    """A distributor on a real port, and where it is."""
    url, origin = migrated_sqlite("distributor", tmp_path), f"http://127.0.0.1:{free_port}"
    async with opened(url, public_url=origin, host="127.0.0.1", port=free_port) as room, _served(room):
        yield room, origin


@asynccontextmanager
async def _served(hooks: HookRoom) -> AsyncIterator[None]:
    service = build(hooks.settings)
    static_files(service.app)
    server = HttpServer(service.app, hooks.settings)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield
    server.should_exit = True
    await serving
    await service.database.dispose()


async def _tried(hooks: HookRoom, times: int) -> None:
    await hooks.publish()

    async def enough() -> bool:
        return len(await hooks.tried()) >= times

    async with hooks.sending():
        await eventually(enough, within=30)


def _link(hooks: HookRoom, origin: str, endpoint: UUID, generation: int = 1) -> str:
    signer = TokenSigner([key.get_secret_value() for key in hooks.settings.secret_keys])
    return EndpointLinks(origin, signer).page(endpoint, generation)


async def test_a_contact_mends_it_by_keyboard(
    hooks: tuple[HookRoom, str], visitor: Visitor, http_receiver: HttpReceiver
) -> None:
    room, origin = hooks
    own = {"Authorization": "Bearer h3mligt", "Ocp-Apim-Subscription-Key-For-The-Intranet-Of-The-County": "k" * 32}
    endpoint = await room.endpoint(http_receiver.url("/" + "mycket-lang-vag/" * 8 + "hook"), headers=own)
    async with room.database.transaction() as session:
        await session.execute(update(Endpoint).values(name=LONG_NAME))
        generation = (await session.get_one(Endpoint, endpoint)).generation
    page = visitor.page
    await page.goto(_link(room, origin, endpoint, generation))
    await visitor.look("new", LONG_NAME, "Vi har inte skickat något hit än.", "Inga försök än.", *own)
    assert "h3mligt" not in await page.content()
    http_receiver.by_default(Answer(500, {}, LONG_ANSWER))
    await _tried(room, 3)
    await page.reload()
    await visitor.look("failing", "Det vi skickar kommer inte fram.", "Servern svarade 500", "Misslyckade försök i rad")
    await visitor.press("Skicka ett prov")
    await visitor.look("sample-failed", "Provet kom inte fram", "Servern svarade 500")
    http_receiver.by_default(200)
    await visitor.press("Skicka ett prov")
    await visitor.look("sample-arrived", "Provet kom fram", "Allt kommer fram.")
    await visitor.press("Gör en ny hemlighet")
    await visitor.look("secret", "Här är den nya hemligheten", "whsec_")
    for _ in range(4):
        await visitor.press("Gör en ny hemlighet")
    await visitor.look("secrets-enough", "Det finns redan fem hemligheter som gäller.")
    await page.goto(_link(room, origin, endpoint, generation) + "?lang=en")
    await visitor.look("english", "Send a sample")
    assert visitor.asked == {origin}
    assert [one for one in visitor.complaints if "409" not in one] == []


async def test_what_is_disabled_or_dead_says_so(
    hooks: tuple[HookRoom, str], visitor: Visitor, http_receiver: HttpReceiver
) -> None:
    room, origin = hooks
    http_receiver.by_default(410)
    endpoint = await room.endpoint(http_receiver.url("/hook"))
    async with room.database.reading() as session:
        generation = (await session.get_one(Endpoint, endpoint)).generation
    await _tried(room, 1)
    await visitor.page.goto(_link(room, origin, endpoint, generation))
    await visitor.look("disabled", "Vi skickar ingenting hit just nu.", "410")
    await visitor.page.goto(f"{origin}/intranat/none")
    await visitor.look("dead", "Länken gäller inte längre")
    assert visitor.asked == {origin}
    assert [one for one in visitor.complaints if "404" not in one] == []
