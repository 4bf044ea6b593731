"""Files that come by the API: read only of whoever may send one, no further than a limit, and a few at a time.

FastAPI reads a form before it asks for the key. Here the key is asked for first, so that a stranger fills neither
memory nor disk: a form lies in memory or in `/tmp`, which is memory too in a container.
"""

from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.params import Depends as Needed
from fastapi.routing import APIRoute

from shared.forms import in_utf8
from shared.keys import Scope, authorised, bearer
from shared.problems import FAULTS_NAMED, FieldError, Problem, field_error, pointer_to
from shared.strict_json import announced, limited

FRAME_BYTES = 100_000
"""What a form has beside its file."""
UPLOADS_AT_ONCE = 4

TWICE = ("The field stands twice.", "Fältet finns två gånger.")
NO_FILE = ("Send it as a file, with a filename.", "Skicka det som en fil, med filnamn.")


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
                    return await handle(Request(in_utf8(request.scope), limited(request.receive, max_bytes)))

            return read_within_bounds

    return BoundedRoute


def alone(*names: str) -> Needed:
    """A dependency: the form has no other fields than these, each once, and `file` is a file. A second file would be
    left aside in silence, and so would a field that is misspelt.
    """

    async def check(request: Request) -> None:
        faults = form_faults((await request.form()).multi_items(), names)
        if faults:
            raise Problem(422, errors=faults[:FAULTS_NAMED])

    return Needed(check)


def form_faults(fields: Sequence[tuple[str, object]], names: Collection[str]) -> list[FieldError]:
    """What a form has that it may not have."""
    stand = Counter(name for name, _ in fields)
    unknown = sorted(set(stand).difference(names))
    faults = [field_error({"loc": ("body", name), "type": "extra_forbidden"}) for name in unknown]
    faults += [_about(name, "duplicate_field", *TWICE) for name in sorted(names) if stand[name] > 1]
    faults += [_about(name, "no_file", *NO_FILE) for name, value in fields if name == "file" and isinstance(value, str)]
    return faults


def _about(name: str, code: str, message: str, message_sv: str) -> FieldError:
    return FieldError(pointer=pointer_to(name), code=code, message=message, message_sv=message_sv)


def too_large(max_file_bytes: int) -> Problem:
    """413, with the limit."""
    return Problem(413, detail=f"The file is larger than {max_file_bytes} bytes.")
