"""One directory per test run, known to all its processes, and the promise that nothing outlives the run.

The process that opens the run (pytest, or the controller of its workers) holds a lock on `alive` as long as it lives.
The first server started also starts a guardian (`guardian.py`), which waits for that lock. However the run
ends (normally, Ctrl-C, SIGKILL), the kernel frees the lock, and the guardian ends what is noted in `leftovers/` and
removes the directory.
"""

import atexit
import contextlib
import fcntl
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

VARIABLE = "BUDKAVLE_TEST_RUN_DIR"

# Below the range from which the kernel takes ports for outgoing connections (32768 upwards on Linux), so that
# a server that was killed finds its own port free when it starts again.
PORTS = range(15_000, 30_000)


class _Owned:
    """What this process holds of the run."""

    alive: int | None = None
    children: ClassVar[list["subprocess.Popen[bytes]"]] = []


def open_run() -> Path:
    """Begin a run owned by this process; its children find it through the environment."""
    # 0711, not 0700: PostgreSQL refuses to run as root, so its directory in here belongs to another user.
    directory = Path(tempfile.mkdtemp(prefix="budkavle-tests-"))
    directory.chmod(0o711)
    (directory / "leftovers").mkdir()
    (directory / "ports").mkdir()
    _Owned.alive = os.open(directory / "alive", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.lockf(_Owned.alive, fcntl.LOCK_EX)
    os.environ[VARIABLE] = str(directory)
    return directory


def close_run(within: float = 30.0) -> None:
    """End every server of the run and wait until the guardian has tidied up. In a worker, only let go."""
    if _Owned.alive is not None:
        directory = Path(os.environ.pop(VARIABLE))
        os.close(_Owned.alive)
        _Owned.alive = None
        if not (directory / "guardian").exists():
            shutil.rmtree(directory, ignore_errors=True)
        deadline = time.monotonic() + within
        while directory.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
    _let_go()


def keep_until_the_end(child: "subprocess.Popen[bytes]") -> None:
    """The guardian ends it, not whoever started it; Popen would complain of that when the interpreter ends."""
    _Owned.children.append(child)


def _let_go() -> None:
    for child in _Owned.children:
        if child.poll() is None:
            child.returncode = 0  # no longer ours to wait for


def run_directory() -> Path:
    """The directory of the run; opens one if nobody has (a script outside pytest)."""
    if VARIABLE not in os.environ:
        atexit.register(close_run)
        return open_run()
    return Path(os.environ[VARIABLE])


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Only one process of the run at a time."""
    with (run_directory() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def note_leftover(key: str, how_to_end: Mapping[str, object]) -> None:
    """Have the guardian end this (`{"group": pid, "signal": n}` or `{"container": id}`) if nobody else has."""
    _start_guardian()
    note = run_directory() / "leftovers" / key
    note.with_suffix(".new").write_text(json.dumps(how_to_end))
    note.with_suffix(".new").rename(note)


def forget_leftover(key: str) -> None:
    """It has ended."""
    (run_directory() / "leftovers" / key).unlink(missing_ok=True)


def _start_guardian() -> None:
    directory = run_directory()
    with locked("guardian"):
        if (directory / "guardian").exists():
            return
        script = Path(__file__).with_name("guardian.py")
        null = subprocess.DEVNULL
        guardian = subprocess.Popen(
            [sys.executable, "-S", str(script), str(directory)],
            stdin=null,
            stdout=null,
            stderr=null,
            cwd="/",
            start_new_session=True,
        )
        (directory / "guardian").write_text(str(guardian.pid))
        keep_until_the_end(guardian)


def claim_port() -> int:
    """A free TCP port on loopback that no other process of this run will be given."""
    claims = run_directory() / "ports"
    for port in random.sample(PORTS, k=500):
        if not _bindable(port):
            continue
        with contextlib.suppress(FileExistsError):
            (claims / str(port)).touch(exist_ok=False)
            return port
    raise RuntimeError(f"no free port among 500 tried in {PORTS}")


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False
