"""Where the shared broker and database come from: one server per run, started by the first worker that needs it.

The ladder, the same for both: an address that was given in the environment; a container, if a Docker engine answers; the
machine's own binaries as a private process; the same after installing them, on Debian as root. When none of it
works the tests fail with one sentence that says what to do. They are never skipped: a suite that passes without its
broker would show nothing.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.servers.run import locked, note_leftover, run_directory


class ServerUnavailable(RuntimeError):
    """No rung of the ladder held; the message says what to set or install."""


def shared(name: str, obtain: Callable[[], str]) -> str:
    """The URL of the run's shared server of that name, obtained by the first process that asks."""
    answer_file = run_directory() / f"{name}.json"
    with locked(name):
        if not answer_file.exists():
            answer_file.write_text(json.dumps(_obtained(obtain)))
    answer = json.loads(answer_file.read_text())
    if "error" in answer:
        raise ServerUnavailable(answer["error"])
    return str(answer["url"])


def _obtained(obtain: Callable[[], str]) -> dict[str, str]:
    try:
        return {"url": obtain()}
    except ServerUnavailable as failure:
        return {"error": str(failure)}


@cache
def docker_answers() -> bool:
    """Whether there is an engine behind the `docker` command; the command alone proves nothing."""
    if shutil.which("docker") is None:
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=2).returncode == 0
    except (subprocess.TimeoutExpired, OSError):
        return False


def start_container(image: str, port: int, *, env: dict[str, str], command: str = "") -> tuple[str, int]:
    """Run a container that the guardian removes; gives the host and port where its `port` is reached.

    testcontainers' own reaper ends a container with the process that started it. Here that is one worker of several,
    so the reaper is off and the run's guardian takes its place.
    """
    os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - reads its settings at import

    container = DockerContainer(image).with_exposed_ports(port)
    for name, value in env.items():
        container.with_env(name, value)
    if command:
        container.with_command(command)
    container.start()
    identity = container.get_wrapped_container().id
    note_leftover(f"container-{identity}", {"container": identity})
    return container.get_container_host_ip(), int(container.get_exposed_port(port))


def can_install() -> bool:
    """Debian (or its kin), and allowed to."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(*packages: str) -> None:
    """apt-get install, without letting the packages start their services on this machine."""
    with locked("apt"), _no_services_started():
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
            done = subprocess.run(
                ["apt-get", "-o", "DPkg::Lock::Timeout=300", *command],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise ServerUnavailable(
                    f"apt-get {command[0]} failed for {' '.join(packages)}: {done.stderr.strip()[-500:]}"
                )


class _no_services_started:
    """Debian's own switch: a policy-rc.d that answers 101 forbids package scripts to start daemons."""

    policy = Path("/usr/sbin/policy-rc.d")

    def __enter__(self) -> None:
        self.ours = not self.policy.exists()
        if self.ours:
            self.policy.write_text("#!/bin/sh\nexit 101\n")
            self.policy.chmod(0o755)

    def __exit__(self, *_: object) -> None:
        if self.ours:
            self.policy.unlink(missing_ok=True)
