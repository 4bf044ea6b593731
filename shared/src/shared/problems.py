"""Errors for a person and for a program: `application/problem+json` (RFC 9457).

Every problem has a stable `code`; each faulty field has a JSON pointer (RFC 6901), a code of its own and the mend in
English and Swedish. No stack trace, no SQL and no token ever leaves the service.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from shared import correlation
from shared.complaints import words
from shared.database import is_transient
from shared.logging import TOLD

log = structlog.get_logger()

CONTENT_TYPE = "application/problem+json"
TYPE_URL = "https://budkavle.example/problems/"
RETRY_AFTER_S = "5"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

TITLES = {
    400: ("bad_request", "The request could not be read"),
    401: ("unauthorized", "A valid key is needed"),
    403: ("forbidden", "The key may not do this"),
    404: ("not_found", "There is nothing here"),
    405: ("method_not_allowed", "The method is not allowed here"),
    406: ("not_acceptable", "That format is not offered"),
    409: ("conflict", "The request does not fit the present state"),
    410: ("gone", "This has been taken away"),
    412: ("precondition_failed", "Somebody else changed it first"),
    413: ("payload_too_large", "The request is too large"),
    415: ("unsupported_media_type", "The content type is not understood"),
    422: ("invalid_request", "Something in the request must be mended"),
    428: ("precondition_required", "Say which version you read (If-Match)"),
    429: ("too_many_requests", "Too many requests"),
    500: ("internal_error", "Something went wrong on our side"),
    503: ("unavailable", "The service cannot answer right now"),
}

MENDS = {
    401: "Send a key of this service: `Authorization: Bearer bk_…`.",
    404: "Check the id and the address.",
    405: "The Allow header names the methods that there are.",
    412: "Read it again, and send its present ETag in If-Match.",
    428: "Read it first, and send its ETag in If-Match.",
}
"""What to do where the problem itself says no more."""

MENDS_SV = {
    412: "Någon annan hann före. Läs in på nytt och skicka den ETag som gäller nu i If-Match.",
    428: "Läs in först, och skicka ETag i If-Match.",
}

HEADERS = {412: "if-match", 428: "if-match"}
"""The header that is at fault, by the status that says so."""

NAME_ITSELF = "[key]"
"""How pydantic says that the fault is in a member's name, not in its value."""

FAULTS_NAMED = 100

CODES = {"missing": "missing_field", "extra_forbidden": "unknown_field"}


class FieldError(BaseModel):
    """What is wrong with one field, and the mend."""

    pointer: str = Field(description="JSON pointer (RFC 6901) into the body; `?name` for a query parameter or a header")
    code: str
    message: str
    message_sv: str


