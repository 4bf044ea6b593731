"""Cursor pages: `{data, next_cursor}` and a `Link: rel="next"` (RFC 8288). A cursor is opaque and stays valid."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated, Generic, TypeVar
from uuid import UUID

from fastapi import Query, Request, Response
from pydantic import BaseModel

from shared.problems import Problem, invalid

T = TypeVar("T")
MAX_LIMIT = 100

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]
CURSOR = r"[A-Za-z0-9_-]{21}[AQgw]"
"""16 bytes; the last character has bits to spare, which are nought: one spelling for one cursor."""
Cursor = Annotated[
    str | None,
    Query(description="`next_cursor` of the page before", json_schema_extra={"pattern": f"^{CURSOR}$"}),
]


class Page(BaseModel, Generic[T]):
    """One page of a list; `next_cursor` is null on the last."""

    data: list[T]
    next_cursor: str | None = None


def encode(last: UUID) -> str:
    """The cursor of the page after `last`."""
    return urlsafe_b64encode(last.bytes).rstrip(b"=").decode()


def decode(cursor: str | None) -> UUID | None:
    """The id behind a cursor; 422 where it is none of ours."""
    return None if cursor is None else key_of(cursor)


def key_of(cursor: str) -> UUID:
    """The same of one that there is."""
    if not re.fullmatch(CURSOR, cursor):
        raise unknown_cursor()
    return UUID(bytes=urlsafe_b64decode(cursor + "=="))


def unknown_cursor() -> Problem:
    """A cursor that is none of ours."""
    message = "Use the next_cursor of an earlier page."
    return invalid("?cursor", "invalid_cursor", message, "Sidmarkören är okänd. Börja från början.")


def link_next(request: Request, response: Response, cursor: str | None) -> None:
    """Announce the next page in a header."""
    if cursor:
        url = request.url.include_query_params(cursor=cursor)
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
