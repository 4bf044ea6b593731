"""Resident memory of running processes, sampled in a thread: the highest seen, in megabytes."""

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

EVERY_S = 0.2


class Watch:
    """`with Watch({"content": pid, …}) as watch: …; watch.highest`"""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.highest: dict[str, float] = dict.fromkeys(pids, 0.0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(EVERY_S):
            for name, pid in self._pids.items():
                self.highest[name] = max(self.highest[name], resident_mb(pid))


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def idle_share(seconds: float = 1.0) -> float:
    """How much of the machine nobody used, over so many seconds: 1.0 is an idle machine."""
    before = _jiffies()
    time.sleep(seconds)
    after = _jiffies()
    total = sum(after) - sum(before)
    return (after[3] - before[3]) / total if total else 1.0


def _jiffies() -> list[int]:
    return [int(part) for part in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, its threads together."""
    return _ticks(pid, 2) / os.sysconf("SC_CLK_TCK")


def family_cpu_seconds(pid: int) -> float:
    """The same with its children, those that have ended too."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (_ticks(pid, 4) + sum(_ticks(int(child), 2) for child in children)) / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int, fields: int) -> int:
    """Of user, system, and then the same two of children that have been waited for (proc(5))."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:  # it has just ended: it counts as the parent's own
        return 0
    return sum(map(int, told.rpartition(")")[2].split()[11 : 11 + fields]))
