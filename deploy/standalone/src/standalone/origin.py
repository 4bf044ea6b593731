"""One origin, three services: sends every request to the service whose path it is, as a reverse proxy would.

The longest prefix wins, whole path segments only. Health and metrics are answered for all services together.
"""

from collections.abc import Mapping, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from shared.health import Check, health_router
from shared.messaging.bus import Bus
from shared.openapi import Application
from shared.service import Service

HEALTH_PATHS = ("/healthz", "/readyz", "/metrics")


class Origin:
    """The application that answers on the port. `mounts` gives each path prefix its application."""

    def __init__(self, mounts: Mapping[str, ASGIApp]) -> None:
        self._mounts = sorted(mounts.items(), key=lambda mount: len(mount[0]), reverse=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._of(scope["path"])(scope, receive, send)

    def _of(self, path: str) -> ASGIApp:
        for prefix, app in self._mounts:
            if path == prefix or path.startswith(prefix.rstrip("/") + "/"):
                return app
        return self._mounts[-1][1]


def one_origin(services: Sequence[Service], extra: Mapping[str, ASGIApp] | None = None) -> Origin:
    """The path table of all `services`, their health, and whatever `extra` is mounted beside them."""
    mounts: dict[str, ASGIApp] = {path: service.app for service in services for path in service.paths}
    health = _health(services)
    mounts.update(dict.fromkeys(HEALTH_PATHS, health))
    mounts.update(extra or {})
    return Origin(mounts)


def _health(services: Sequence[Service]) -> Application:
    app = Application(openapi_url=None, docs_url=None, redoc_url=None)
    needed = {f"{service.name} database": _database_answers(service) for service in services}
    told = {"broker": _broker_answers(services)}
    app.serve(health_router(needed, told))
    return app


def _database_answers(service: Service) -> Check:
    async def check() -> bool:
        await service.database.ping()
        return True

    return check


def _broker_answers(services: Sequence[Service]) -> Check:
    async def check() -> bool:
        buses: list[Bus] = [service.bus for service in services if service.bus is not None]
        return len(buses) == len(services) and all(bus.is_ready() for bus in buses)

    return check
