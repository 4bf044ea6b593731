"""What the office's lists share: what is asked for in the address, and links that keep it."""

from collections.abc import Mapping

from fastapi import Request

from shared.web.pages import href, reader_language

LONGEST_ASKED = 200


def asked(request: Request, name: str) -> str:
    """What the address asks for by this name, as far as it can be looked for."""
    typed = request.query_params.get(name, "")[:LONGEST_ASKED]
    return "".join(character for character in typed if character.isprintable()).strip()


def kept(request: Request, *names: str) -> dict[str, str]:
    """All that a list is narrowed by."""
    return {name: asked(request, name) for name in names}


def linked(request: Request, path: str, query: Mapping[str, str]) -> str:
    """A link to the list with this query, without what is empty."""
    return href(reader_language(request), path, **{name: value for name, value in query.items() if value})
