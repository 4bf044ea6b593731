"""Where a service writes its paths down, with the house's habits."""

from collections.abc import Sequence
from enum import Enum
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.params import Depends as Needed
from fastapi.routing import APIRoute

from shared.parameters import known_alone

EVERY_PATH_NEEDS = (Depends(known_alone),)


def operation_name(route: APIRoute) -> str:
    """Generated clients call functions by this name."""
    return route.name


class Router(APIRouter):
    """Paths of one noun. `Application.serve` takes its routes themselves."""

    def __init__(
        self,
        prefix: str = "",
        *,
        tags: list[str | Enum] | None = None,
        dependencies: Sequence[Needed] = (),
        responses: dict[int | str, dict[str, Any]] | None = None,
        route_class: type[APIRoute] = APIRoute,
        include_in_schema: bool = True,
    ) -> None:
        super().__init__(
            prefix=prefix,
            tags=tags,
            dependencies=[*EVERY_PATH_NEEDS, *dependencies],
            responses=responses,
            route_class=route_class,
            include_in_schema=include_in_schema,
            generate_unique_id_function=operation_name,
        )
