"""Public answers may be kept by anybody and are asked for anew each time, so that a correction shows at once."""

from hashlib import sha256

from fastapi import Request, Response

ALWAYS_ASK = "public, max-age=0, must-revalidate"
KEPT_ON_304 = ("cache-control", "content-language", "vary", "etag")


def revalidated(request: Request, response: Response) -> Response:
    """`response` with an ETag; 304 without a body where the reader has it already (RFC 9110, section 13.1.2)."""
    tag = f'"{sha256(response.body).hexdigest()[:24]}"'
    response.headers["ETag"] = tag
    response.headers["Cache-Control"] = ALWAYS_ASK
    if _knows(request.headers.get("if-none-match", ""), tag):
        kept = {name: value for name, value in response.headers.items() if name in KEPT_ON_304}
        return Response(status_code=304, headers=kept)
    return response


def _knows(if_none_match: str, tag: str) -> bool:
    known = [candidate.strip().removeprefix("W/") for candidate in if_none_match.split(",")]
    return tag in known or known == ["*"]
