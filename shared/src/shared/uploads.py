"""Files that come by the API: read only of whoever may send one, no further than a limit, and a few at a time.

FastAPI reads a form before it asks for the key. Here the key is asked for first, so that a stranger fills neither
memory nor disk: a form lies in memory or in `/tmp`, which is memory too in a container.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from shared.keys import Scope, authorised, bearer
from shared.problems import Problem
from shared.strict_json import announced, limited

FRAME_BYTES = 100_000
"""What a form has beside its file."""
UPLOADS_AT_ONCE = 4


def bounded(max_file_bytes: int) -> type[APIRoute]:
    """The class of routes whose POST takes a file of at most so much."""
    max_bytes = max_file_bytes + FRAME_BYTES

    class BoundedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def read_within_bounds(request: Request) -> Response:
                if request.method != "POST":
                    return await handle(request)
                await authorised(request, await bearer(request), Scope.WRITE)
                if announced(request.scope) > max_bytes:
                    raise too_large(max_file_bytes)
                async with request.app.state.uploads:
                    return await handle(Request(request.scope, limited(request.receive, max_bytes)))

            return read_within_bounds

    return BoundedRoute


def too_large(max_file_bytes: int) -> Problem:
    """413, with the limit."""
    return Problem(413, detail=f"The file is larger than {max_file_bytes} bytes.")
