"""The OpenAPI document of a service: what the house itself may answer stands in every operation, said once here.

Whatever is asked for may be too much, or in a format that is not offered; whatever reads the database may answer 503;
whatever takes a body may refuse it before the service looks at it.
"""

from typing import Any

from fastapi import FastAPI

from shared.problems import documented
from shared.routes import Router

EVERYWHERE = (406, 429, 503)
WITH_A_BODY = (400, 413, 415, 422)


class Application(FastAPI):
    """A FastAPI application whose document knows the house's habits."""

    def serve(self, *routers: Router) -> None:
        """Answer their paths. `include_router` would build every route anew for each application (a twentieth of a
        second of a service's start), and look through them twice a request.
        """
        for router in routers:
            self.router.routes.extend(router.routes)

    def openapi(self) -> dict[str, Any]:
        """The document; made once."""
        if self.openapi_schema is None:
            for path in super().openapi().get("paths", {}).values():
                for operation in path.values():
                    _add(operation)
        return super().openapi()


def _add(operation: dict[str, Any]) -> None:
    statuses = (*EVERYWHERE, *(WITH_A_BODY if "requestBody" in operation else ()))
    for status, described in documented(*statuses).items():
        operation["responses"].setdefault(str(status), described)
    operation["responses"] = dict(sorted(operation["responses"].items()))
