"""`/healthz` says that the process runs, `/readyz` that it can do its job, `/metrics` how it has been doing.

Liveness never asks the broker or the database: restarting a service does not mend them. A service whose
broker is away is ready all the same, because its outbox keeps what it has to say; the answer tells of it. The metrics
say of each whether it answered when they were read, so that an alarm can tell whose fault it is.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest

from shared.routes import Router
from shared.tasks import bounded

Check = Callable[[], Coroutine[Any, Any, bool]]
CHECK_TIMEOUT_S = 3.0

answers = Gauge("budkavle_answers", "1 while what the service depends on answers it", ["what"])


def health_router(needed: dict[str, Check], told: dict[str, Check] | None = None) -> Router:
    """The three paths. `needed` must hold for readiness; `told` is only reported."""
    router = Router(include_in_schema=False)
    known = {**needed, **(told or {})}

    @router.get("/healthz")
    async def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok")

    @router.get("/readyz")
    async def readyz() -> JSONResponse:
        checks = await _all(known)
        ready = all(checks[name] for name in needed)
        return JSONResponse({"ready": ready, "checks": checks}, status_code=200 if ready else 503)

    @router.get("/metrics")
    async def metrics() -> Response:
        for name, holds in (await _all(known)).items():
            answers.labels(name).set(holds)
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router


async def _all(checks: dict[str, Check]) -> dict[str, bool]:
    """At once: each may take its whole time."""
    return dict(zip(checks, await asyncio.gather(*map(_holds, checks.values())), strict=True))


async def _holds(check: Check) -> bool:
    try:
        return await bounded(check(), CHECK_TIMEOUT_S)
    except Exception:  # noqa: BLE001 - whatever it was, the check does not hold
        return False
