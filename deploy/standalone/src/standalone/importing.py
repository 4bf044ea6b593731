"""Sends a CSV file to the subscriptions' import, and reads what came of it.

The file is taken whole or not at all; each fault names its line and column. Line 1 holds the columns' names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from shared.contracts.news import Audience

PATH = "/api/subscriptions/v1/imports"
ROLLS_PATH = "/api/subscriptions/v1/rolls"
TIMEOUT_S = 120.0


class Refused(Exception):
    """The service was not reached, or would not take the file for another reason than its lines."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong in one line."""

    line: int
    column: str
    message: str


@dataclass(frozen=True, slots=True)
class Result:
    """What an import did, or would do. `answer` is the service's own, for programs; `etag` names a comparison."""

    accepted: bool
    summary: str
    faults: tuple[Fault, ...]
    answer: dict[str, Any]
    etag: str = ""


def upload(url: str, key: str, file: Path, *, audience: Audience, dry_run: bool) -> Result:
    """Import `file` at the site `url`; raises `Refused`."""
    return read(_post(url, PATH, key, file, dry_run=dry_run, data={"audience": audience.value}))


def upload_roll(url: str, key: str, file: Path, *, shown: str | None) -> Result:
    """Compare the roll with what the site `url` knows or, with the ETag `shown`, apply what was shown; raises
    `Refused`.
    """
    return read(_post(url, ROLLS_PATH, key, file, dry_run=shown is None, headers={"If-Match": shown} if shown else {}))


def _post(
    url: str,
    path: str,
    key: str,
    file: Path,
    *,
    dry_run: bool,
    data: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> httpx2.Response:
    try:
        return httpx2.post(
            url.rstrip("/") + path,
            params={"dry_run": str(dry_run).lower()},
            data=data,
            files={"file": (file.name, file.read_bytes(), "text/csv")},
            headers={"Authorization": f"Bearer {key}", **(headers or {})},
            timeout=TIMEOUT_S,
        )
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Refused(f"nobody answers at {url} ({error or type(error).__name__})") from error


def read(response: httpx2.Response) -> Result:
    """What the service answered; raises `Refused` where it is not about the file's lines."""
    try:
        answer: Any = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Refused(f"the site answers {response.status_code}, and not as Budkavle does")
    faults = tuple(_fault(error) for error in answer.get("errors", []))
    if not response.is_success and not any(fault.line for fault in faults):
        raise Refused(f"{answer.get('title', response.status_code)}: {answer.get('detail') or _first(faults)}")
    accepted = response.is_success and not faults
    return Result(accepted, _summary(answer, faults), faults, answer, response.headers.get("etag", ""))


def _fault(error: dict[str, Any]) -> Fault:
    return Fault(int(error.get("line", 0)), str(error.get("column", "")), str(error.get("message", "")))


def _first(faults: tuple[Fault, ...]) -> str:
    return faults[0].message if faults else ""


def _summary(answer: dict[str, Any], faults: tuple[Fault, ...]) -> str:
    if faults:
        more = answer.get("errors_left_out", 0)
        return f"Nothing was imported: {counted(len(faults) + more, 'fault')}" + (
            f", the first {len(faults)}:" if more else ":"
        )
    if "rolls" in answer:
        counts = ", ".join(f"{_total(answer, name)} {name}" for name in ("joining", "leaving", "changing", "staying"))
    else:
        counts = ", ".join(f"{answer[name]} {name}" for name in ("created", "updated", "unchanged"))
    return f"{'Would be: ' if answer['dry_run'] else ''}{counts} ({counted(answer['rows'], 'line')})"


def _total(answer: dict[str, Any], name: str) -> int:
    return sum(roll[name] if isinstance(roll[name], int) else len(roll[name]) for roll in answer["rolls"])


def differences(answer: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """A comparison of rolls by person: council, what happens, who, and what changes."""
    for roll in answer["rolls"]:
        council = " ".join([roll["organisation"], *roll["municipalities"]])
        for what, name in (("new", "joining"), ("leaves", "leaving"), ("changes", "changing")):
            for person in roll[name]:
                fields = (
                    f"{field['field']}: {field['before']} → {field['after']}" for field in person.get("fields", ())
                )
                yield council, what, f"{person['name']} <{person['address']}>", "; ".join(fields)


def counted(number: int, what: str) -> str:
    """The number with its noun: 1 line, 2 lines."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
