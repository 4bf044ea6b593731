"""The site's stylesheet and icons at `/static`.

Links carry the file's fingerprint, so that a browser may keep it for a year and still gets a new one on the day it
changes.
"""

from functools import cache
from hashlib import sha256
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FOLDER = Path(__file__).parent / "static"
STYLESHEET = "budkavle.css"
FOR_EVER = "public, max-age=31536000, immutable"
FOR_AN_HOUR = "public, max-age=3600"


class _FingerprintedFiles(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        fingerprinted = scope["query_string"] == f"v={_fingerprint()}".encode()
        response.headers["Cache-Control"] = FOR_EVER if fingerprinted else FOR_AN_HOUR
        return response


def static_files(app: FastAPI) -> None:
    """Serve the files at `/static`."""
    app.mount("/static", _FingerprintedFiles(directory=FOLDER), name="static")


def stylesheet_url() -> str:
    """The stylesheet's address, with its fingerprint."""
    return f"/static/{STYLESHEET}?v={_fingerprint()}"


@cache
def _fingerprint() -> str:
    return sha256((FOLDER / STYLESHEET).read_bytes()).hexdigest()[:12]
