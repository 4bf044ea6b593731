"""What has arrived at the sink since a moment: read as it grows, with the sink's own instants."""

import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.servers.sink import SinkProcess


@dataclass(frozen=True)
class Arrived:
    """Mails accepted (250 given), by recipient, with the unix time of each."""

    accepted_at: dict[str, float]

    @property
    def first(self) -> float:
        return min(self.accepted_at.values())

    @property
    def last(self) -> float:
        return max(self.accepted_at.values())


class Arrivals:
    """Begin one before the mails are asked for."""

    def __init__(self, sink: SinkProcess) -> None:
        self._log: Path = sink.log
        self._offset = self._log.stat().st_size if self._log.exists() else 0

    def wait(self, count: int, *, within: float, every: float = 0.1) -> Arrived:
        """Until `count` mails are accepted, each to another recipient and none twice."""
        deadline = time.monotonic() + within
        arrived = 0
        lines: list[bytes] = []
        with self._log.open("rb") as log:
            log.seek(self._offset)
            while arrived < count:
                block = log.read()
                lines.append(block)
                arrived += block.count(b"\n")
                assert time.monotonic() < deadline, f"{arrived} of {count} mails arrived within {within:g} s"
                time.sleep(0 if block else every)
        found = [json.loads(line) for line in b"".join(lines).splitlines() if line]
        accepted = {line["rcpt"][0]: line["answered_at"] for line in found}
        assert len(accepted) == len(found) == count, f"{len(found)} mails to {len(accepted)} recipients, not {count}"
        return Arrived(accepted)


class Accepted:
    """The same for several kinds of readers at once: `accepted_at` by the word before the first dot of their address."""

    def __init__(self, sink: SinkProcess) -> None:
        self._log: Path = sink.log
        self._offset = self._log.stat().st_size
        self.accepted_at: defaultdict[str, list[float]] = defaultdict(list)

    def count(self, audience: str) -> int:
        return len(self.accepted_at[audience])

    def have(self, audience: str, count: int) -> bool:
        return self.count(audience) >= count

    def wait(self, until: Callable[[], bool], *, within: float) -> None:
        deadline = time.monotonic() + within
        while not until():
            with self._log.open("rb") as log:
                log.seek(self._offset)
                *lines, rest = log.read().split(b"\n")
                self._offset = log.tell() - len(rest)
            for line in map(json.loads, lines):
                self.accepted_at[line["rcpt"][0].partition(".")[0]].append(line["answered_at"])
            assert time.monotonic() < deadline, {name: len(each) for name, each in self.accepted_at.items()}
            time.sleep(0 if lines else 0.01)
