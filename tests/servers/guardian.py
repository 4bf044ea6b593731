"""Outlives a test run by a moment and ends what the run started: `python guardian.py RUN_DIRECTORY`.

Blocks, without polling, on the lock that the owner of the run holds; see `run.py`. Uses the standard library alone and
is run by its path, so that nothing of the project has to be importable when everything else has died.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 5.0  # seconds between asking a process group to end and killing it


def main(directory: Path) -> None:
    for deaf_to in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(deaf_to, signal.SIG_IGN)
    with (directory / "alive").open("r+") as alive:
        fcntl.lockf(alive, fcntl.LOCK_EX)
        for note in (directory / "leftovers").iterdir():
            with contextlib.suppress(OSError, ValueError):
                end(json.loads(note.read_text()))
        shutil.rmtree(directory, ignore_errors=True)


def end(leftover: dict[str, object]) -> None:
    if "container" in leftover:
        subprocess.run(["docker", "rm", "-f", "-v", str(leftover["container"])], check=False, timeout=60)
        return
    group, first = int(str(leftover["group"])), int(str(leftover["signal"]))
    for number in (signal.SIGCONT, first):  # a paused process hears nothing but SIGCONT and SIGKILL
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
    deadline = time.monotonic() + PATIENCE
    while _has_living(group) and time.monotonic() < deadline:
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _has_living(group: int) -> bool:
    """Whether a process that is not a zombie is left; in a container nobody may be there to reap orphans."""
    if not Path("/proc/self/stat").exists():
        return _answers(group)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _parent, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                return True
    return False


def _answers(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]))
