"""What a service is made of, and how its parts run: HTTP, consumers, relay, workers.

`serve` answers HTTP, `work` consumes, sends and sweeps, `run` does both. The relay runs in every mode, so that an
event leaves right after the commit of the request that caused it. A worker that raises is started again after a
second: one that has died must not stop the rest, and its work lies safe in the database. On SIGTERM it is not ready any
more, for `leave_s` it goes on as before, then nothing new is begun and what is in hand is finished, within `DRAIN_S`;
whatever hangs, it ends within `STOP_S`.
"""

import asyncio
import signal
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog
import uvicorn
from starlette.types import ASGIApp

from shared.clock import Clock
from shared.database import Database, is_transient
from shared.health import health_router
from shared.http_connection import patient
from shared.messaging.bus import Bus
from shared.messaging.consumer import Consumer
from shared.messaging.embedded import EmbeddedBus
from shared.messaging.rabbitmq import RabbitMQBus
from shared.messaging.relay import Relay
from shared.openapi import Application
from shared.settings import Settings
from shared.tasks import end

log = structlog.get_logger()

DRAIN_S = 10.0
"""For each step of the end: requests, messages, workers, relay."""
STOP_S = 25.0
"""For all of them together. What is cut off then is safe in the database, like after a death."""
RESTART_AFTER_S = 1.0
SLOW_CLIENT_S = 10.0
"""How long a client may leave a head, a body or an answer lying (`http_connection`)."""


class Worker(Protocol):
    """A long-running part of a service. It returns soon after `stop` is set, with nothing left half done."""

    name: str

    async def run(self, stop: asyncio.Event) -> None: ...


@dataclass(slots=True)
class Service:
    """One service, built but not running. `paths` are the prefixes it answers behind the one origin."""

    name: str
    settings: Settings
    database: Database
    clock: Clock
    app: Application
    migrations: Path
    paths: tuple[str, ...]
    consumers: Sequence[Consumer] = ()
    workers: Sequence[Worker] = ()
    bus: Bus | None = None
    leaving: bool = False
    """It was told to stop: not ready any more, for whoever sends it requests."""
    _relay: Relay | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self, bus: Bus, *, work: bool) -> None:
        """Begin to publish and, with `work`, to consume and to do the service's own work."""
        self.bus = bus
        await bus.start()
        self._relay = Relay(self.name, self.database, bus, self.clock)
        self._tasks.append(asyncio.create_task(self._relay.run(), name=f"{self.name} relay"))
        if not work:
            return
        for consumer in self.consumers:
            await bus.consume(consumer.queue, consumer.receive)
        for worker in self.workers:
            self._tasks.append(asyncio.create_task(self._supervise(worker), name=f"{self.name} {worker.name}"))

    async def stop(self, ends_at: float) -> None:
        """End in order: workers first, then the relay, the database last. The bus is its owner's to close. What has not
        ended at `ends_at`, on the loop's clock, is cancelled.
        """
        self._stop.set()
        relay, workers = self._tasks[:1], self._tasks[1:]
        if workers:
            _, late = await asyncio.wait(workers, timeout=_room(ends_at))
            for task in late:
                log.warning("worker_cancelled", worker=task.get_name())
            await end(late)
        if self._relay:
            self._relay.stop()
            _, late = await asyncio.wait(relay, timeout=_room(ends_at))
            await end(late)
        await self.database.dispose()

    def install_health(self) -> None:
        """Add `/healthz`, `/readyz` and `/metrics` to the application."""
        needed = {"database": self._database_answers, "stays": self._stays}
        self.app.serve(health_router(needed, {"broker": self._broker_answers}))

    async def _stays(self) -> bool:
        return not self.leaving

    async def _database_answers(self) -> bool:
        await self.database.ping()
        return True

    async def _broker_answers(self) -> bool:
        return self.bus is not None and self.bus.is_ready()

    async def _supervise(self, worker: Worker) -> None:
        while not self._stop.is_set():
            try:
                await worker.run(self._stop)
            except Exception as error:
                if is_transient(error):
                    log.warning("worker_waits", worker=worker.name, error=type(error).__name__)
                else:
                    log.error("worker_failed", worker=worker.name, exc_info=error)
                await asyncio.sleep(RESTART_AFTER_S)


def open_bus(settings: Settings) -> Bus:
    """The transport that the settings name."""
    if settings.broker_url.startswith("embedded:"):
        return EmbeddedBus(Path(settings.broker_url.removeprefix("embedded:")))
    return RabbitMQBus(settings.broker_url)


class HttpServer(uvicorn.Server):
    """Uvicorn that leaves signals to the process around it."""

    def __init__(self, app: ASGIApp, settings: Settings, *, slow_client_s: float = SLOW_CLIENT_S) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=patient(slow_client_s),
                ws="none",
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=bool(settings.trusted_proxies),
                forwarded_allow_ips=settings.trusted_proxies or None,
                timeout_keep_alive=max(1, int(slow_client_s)),
                timeout_graceful_shutdown=int(DRAIN_S),
                lifespan="off",
            )
        )

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def run(
    services: Sequence[Service],
    app: ASGIApp,
    settings: Settings,
    *,
    serve: bool,
    work: bool,
    stopped: asyncio.Event | None = None,
) -> None:
    """Run services in this process, all on one bus, until SIGTERM or SIGINT, or until the caller sets `stopped`."""
    stopped = stopped or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    bus = open_bus(settings)
    server = HttpServer(app, settings)
    for service in services:
        await service.start(bus, work=work)
    serving = asyncio.create_task(server.serve(), name="http")
    log.info("service_started", serve=serve, work=work, port=settings.port)
    await asyncio.wait({serving, asyncio.create_task(stopped.wait())}, return_when=asyncio.FIRST_COMPLETED)
    for service in services:
        service.leaving = True
    await asyncio.sleep(settings.leave_s)
    ends_at = loop.time() + STOP_S
    server.should_exit = True
    await asyncio.gather(serving, return_exceptions=True)
    await _drain(bus, ends_at)
    for service in services:
        await service.stop(ends_at)
    await bus.close()
    log.info("service_stopped")


def _room(ends_at: float) -> float:
    """Seconds that a step of the end may take."""
    return max(min(DRAIN_S, ends_at - asyncio.get_running_loop().time()), 0.0)


async def _drain(bus: Bus, ends_at: float) -> None:
    try:
        await asyncio.wait_for(bus.drain(), _room(ends_at))
    except TimeoutError:
        log.warning("bus_drain_timed_out")
