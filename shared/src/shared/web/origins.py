"""Refuses what another site has a browser post here."""

from urllib.parse import urlsplit

from fastapi import Request

from shared.problems import Problem
from shared.web.visits import CLEAN


def refuse_cross_site(request: Request) -> None:
    """403 where a browser says that another site made it post. Under `no-referrer`, `Origin` is `null` for our own.

    A link is its own authority, and a program that says nothing of its origin may use it. Behind a clean address the
    authority is a cookie, which a browser adds by itself: there, silence is refused too.
    """
    fetched_from = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin", "null")
    ours = (origin_of(request.app.state.settings.public_url), origin_of(str(request.base_url)))
    is_foreign = fetched_from not in (None, "same-origin", "none") or origin not in (*ours, "null")
    is_silent = fetched_from is None and origin == "null"
    if is_foreign or (is_silent and request.path_params.get("token") == CLEAN):
        raise Problem(403, "cross_site", "The form was posted from another site.")


def origin_of(url: str) -> str:
    """Scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
