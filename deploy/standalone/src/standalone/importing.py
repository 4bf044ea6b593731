"""Sends a CSV file to the subscriptions' import, and reads what came of it.

The file is taken whole or not at all; each fault names its line and column. Line 1 holds the columns' names. A large
file is taken in by a worker over there: we ask how far it is until it has ended, also across a restart of the service.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from shared.contracts.news import Audience

PATH = "/api/subscriptions/v1/imports"
ROLLS_PATH = "/api/subscriptions/v1/rolls"
TIMEOUT_S = 120.0
ASK_EVERY_S = 0.5
PATIENCE_S = 60.0
"""How long nobody may answer while an import is under way."""

Told = Callable[[dict[str, Any]], None]


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


def upload(url: str, key: str, file: Path, *, audience: Audience, dry_run: bool, tell: Told) -> Result:
    """Import `file` at the site `url`; raises `Refused`. `tell` hears how far a large one is."""
    answer = _post(url, PATH, key, file, dry_run=dry_run, data={"audience": audience.value})
    if answer.status_code != httpx2.codes.ACCEPTED:
        return read(answer)
    return read(_ended(url.rstrip("/") + answer.headers["location"], key, tell))


def _ended(place: str, key: str, tell: Told) -> httpx2.Response:
    """What the site says of an import when it has ended."""
    heard_s = time.monotonic()
    with httpx2.Client(headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT_S) as client:
        while True:
            try:
                answer = client.get(place)
            except httpx2.HTTPError:
                answer = None
            if answer is not None and answer.is_success:
                heard_s, told = time.monotonic(), answer.json()
                tell(told)
                if told["ended_at"]:
                    return answer
            if time.monotonic() - heard_s > PATIENCE_S:
                raise Refused(f"nobody answers at {place}; what was sent is kept there and goes on by itself")
            time.sleep(ASK_EVERY_S)


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
    state = answer.get("state", "")
    if state in ("failed", "cancelled"):
        raise Refused(f"the import ended before all of it was in: {answer['rows_done']} of {answer['rows']} lines are")
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
    return f"{'Would be: ' if answer.get('dry_run') else ''}{counts} ({counted(answer['rows'], 'line')})"


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
