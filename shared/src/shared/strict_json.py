"""Refuses JSON that different readers read differently, before anything is done with it.

RFC 8259 leaves open what duplicate names, NaN, numbers beyond a double's range and lone surrogates mean; PostgreSQL
takes no NUL in a text. Each of them is answered with 400 or 422 and the reason. Bodies are read up to a limit.
"""

import json
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import problems
from shared.problems import FieldError, Problem

MAX_BODY_BYTES = 2_000_000
MAX_OTHER_BYTES = 21_000_000
"""Of what is not JSON: an import of 20 MB and what a form wraps it in. Nothing is read without a limit."""
MAX_DEPTH = 64
MAX_INTEGER = 2**63 - 1


class StrictJsonMiddleware:
    """Reads the body of JSON requests, refuses what is ambiguous, hands on the rest unchanged."""

    def __init__(self, app: ASGIApp, *, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not _is_json(scope):
            await self._app(scope, limited(receive, MAX_OTHER_BYTES), send)
            return
        try:
            body = await self._read(receive)
            check(body)
        except Problem as problem:
            await problems.response(problem)(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    async def _read(self, receive: Receive) -> bytes:
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                raise Problem(413, detail=f"The body is larger than {self._max_bytes} bytes.")
            if message["type"] != "http.request" or not message.get("more_body"):
                return bytes(body)


def check(body: bytes) -> None:
    """Raise a `Problem` unless `body` is JSON with one meaning (an empty body passes: the route knows better)."""
    if not body:
        return
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Problem(400, "malformed_json", f"The body is not UTF-8 (byte {error.start}).") from error
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise Problem(400, "malformed_json", f"{error.msg} (character {error.pos}).") from error
    except RecursionError as error:
        raise Problem(400, "malformed_json", "The body is nested too deep.") from error
    _check(value, "", 0)


@dataclass(frozen=True, slots=True)
class _Ambiguous:
    """Stands in what was read for what has no one meaning, until it is known where that is."""

    code: str
    message: str
    message_sv: str
    field: str = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Ambiguous:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    names = [name for name, _ in pairs]
    twice = next(name for name in names if names.count(name) > 1)
    return _Ambiguous("duplicate_field", "The field stands twice.", "Fältet finns två gånger.", twice)


def _constant(name: str) -> _Ambiguous:
    return _Ambiguous("invalid_number", f"{name} is no number in JSON.", f"{name} är inget tal i JSON.")


def _integer(digits: str) -> int | _Ambiguous:
    if len(digits) > 20 or abs(int(digits)) > MAX_INTEGER:
        return _Ambiguous("invalid_number", "The integer is outside ±(2⁶³ - 1).", "Heltalet är för stort.")
    return int(digits)


def _check(value: Any, pointer: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Problem(400, "malformed_json", "The body is nested too deep.")
    if isinstance(value, str):
        _check_text(value, pointer)
    elif isinstance(value, _Ambiguous):
        place = _inside(pointer, value.field) if value.field else pointer
        raise _refusal(place, value.code, value.message, value.message_sv)
    elif isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise _refusal(pointer, "invalid_number", "The number is too large.", "Talet är för stort.")
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check_text(name, pointer)
            _check(inner, _inside(pointer, name), depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check(inner, f"{pointer}/{index}", depth + 1)


def _inside(pointer: str, name: str) -> str:
    """RFC 6901."""
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"


def _check_text(text: str, pointer: str) -> None:
    if "\0" in text:
        raise _refusal(pointer, "invalid_text", "The text holds a NUL character.", "Texten innehåller ett styrtecken.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        message = f"The text holds a lone surrogate (character {error.start})."
        raise _refusal(pointer, "invalid_text", message, f"Tecken {error.start} i texten är ogiltigt.") from error


def _refusal(pointer: str, code: str, message: str, message_sv: str) -> Problem:
    fault = FieldError(pointer=pointer or "/", code=code, message=message, message_sv=message_sv)
    return Problem(422, code, message, errors=[fault])


def _is_json(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"content-type":
            kind = value.split(b";")[0].strip().lower()
            return bool(kind == b"application/json" or kind.endswith(b"+json"))
    return False


def limited(receive: Receive, max_bytes: int) -> Receive:
    """`receive`, which ends in a 413 as soon as more than so much has come."""
    read = 0

    async def counted() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > max_bytes:
            raise HTTPException(413, f"The body is larger than {max_bytes} bytes.")
        return message

    return counted


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
