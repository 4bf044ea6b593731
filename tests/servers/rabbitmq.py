"""RabbitMQ: the broker that a run shares, and private ones that a test may kill, hang or fill.

A private broker is a process of its own with its own node name, ports, cookie, data and epmd; it neither sees nor
disturbs a broker that the machine may be running. It keeps port and data over kill() and start().
Cold start takes about 5 s, a restart after a kill 3-7 s. All calls block: in an async test use asyncio.to_thread.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.servers.finding import (
    ServerUnavailable,
    can_install,
    docker_answers,
    install,
    shared,
    start_container,
)
from tests.servers.process import ServerFailed, ServerProcess
from tests.servers.run import claim_port, run_directory

GIVEN = "BUDKAVLE_TEST_AMQP_URL"
IMAGE = "rabbitmq:4"
START_DEADLINE = 90.0

# The scripts themselves; Debian's /usr/sbin wrapper changes to the user rabbitmq and to /var/lib/rabbitmq.
SCRIPTS = (
    Path("/usr/lib/rabbitmq/bin"),
    Path("/opt/homebrew/opt/rabbitmq/sbin"),
    Path("/usr/local/opt/rabbitmq/sbin"),
)

_kept: list["PrivateRabbitMQ"] = []  # as long as this process lives; the guardian ends them


def shared_amqp_url() -> str:
    """The URL of the run's broker. Raises ServerUnavailable."""
    return shared("rabbitmq", _obtain)


def _obtain() -> str:
    if given := os.environ.get(GIVEN):
        return given
    if docker_answers():
        return _in_container()
    broker = PrivateRabbitMQ()
    broker.start()
    _kept.append(broker)
    return broker.url


def _in_container() -> str:
    host, port = start_container(IMAGE, 5672, env={})
    deadline = time.monotonic() + START_DEADLINE
    while not speaks_amqp(host, port):
        if time.monotonic() > deadline:
            raise ServerUnavailable(f"The container {IMAGE} did not answer; set {GIVEN} to a broker for tests.")
        time.sleep(0.1)
    return f"amqp://guest:guest@{host}:{port}/"


def _scripts() -> Path:
    for directory in SCRIPTS:
        if (directory / "rabbitmq-server").exists():
            return directory
    raise ServerUnavailable(
        f"The tests need a RabbitMQ: set {GIVEN} (amqp://user:password@host:port/), start Docker, or install"
        " rabbitmq-server (make test as root on Debian does)."
    )


def rabbitmq_scripts() -> Path:
    """Where rabbitmq-server and rabbitmqctl are; installs them where that is possible."""
    with contextlib.suppress(ServerUnavailable):
        return _scripts()
    if can_install():
        install("rabbitmq-server")
    return _scripts()


def speaks_amqp(host: str, port: int) -> bool:
    """Whether a broker answers the protocol header with a method frame; an open port alone is too early."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=2) as connection:
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        return connection.recv(1) == b"\x01"
    return False


class Epmd:
    """Erlang's port mapper, in the foreground: by it the nodes of one machine find one another."""

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        env = {"PATH": os.environ.get("PATH", os.defpath), "ERL_EPMD_PORT": str(port)}
        self._process = ServerProcess([_epmd(), "-address", "127.0.0.1"], log, env=env)

    def start(self) -> None:
        if not self._process.running:
            self._process.start(lambda: _connects(self.port), within=10)

    def kill(self) -> None:
        self._process.kill()


