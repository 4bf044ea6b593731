"""Query parameters that an operation does not know are refused, as unknown fields of a body are.

A filter that is misspelt would otherwise be no filter: `subscribers?email=…` would answer with everybody. Pages take
whatever other sites hang on their links.
"""

from collections.abc import Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from shared.problems import FAULTS_NAMED, Problem, field_error


async def known_alone(request: Request) -> None:
    """422 where the API is asked with a parameter that the operation has not."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute) or not request.url.path.startswith("/api/"):
        return
    unknown = sorted(set(request.query_params).difference(_names(route.dependant)))
    if unknown:
        named = unknown[:FAULTS_NAMED]
        raise Problem(422, errors=[field_error({"loc": ("query", name), "type": "extra_forbidden"}) for name in named])


def _names(dependant: Dependant) -> Iterator[str]:
    yield from (parameter.alias for parameter in dependant.query_params)
    for needed in dependant.dependencies:
        yield from _names(needed)
