"""docker-compose.yml as Compose reads it: variables filled in, merges resolved."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
SERVICES = ("content", "subscriptions", "distributor")
GIVEN = {"BUDKAVLE_PUBLIC_URL": "https://nyheter.forbundet.example", "BUDKAVLE_SENDER": "nyheter@forbundet.example"}

# Innermost first, so that a default may itself hold a variable.
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?P<how>:-|:\?|:\+)?(?P<rest>[^${}]*)\}")


class Refused(Exception):
    """Compose would not start: a variable that has no default is not given."""


def text() -> str:
    return (ROOT / "docker-compose.yml").read_text()


def interpolated(given: Mapping[str, str]) -> str:
    """The file's text with `${NAME}`, `${NAME:-default}`, `${NAME:+instead}` and `${NAME:?complaint}` filled in."""

    def value(match: re.Match[str]) -> str:
        if given.get(match["name"]):
            return match["rest"] if match["how"] == ":+" else given[match["name"]]
        if match["how"] == ":?":
            raise Refused(match["name"])
        return match["rest"] if match["how"] == ":-" else ""

    result = re.sub(r"(?m)^\s*#.*$", "", text())
    while VARIABLE.search(result):
        result = VARIABLE.sub(value, result)
    return result


def composed(given: Mapping[str, str] | None = None) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(interpolated(GIVEN if given is None else given))
    return loaded


def variables() -> set[str]:
    return {match["name"] for match in re.finditer(r"\$\{(?P<name>\w+)", text())}
