"""The standalone deployment: three services in one process, on one port, with one directory for everything.

Each service has its own database and hears the others over the bus alone, exactly as when it runs by itself. With no
mail server named, mail is caught and shown at `/mailbox`; it never goes out into the world by default.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from distributor import recovery
from shared.clock import Clock, SystemClock
from shared.database import Database
from shared.http import create_app
from shared.routes import Router
from shared.service import Service, run
from shared.web.pages import Pages, install_error_pages
from standalone.data_directory import DataDirectory
from standalone.ending import Ending
from standalone.failures import NotStarted, PortInUse
from standalone.mailbox.catcher import MailCatcher
from standalone.mailbox.pages import mailbox_router
from standalone.mailbox.store import MailStore
from standalone.origin import one_origin
from standalone.parts import PARTS, migrate, told
from standalone.settings import StandaloneSettings
from standalone.tables import FILE, create_tables
from subscriptions.imports import leasing

START_LIMIT_S = 30.0

SUCCESSIONS = {"distributor": recovery.succeed, "subscriptions": leasing.succeed}
MAILBOX_PATHS = ("/mailbox", "/mailbox.json")

Part = Callable[[Pages, Database], Router]
Companion = Callable[[asyncio.Event], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Standalone:
    """All that is decided before anything runs. `routers` are mounted beside the services, by path."""

    settings: StandaloneSettings
    directory: DataDirectory
    admin_key: str
    admin_key_is_new: bool = False
    routers: Mapping[str, Part] = field(default_factory=dict)
    clock: Clock = field(default_factory=SystemClock)
    ending: Ending = field(default_factory=Ending)

    @property
    def catches_mail(self) -> bool:
        return self.settings.smtp_url is None


@contextmanager
def prepared(settings: StandaloneSettings) -> Iterator[Standalone]:
    """The data directory, held for the length of the block, with its databases migrated and its secrets made.

    Raises `DirectoryInUse` or `PortInUse` before anything is touched, and `KeyboardInterrupt` between two steps.
    """
    directory, ending = DataDirectory(settings.data_dir), Ending()
    directory.create()
    with directory.locked(), ending.noted():
        check_port(settings.host, settings.port)
        for part in PARTS:
            migrate(part, settings)
            ending.heed()
        named = {"broker_url": settings.broker_url or directory.broker_url, "public_url": settings.origin()}
        key, is_new = _admin_key(settings, directory)
        yield Standalone(settings.model_copy(update=named), directory, key, is_new, ending=ending)


def _admin_key(settings: StandaloneSettings, directory: DataDirectory) -> tuple[str, bool]:
    if settings.admin_key is not None:
        return settings.admin_key.get_secret_value(), False
    return directory.admin_key()


def check_port(host: str, port: int) -> None:
    """Raise `PortInUse` unless the port is free: the HTTP server would say so too late and too long."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise PortInUse(f"port {port} is in use; choose another with BUDKAVLE_PORT") from error


async def serve(whole: Standalone, companion: Companion) -> None:
    """Run everything until SIGTERM or SIGINT, with `companion` beside it once the port answers.

    The companion is cancelled when the end has come, and may bring the end about by setting the event that it is
    given. When it raises, everything is stopped in order and the error is raised here.
    """
    stopped = asyncio.Event()
    whole.ending.stops(stopped)
    serving = asyncio.create_task(_serve(whole, stopped), name="standalone")
    beside = asyncio.create_task(_accompany(whole.settings, companion, stopped), name="companion")
    end = asyncio.create_task(stopped.wait())
    await asyncio.wait({serving, end}, return_when=asyncio.FIRST_COMPLETED)
    for task in (beside, end):
        task.cancel()
    _, companions = await asyncio.gather(serving, asyncio.gather(beside, return_exceptions=True))
    if isinstance(companions[0], Exception):
        raise companions[0]


async def _accompany(settings: StandaloneSettings, companion: Companion, stopped: asyncio.Event) -> None:
    try:
        await _answering(settings)
        await companion(stopped)
    except Exception:
        stopped.set()
        raise


async def _serve(whole: Standalone, stopped: asyncio.Event) -> None:
    database = Database(whole.directory.database_url(FILE), clock=whole.clock)
    store = MailStore(database, whole.clock, limit=whole.settings.mailbox_limit)
    catcher = MailCatcher(store) if whole.catches_mail else None
    services = _services(whole, catcher)
    app = one_origin(services, _beside(whole, database, store))
    try:
        await create_tables(database)
        await _succeed(services)
        if catcher:
            await catcher.start()
        await run(services, app, whole.settings, serve=True, work=True, stopped=stopped)
    finally:
        if catcher:
            await catcher.stop()
        await database.dispose()


async def _succeed(services: Sequence[Service]) -> None:
    """The directory's lock says that nobody else works at its files; a named database may have other workers."""
    for service in services:
        if service.name in SUCCESSIONS and service.database.is_sqlite:
            await SUCCESSIONS[service.name](service.database)


def _services(whole: Standalone, catcher: MailCatcher | None) -> list[Service]:
    own: dict[str, dict[str, Any]] = {
        "distributor": {"smtp_url": catcher.url} if catcher else {},
        "subscriptions": {"erased_file": whole.settings.erased_file or whole.directory.erased_file},
    }
    arguments = (whole.settings, whole.directory, whole.admin_key)
    return [part.build(told(part, *arguments, **own.get(part.name, {})), whole.clock) for part in PARTS]


def _beside(whole: Standalone, database: Database, store: MailStore) -> dict[str, ASGIApp]:
    """What standalone adds to the services' paths: one application with the house's habits."""
    pages = Pages(whole.settings, Path(__file__).parent)
    app = create_app("standalone", "Standalone", settings=whole.settings, database=database, clock=whole.clock)
    install_error_pages(app, pages)
    for router in whole.routers.values():
        app.serve(router(pages, database))
    if whole.catches_mail:
        origin, remote = whole.settings.origin(), whole.settings.mailbox_remote
        app.serve(mailbox_router(store, pages, origin=origin, remote=remote))
    paths = [*whole.routers, *(MAILBOX_PATHS if whole.catches_mail else ())]
    return dict.fromkeys(paths, app)


async def _answering(settings: StandaloneSettings) -> None:
    """Return when the port answers."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "") else settings.host  # noqa: S104 - compared, not bound
    deadline = asyncio.get_running_loop().time() + START_LIMIT_S
    while not await _answers(host, settings.port):
        if asyncio.get_running_loop().time() > deadline:
            raise NotStarted(f"nothing answered on port {settings.port} within {START_LIMIT_S:.0f} s")
        await asyncio.sleep(0.05)


async def _answers(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True