class ProblemDocument(BaseModel):
    """The body of every error answer (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str = ""
    instance: str = Field(description="the correlation id, to be quoted when asking for help")
    errors: list[FieldError] = []


class Problem(Exception):
    """Raise it anywhere in a request; it becomes the answer."""

    def __init__(
        self,
        status: int,
        code: str = "",
        detail: str = "",
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail or code)
        self.status = status
        self.code = code or TITLES.get(status, TITLES[500])[0]
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})


def invalid(pointer: str, code: str, message: str, message_sv: str) -> Problem:
    """A 422 about one field."""
    return Problem(422, errors=[FieldError(pointer=pointer, code=code, message=message, message_sv=message_sv)])


def about_header(name: str, code: str, message: str, message_sv: str) -> FieldError:
    """What is wrong with a header."""
    return FieldError(pointer=f"?{name}", code=code, message=message, message_sv=message_sv)


def pointer_to(*path: object) -> str:
    """A JSON pointer (RFC 6901) into the body."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def response(problem: Problem) -> JSONResponse:
    """The problem as an answer."""
    detail = problem.detail or MENDS.get(problem.status, "")
    header = HEADERS.get(problem.status)
    if header and not problem.errors:
        problem.errors = [about_header(header, problem.code, detail, MENDS_SV[problem.status])]
    document = ProblemDocument(
        type=TYPE_URL + problem.code,
        title=TITLES.get(problem.status, TITLES[500])[1],
        status=problem.status,
        code=problem.code,
        detail=detail,
        instance=correlation.current().correlation_id,
        errors=problem.errors,
    )
    return JSONResponse(
        document.model_dump(), status_code=problem.status, headers=problem.headers, media_type=CONTENT_TYPE
    )


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(DBAPIError, _on_database)
    app.add_exception_handler(PoolTimeout, _on_pool)
    app.add_exception_handler(ClientDisconnect, _on_gone)
    app.add_exception_handler(Exception, _on_crash)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` for the errors that an operation may answer with."""
    return {
        status: {
            "description": TITLES[status][1],
            "content": {CONTENT_TYPE: {"schema": ProblemDocument.model_json_schema()}},
        }
        for status in statuses
    }


async def _on_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return response(error)


async def _on_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    details = error.errors()
    if isinstance(error.body, bytes) and error.body and any(detail["loc"] == ("body",) for detail in details):
        # FastAPI parses JSON alone, and hands a body of any other type to the model as it came.
        return response(Problem(415, detail="Send it as application/json."))
    if any(detail["type"] == "json_invalid" for detail in details):
        return response(Problem(400, "malformed_json", str(details[0].get("ctx", {}).get("error", ""))))
    named = [field_error(detail) for detail in details[:FAULTS_NAMED]]
    left_out = f"The first {FAULTS_NAMED} of {len(details)} faults are named." if details[FAULTS_NAMED:] else ""
    return response(Problem(422, detail=left_out, errors=named))


def field_error(detail: Mapping[str, Any], prefix: str = "") -> FieldError:
    """A pydantic error as one of ours; the input is left out, it may be personal."""
    place, *path = detail["loc"] or ("body",)
    if path[1:] and path[-1] == NAME_ITSELF:
        path.pop()
    pointed = pointer_to(*path)
    if place in ("query", "header", "cookie"):
        pointed = "?" + pointed.removeprefix("/")
    kind = str(detail["type"])
    message, message_sv = words(kind, detail.get("ctx", {}))
    return FieldError(
        pointer=prefix + pointed or "/", code=CODES.get(kind, kind), message=message, message_sv=message_sv
    )


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = {"Allow": ", ".join(_methods(request))} if error.status_code == 405 else error.headers
    # Ours, which names the limit, or the form parser's, which says what it could not read; no other says more than we.
    detail = error.detail if error.status_code in (400, 413) else ""
    return response(Problem(error.status_code, detail=detail, headers=headers))


def _methods(request: Request) -> list[str]:
    """What the path answers to (RFC 9110, section 10.2.1); the framework names the first route's methods alone."""

    def answers(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return [method for method in METHODS if answers(method)]


async def _on_database(request: Request, error: Exception) -> Response:
    return await _on_pool(request, error) if is_transient(error) else await _on_crash(request, error)


async def _on_pool(_request: Request, error: Exception) -> Response:
    log.warning("database_unavailable", error=type(error).__name__)
    return response(Problem(503, "database_unavailable", headers={"Retry-After": RETRY_AFTER_S}))


async def _on_gone(_request: Request, _error: Exception) -> Response:
    return response(Problem(400, detail="The body did not end."))  # read by nobody: the client hung up


async def _on_crash(request: Request, error: Exception) -> Response:
    tell_crash(request, error)
    return response(Problem(500))


def tell_crash(request: Request, error: Exception) -> None:
    """Log a crash; once, however many layers it passes on its way out (the HTTP server's own line is left out too)."""
    if not hasattr(error, TOLD):
        log.error("request_failed", method=request.method, route=_route(request), exc_info=error)
        setattr(error, TOLD, True)


def _route(request: Request) -> str:
    """The route's pattern, never the path: paths may hold tokens."""
    return getattr(request.scope.get("route"), "path", "")
