"""What is posted to the pages: read with a limit, and refused when another site posted it.

Refusing cross-site posts keeps a page elsewhere from acting with a link that leaked to it, or with the cookie that a
link was exchanged for. The one-click POST of RFC 8058 comes from mail
providers and is no browser's: it is not asked where it comes from.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.types import Message

from shared.forms import in_utf8
from shared.problems import Problem

MAX_BYTES = 64_000
MAX_FIELDS = 200
PATIENCE = 10
"""How many times the limit is thrown away."""


async def read_form(request: Request) -> FormData:
    """The form (urlencoded or multipart); an empty one where the body is neither. 413 beyond the limit."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            raise Problem(413, detail=f"The form is larger than {MAX_BYTES} bytes.")

    async def replay() -> Message:
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    try:
        return await Request(in_utf8(request.scope), replay).form(max_files=0, max_fields=MAX_FIELDS)
    except HTTPException:
        return FormData()


class TooLarge(Exception):
    """More was posted than is taken."""


@asynccontextmanager
async def uploaded(request: Request, limit: int) -> AsyncIterator[FormData]:
    """A form with one file, which lies on disk where it is large. Beyond the limit `TooLarge`: the rest is read and
    thrown away first, since a browser that still sends hears no answer.
    """
    size = 0

    async def receive() -> Message:
        nonlocal size
        message = await request.receive()
        size += len(message.get("body", b""))
        if size <= limit:
            return message
        while message.get("more_body") and size < limit * PATIENCE:
            message = await request.receive()
            size += len(message.get("body", b""))
        raise MultiPartException("too large")  # the parser closes its files on this one alone

    try:
        form = await Request(in_utf8(request.scope), receive).form(max_files=1, max_fields=MAX_FIELDS)
    except HTTPException as error:
        if size > limit:
            raise TooLarge from error
        form = FormData()
    try:
        yield form
    finally:
        await form.close()


def texts(form: FormData, name: str) -> list[str]:
    """Every text under `name`; what PostgreSQL cannot keep is cut out."""
    return [value.replace("\0", "").strip() for value in form.getlist(name) if isinstance(value, str)]


def text(form: FormData, name: str) -> str:
    return next(iter(texts(form, name)), "")
