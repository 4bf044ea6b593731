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
            document = super().openapi()
            for path in document.get("paths", {}).values():
                for operation in path.values():
                    _add(operation)
                    _close_form(document, operation)
        return super().openapi()


def _add(operation: dict[str, Any]) -> None:
    statuses = (*EVERYWHERE, *(WITH_A_BODY if "requestBody" in operation else ()))
    for status, described in documented(*statuses).items():
        operation["responses"].setdefault(str(status), described)
    operation["responses"] = dict(sorted(operation["responses"].items()))


def _close_form(document: dict[str, Any], operation: dict[str, Any]) -> None:
    """The form that brings a file has no other fields than those it names (`shared.uploads.alone`)."""
    form = operation.get("requestBody", {}).get("content", {}).get("multipart/form-data")
    if form:
        name = form["schema"]["$ref"].rpartition("/")[2]
        document["components"]["schemas"][name]["additionalProperties"] = False