class PrivateRabbitMQ:
    """A broker of one's own. `url` stands from the start and stays the same over restarts."""

    def __init__(self, *, definitions: Sequence[Path] = (), epmd_port: int = 0) -> None:
        """`definitions` are loaded at each start, in the order of their names; then there is no user but theirs. With the
        port of an epmd that others have too it starts none of its own."""
        self._scripts = rabbitmq_scripts()
        self.directory = Path(tempfile.mkdtemp(prefix="rabbitmq-", dir=run_directory()))
        self.port = claim_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self.node = f"budkavle-{self.port}@localhost"
        self._env = self._environment(claim_port(), epmd_port or claim_port())
        if definitions:
            self._load_at_start(definitions)
        self._epmd = None if epmd_port else Epmd(int(self._env["ERL_EPMD_PORT"]), self.log("epmd"))
        self._broker = ServerProcess(
            [self._scripts / "rabbitmq-server"],
            self.log("broker"),
            env=self._env,
            cwd=self.directory,
            # Nothing in it is worth a graceful end once the run is over.
            end_signal=signal.SIGKILL,
        )

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def _environment(self, distribution_port: int, epmd_port: int) -> dict[str, str]:
        home = self.directory
        (home / "enabled_plugins").write_text("[].\n")
        (home / "env.conf").touch()
        (home / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.port}\ndisk_free_limit.absolute = 50MB\n"
            "consumer_timeout = 60000\n"  # half an hour by default: whoever holds a message so long loses its channel
        )
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(home),  # the cookie
            "ERL_EPMD_PORT": str(epmd_port),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(home / "env.conf"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "generated"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            # Erlang's schedulers otherwise spin while they wait, on processors that the tests need.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def _load_at_start(self, definitions: Sequence[Path]) -> None:
        folder = self.directory / "definitions"
        folder.mkdir()
        for file in definitions:
            shutil.copy(file, folder)
        with (self.directory / "rabbitmq.conf").open("a") as conf:
            conf.write(f"load_definitions = {folder}\n")

    def start(self) -> None:
        """Start, or start again after kill() or stop(); returns when a client can log in."""
        # Its own epmd, in the foreground: the one that Erlang would start by itself outlives the broker.
        if self._epmd is not None:
            self._epmd.start()
        self._broker.start(lambda: speaks_amqp("127.0.0.1", self.port), within=START_DEADLINE)

    @property
    def running(self) -> bool:
        return self._broker.running

    def await_registered(self, queue: str, within: float = 10.0) -> None:
        """Wait until a newly declared quorum queue would survive a kill.

        Seen on 3.10.8: the register of queues (ra's names.dets) reaches the disk up to a second after the declaration
        was confirmed. A broker killed in that second has a queue that is listed as running and answers nobody.
        """
        deadline = time.monotonic() + within
        registers = f"data/budkavle-{self.port}@localhost/quorum/*/names.dets"
        name = re.compile(re.escape(f"%2F_{queue}".encode()) + rb"(?!\.dead)")  # in the default virtual host
        while not any(name.search(register.read_bytes()) for register in self.directory.glob(registers)):
            if time.monotonic() > deadline:
                raise ServerFailed(f"the queue {queue} was not registered in {within:g} s")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL to the Erlang machine and all around it. See also `await_registered`."""
        self._broker.kill()
        if self._epmd is not None:
            self._epmd.kill()

    def strike(self) -> None:
        """SIGKILL to the Erlang machine without waiting for its end, for moments that must not pass; then `kill`."""
        self._broker.send(signal.SIGKILL)

    def wipe(self) -> None:
        """Take all that a killed broker had written away."""
        assert not self.running
        shutil.rmtree(self.directory / "data")

    def stop(self) -> None:
        """An orderly end, as at a planned restart."""
        if self._broker.running:
            self._broker.resume()
            self.control("stop")
        self._broker.end(signal.SIGTERM)
        if self._epmd is not None:
            self._epmd.kill()

    def pause(self) -> None:
        """Hang with all connections open."""
        self._broker.pause()

    def resume(self) -> None:
        self._broker.resume()

    def remove(self) -> None:
        """Kill it and delete its data: it is of no more use."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def control(self, *arguments: str) -> str:
        """rabbitmqctl: what it printed. Takes about a second."""
        done = subprocess.run(
            [self._scripts / "rabbitmqctl", "-q", *arguments],
            env=self._env,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,  # a busy machine starts an Erlang machine slowly
        )
        if done.returncode != 0:
            raise ServerFailed(f"rabbitmqctl {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout

    def raise_memory_alarm(self) -> None:
        """The broker reads no more from publishers; consumers go on."""
        self.control("set_vm_memory_high_watermark", "0.0000001")

    def clear_memory_alarm(self) -> None:
        self.control("set_vm_memory_high_watermark", "0.4")

    def raise_disk_alarm(self) -> None:
        self.control("set_disk_free_limit", "1000000GB")

    def clear_disk_alarm(self) -> None:
        self.control("set_disk_free_limit", "50MB")


def _epmd() -> str:
    return shutil.which("epmd") or "/usr/lib/erlang/bin/epmd"


def _connects(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
