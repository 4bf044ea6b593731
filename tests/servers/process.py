"""A server as a child process of its own: started, killed, paused and started again on the same data.

The process leads its own group, so that Ctrl-C in the terminal does not reach it and a kill reaches all of it. A start
that fails raises ServerFailed with the end of the server's log.
"""

import contextlib
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.servers.run import forget_leftover, keep_until_the_end, note_leftover


class ServerFailed(RuntimeError):
    """The server ended or did not become ready in time; the message ends with its log."""


class ServerProcess:
    """One program run as a server. `end_signal` is what the guardian sends if the run dies before `end()`."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        end_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.command = [str(part) for part in command]
        self.log = log
        self._env = dict(env) if env is not None else None
        self._cwd = cwd
        self._user = user
        self._end_signal = end_signal
        self._process: subprocess.Popen[bytes] | None = None

    def tell(self, changes: Mapping[str, str | None]) -> None:
        """Another environment from the next start on; what is None is not in it."""
        told = {**(os.environ if self._env is None else self._env), **changes}
        self._env = {name: value for name, value in told.items() if value is not None}

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, ready: Callable[[], bool], within: float = 60.0) -> None:
        """Start and wait until `ready()`; it is asked again and again, and may raise OSError for "not yet"."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                user=self._user,
                group=None if self._user is None else _group_of(self._user),
                extra_groups=None if self._user is None else [],
                start_new_session=True,
            )
        keep_until_the_end(self._process)
        note_leftover(self._key, {"group": self.pid, "signal": int(self._end_signal)})
        try:
            self._wait_until(ready, within)
        except BaseException:
            self.kill()
            raise

    def _wait_until(self, ready: Callable[[], bool], within: float) -> None:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if not self.running:
                raise ServerFailed(f"{self.command[0]} ended at once:\n{self._log_tail()}")
            with contextlib.suppress(OSError):
                if ready():
                    return
            time.sleep(0.03)
        raise ServerFailed(f"{self.command[0]} was not ready in {within:.0f} s:\n{self._log_tail()}")

    def send(self, number: signal.Signals) -> None:
        """Send to the server and to everything that descends from it."""
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def family(self) -> list[int]:
        """The process and its descendants, eldest first, in whatever group or session they are."""
        children = _children_by_parent()
        found = [self.pid] if self.running else []
        for pid in found:
            found.extend(children.get(pid, []))
        return found

    def kill(self) -> None:
        """SIGKILL, at once and to all: what a power cut or the kernel's OOM killer does. The elder first, so
        that it cannot replace a child."""
        self.send(signal.SIGKILL)
        self._reap()

    def pause(self) -> None:
        """Hang: connections stay open, nothing answers."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        self.send(signal.SIGCONT)

    def end(self, number: signal.Signals, within: float = 20.0) -> None:
        """Ask the process itself to end, and kill all of it if it has not within the time (seconds)."""
        if self.running:
            self.resume()
            os.kill(self.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process and self._process.wait(within)
        self.kill()

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait(10)
            # Whatever shared the group but no longer the ancestry.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            forget_leftover(self._key)

    @property
    def _key(self) -> str:
        return f"group-{self.pid}"

    def _log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


def _group_of(user: str) -> int:
    return pwd.getpwnam(user).pw_gid


def _children_by_parent() -> dict[int, list[int]]:
    """From /proc; empty where there is none (macOS), and then only the server's own process is signalled."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    return children
