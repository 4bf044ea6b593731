"""Public answers may be kept by anybody and are asked for anew each time, so that a correction shows at once."""

from collections.abc import Mapping
from hashlib import sha256

from fastapi import Request, Response

ALWAYS_ASK = "public, max-age=0, must-revalidate"
KEPT_ON_304 = ("cache-control", "content-language", "vary", "etag")


def revalidated(request: Request, response: Response) -> Response:
    """`response` with an ETag; 304 without a body where the reader has it already (RFC 9110, section 13.1.2)."""
    tag = f'"{sha256(response.body).hexdigest()[:24]}"'
    response.headers["ETag"] = tag
    response.headers["Cache-Control"] = ALWAYS_ASK
    return unchanged(response.headers) if is_known(request, tag) else response


def is_known(request: Request, tag: str) -> bool:
    """Whether the reader has what this tag stands for."""
    told = request.headers.get("if-none-match", "")
    known = [candidate.strip().removeprefix("W/") for candidate in told.split(",")]
    return tag in known or known == ["*"]


def unchanged(headers: Mapping[str, str]) -> Response:
    """304, with those of the answer's headers that belong to it."""
    kept = {name: value for name, value in headers.items() if name.lower() in KEPT_ON_304}
    return Response(status_code=304, headers=kept)
