"""`/healthz` says that the process runs, `/readyz` that it can do its job, `/metrics` how it has been doing.

Liveness never asks the broker or the database: restarting a service does not mend them. A service whose
broker is away is ready all the same, because its outbox keeps what it has to say; the answer tells of it.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared.tasks import bounded

Check = Callable[[], Coroutine[Any, Any, bool]]
CHECK_TIMEOUT_S = 3.0


def health_router(needed: dict[str, Check], told: dict[str, Check] | None = None) -> APIRouter:
    """The three paths. `needed` must hold for readiness; `told` is only reported."""
    router = APIRouter(include_in_schema=False)

    @router.get("/healthz")
    async def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok")

    @router.get("/readyz")
    async def readyz() -> JSONResponse:
        required = {name: await _holds(check) for name, check in needed.items()}
        reported = {name: await _holds(check) for name, check in (told or {}).items()}
        ready = all(required.values())
        return JSONResponse({"ready": ready, "checks": {**required, **reported}}, status_code=200 if ready else 503)

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router


async def _holds(check: Check) -> bool:
    try:
        return await bounded(check(), CHECK_TIMEOUT_S)
    except Exception:  # noqa: BLE001 - whatever it was, the check does not hold
        return False
