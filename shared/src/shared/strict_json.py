"""Refuses JSON that different readers read differently, before anything is done with it.

RFC 8259 leaves open what duplicate names, NaN, numbers beyond a double's range and lone surrogates mean; PostgreSQL
takes no NUL in a text. Each of them is answered with 400 or 422 and the reason. Bodies are read up to a limit.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import problems
from shared.problems import FieldError, Problem, pointer_to

MAX_BODY_BYTES = 2_000_000
MAX_OTHER_BYTES = 21_000_000
"""Of what is not JSON: an import of 20 MB and what a form wraps it in. Nothing is read without a limit."""
MAX_DEPTH = 64
MAX_VALUES = 10_000
"""In one body; what is sent to us in earnest holds some hundred. Checking each of a million takes a minute."""
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
            body = await self._read(receive, announced(scope))
            check(body)
        except Problem as problem:
            await problems.response(problem)(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    async def _read(self, receive: Receive, size: int) -> bytes:
        if size > self._max_bytes:
            raise Problem(413, detail=f"The body is {size} bytes, larger than {self._max_bytes} bytes.")
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
    _Walk().check(value)


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
    return _Ambiguous("duplicate_field", "The field stands twice.", "Fältet finns två gånger.", _first_twice(pairs))


def _first_twice(pairs: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    return next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def _constant(name: str) -> _Ambiguous:
    return _Ambiguous("invalid_number", f"{name} is no number in JSON.", f"{name} är inget tal i JSON.")


def _integer(digits: str) -> int | _Ambiguous:
    if len(digits) > 20 or abs(int(digits)) > MAX_INTEGER:
        return _Ambiguous("invalid_number", "The integer is outside ±(2⁶³ - 1).", "Heltalet är för stort.")
    return int(digits)


class _Walk:
    """Through a body, value by value. The place is put into words only where something is refused."""

    def __init__(self) -> None:
        self._path: list[str | int] = []
        self._values = 0

    def check(self, value: Any) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            raise Problem(413, detail=f"The body holds more than {MAX_VALUES} values.")
        if len(self._path) > MAX_DEPTH:
            raise Problem(400, "malformed_json", "The body is nested too deep.")
        if isinstance(value, str):
            self._check_text(value)
        elif isinstance(value, _Ambiguous):
            self._path += [value.field] if value.field else []
            raise self._refusal(value.code, value.message, value.message_sv)
        elif isinstance(value, float) and value in (float("inf"), float("-inf")):
            raise self._refusal("invalid_number", "The number is too large.", "Talet är för stort.")
        elif isinstance(value, dict):
            self._check_inside(value.items())
        elif isinstance(value, list):
            self._check_inside(enumerate(value))

    def _check_inside(self, members: Iterable[tuple[str | int, Any]]) -> None:
        for name, inner in members:
            if isinstance(name, str):
                self._check_text(name)
            self._path.append(name)
            self.check(inner)
            self._path.pop()

    def _check_text(self, text: str) -> None:
        nul = text.find("\0")
        if nul >= 0:
            message = f"The text holds a NUL character (character {nul})."
            raise self._refusal("invalid_text", message, f"Tecken {nul} i texten är ett styrtecken.")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            message = f"The text holds a lone surrogate (character {error.start})."
            raise self._refusal("invalid_text", message, f"Tecken {error.start} i texten är ogiltigt.") from error

    def _refusal(self, code: str, message: str, message_sv: str) -> Problem:
        pointer = pointer_to(*self._path) or "/"
        fault = FieldError(pointer=pointer, code=code, message=message, message_sv=message_sv)
        return Problem(422, code, message, errors=[fault])


def _is_json(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"content-type":
            kind = value.split(b";")[0].strip().lower()
            return bool(kind == b"application/json" or kind.endswith(b"+json"))
    return False


def announced(scope: Scope) -> int:
    """How many bytes the body has, as its head says; 0 where it does not say."""
    length: bytes = dict(scope["headers"]).get(b"content-length", b"")
    return int(length) if length.isdigit() else 0


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
