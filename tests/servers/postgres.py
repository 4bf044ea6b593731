"""PostgreSQL: the server that a run shares, and private ones that a test may kill or hang.

A private server is a process of its own with its own data and port, reached over loopback only. It keeps both over kill() and
start(). Starts in about two seconds the first time (initdb), then in a fraction of one. All calls block.
"""

import contextlib
import os
import pwd
import secrets
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import make_url

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

GIVEN = "BUDKAVLE_TEST_PG_URL"
IMAGE = "postgres:17"
START_DEADLINE = 60.0
CONNECTIONS = 300  # several services with pools of their own, times the workers

# Speed for what lives only as long as the run. A SIGKILL of the server loses nothing by it, only a power cut does. (With
# synchronous_commit=off it would lose commits that were answered: they lie in the server's memory for a moment.)
HASTY = ("fsync=off", "full_page_writes=off", "shared_buffers=128MB")

# No passwords: it listens on loopback alone and holds invented data for minutes.
INITIALLY = ("--username=budkavle", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")

_kept: list["PrivatePostgres"] = []  # as long as this process lives; the guardian ends them


def shared_postgres_url() -> str:
    """The URL of the run's server (`postgresql+psycopg://…`), as a user who may create databases."""
    return shared("postgres", _obtain)


def _obtain() -> str:
    if given := os.environ.get(GIVEN):
        return make_url(given).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    if docker_answers():
        return _in_container()
    server = PrivatePostgres(durable=False)
    server.start()
    _kept.append(server)
    return server.url


def _in_container() -> str:
    password = secrets.token_hex(8)
    settings = " ".join(f"-c {setting}" for setting in (*HASTY, f"max_connections={CONNECTIONS}"))
    host, port = start_container(IMAGE, 5432, env={"POSTGRES_PASSWORD": password}, command=f"postgres {settings}")
    url = f"postgresql+psycopg://postgres:{password}@{host}:{port}/postgres"
    deadline = time.monotonic() + START_DEADLINE
    while not _answers(url):
        if time.monotonic() > deadline:
            raise ServerUnavailable(f"The container {IMAGE} did not answer; set {GIVEN} to a server for tests.")
        time.sleep(0.1)
    return url


def _binaries() -> Path:
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    found = sorted(versions, key=lambda path: int(path.parts[-3]) if path.parts[-3].isdigit() else 0)
    if found:
        return found[-1].parent
    if (on_path := shutil.which("initdb")) and shutil.which("postgres"):
        return Path(on_path).parent
    raise ServerUnavailable(
        f"The tests need a PostgreSQL: set {GIVEN} (postgresql://user:password@host:port/postgres), start Docker,"
        " or install postgresql (make test as root on Debian does)."
    )


def postgres_binaries() -> Path:
    """Where initdb and postgres are; installs them where that is possible."""
    with contextlib.suppress(ServerUnavailable):
        return _binaries()
    if can_install():
        install("postgresql")
    return _binaries()


def plain(url: str) -> str:
    """The same address in libpq's words, without SQLAlchemy's driver name."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def _answers(url: str) -> bool:
    with contextlib.suppress(psycopg.OperationalError):
        psycopg.connect(plain(url), connect_timeout=2).close()
        return True
    return False


def create_database(server_url: str, template: str = "template1") -> str:
    """A new database, empty or the copy of another; gives its SQLAlchemy URL.

    Its files are copied, as before version 15: that version's way, each page through the log, takes more processor time, and
    a run makes hundreds.
    """
    name = f"t{secrets.token_hex(6)}"
    with contextlib.closing(psycopg.connect(plain(server_url), autocommit=True)) as connection:
        strategy = "STRATEGY FILE_COPY" if connection.info.server_version >= 150_000 else ""
        copied = sql.SQL("CREATE DATABASE {} TEMPLATE {} " + strategy)
        connection.execute(copied.format(sql.Identifier(name), sql.Identifier(template)))
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)


def drop_database(url: str, server_url: str) -> None:
    """Away with it, and with whoever is still connected."""
    name = make_url(url).database or ""
    _execute(server_url, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _execute(server_url: str, statement: sql.SQL | sql.Composed | bytes) -> None:
    with contextlib.closing(psycopg.connect(plain(server_url), autocommit=True)) as connection:
        connection.execute(statement)


class PrivatePostgres:
    """A server of one's own. `durable=False` trades what a power cut would lose for speed."""

    def __init__(self, *, durable: bool = True) -> None:
        self._binaries = postgres_binaries()
        self._user = _unprivileged_user()
        self.directory = Path(tempfile.mkdtemp(prefix="postgres-", dir=run_directory()))
        self.port = claim_port()
        self.url = f"postgresql+psycopg://budkavle@127.0.0.1:{self.port}/postgres"
        self._data = self.directory / "data"
        self._server = ServerProcess(
            self._command(self._settings(durable)),
            self.directory / "server.log",
            cwd=self.directory,
            user=self._runs_as(),
            end_signal=signal.SIGQUIT,  # PostgreSQL's immediate shutdown; it frees its shared memory
        )

    def _settings(self, durable: bool) -> list[str]:
        settings = (
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            "unix_socket_directories=",
            f"max_connections={CONNECTIONS}",
            "shared_buffers=64MB",
            # In the data directory, not in /dev/shm where a killed server would leave it.
            "dynamic_shared_memory_type=mmap",
            *(() if durable else HASTY),
        )
        return _options(settings)

    def _command(self, options: Sequence[str]) -> list[str | Path]:
        return [self._binaries / "postgres", "-D", self._data, *options]

    def _runs_as(self) -> str | None:
        return self._user

    def start(self) -> None:
        """Start, or start again after kill() or stop(); returns when a client can connect."""
        if not self._data.exists():
            self._initialise()
        self._server.start(lambda: _answers(self.url), within=START_DEADLINE)

    def _initialise(self) -> None:
        self._run("initdb", "-D", self._data, *INITIALLY)

    def _run(self, program: str, *arguments: str | Path) -> None:
        """One of PostgreSQL's own programs, as the user who runs the server."""
        if self._user is not None:
            shutil.chown(self.directory, self._user)
        done = subprocess.run(
            [self._binaries / program, *arguments],
            cwd=self.directory,
            user=self._user,
            group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
            extra_groups=None if self._user is None else [],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServerFailed(f"{program}: {done.stderr}")

    @property
    def pid(self) -> int:
        """The postmaster's; whoever works for it is its child."""
        return self._server.pid

    @property
    def running(self) -> bool:
        return self._server.running

    def kill(self) -> None:
        """SIGKILL to the postmaster and every backend."""
        self._server.kill()

    def stop(self) -> None:
        """An orderly, fast shutdown: open transactions are rolled back."""
        self._server.end(signal.SIGINT)

    def stop_immediately(self) -> None:
        """PostgreSQL's own word for pulling the plug; the next start recovers from the log."""
        self._server.end(signal.SIGQUIT)

    def pause(self) -> None:
        """Hang with all connections open."""
        self._server.pause()

    def resume(self) -> None:
        self._server.resume()

    def set(self, setting: str) -> None:
        """`name = value`, for all connections, at once."""
        _execute(self.url, f"ALTER SYSTEM SET {setting}".encode())
        _execute(self.url, sql.SQL("SELECT pg_reload_conf()"))

    def create_database(self) -> str:
        return create_database(self.url)

    def remove(self) -> None:
        """End it and delete its data: it is of no more use."""
        self.stop_immediately()
        self._free_shared_memory()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _free_shared_memory(self) -> None:
        """A killed postmaster leaves a few bytes of System V memory, named on line 7 of its pid file."""
        with contextlib.suppress(OSError, IndexError):
            _key, identity = (self._data / "postmaster.pid").read_text().splitlines()[6].split()
            subprocess.run(["ipcrm", "-m", identity], check=False, capture_output=True)


class Standby(PrivatePostgres):
    """Follows another server, which answers a commit only when this one has it too, until it is promoted."""

    def __init__(self) -> None:
        super().__init__(durable=False)
        self._followed: PrivatePostgres | None = None

    def follow(self, server: PrivatePostgres) -> None:
        """Copy what it has, and start."""
        self._followed = server
        self.start()
        for setting in ("synchronous_standby_names = '*'", "synchronous_commit = on"):
            server.set(setting)

    def _initialise(self) -> None:
        assert self._followed is not None
        address = f"host=127.0.0.1 port={self._followed.port} user=budkavle"
        options = ("--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync")
        self._run("pg_basebackup", "-D", self._data, "-d", address, *options)

    def promote(self) -> None:
        _execute(self.url, sql.SQL("SELECT pg_promote()"))


class SmallDiskPostgres(PrivatePostgres):
    """Its data lie on a disk of their own of so many megabytes (the log of writes elsewhere), which `fill` fills.

    The disk is a file system in memory, in a namespace of the server's own: it goes when the server goes. For root alone.
    """

    def __init__(self, megabytes: int) -> None:
        if os.geteuid() != 0 or shutil.which("unshare") is None:
            raise ServerUnavailable("A small disk needs root, to mount one, and unshare (util-linux).")
        self._megabytes = megabytes
        super().__init__(durable=False)

    def _command(self, options: Sequence[str]) -> list[str | Path]:
        disk, log_of_writes = self.directory / "disk", self.directory / "wal"
        self._data = disk / "data"
        user = pwd.getpwnam(self._user or "root")
        mounted = f"size={self._megabytes}m,mode=0700,uid={user.pw_uid},gid={user.pw_gid}"
        initdb = shlex.join(
            [str(self._binaries / "initdb"), "-D", str(self._data), f"--waldir={log_of_writes}", *INITIALLY]
        )
        postgres = shlex.join(map(str, super()._command(options)))
        as_user = f"exec setpriv --reuid={user.pw_uid} --regid={user.pw_gid} --clear-groups"
        script = (
            f"mount -t tmpfs -o {mounted} tmpfs {disk} && {as_user} sh -c {shlex.quote(f'{initdb} && exec {postgres}')}"
        )
        return ["unshare", "--mount", "sh", "-c", script]

    def _runs_as(self) -> str | None:
        return None

    def start(self) -> None:
        (self.directory / "disk").mkdir()
        shutil.chown(self.directory, self._user or "root")
        self._server.start(lambda: _answers(self.url), within=START_DEADLINE)

    def fill(self) -> None:
        """Not a byte is left."""
        with contextlib.suppress(OSError), self._ballast.open("ab", buffering=0) as ballast:
            while ballast.write(bytes(1 << 16)):
                pass

    def free(self) -> None:
        self._ballast.unlink()

    @property
    def _ballast(self) -> Path:
        """Seen through the server's own namespace."""
        return Path(f"/proc/{self._server.pid}/root{self.directory}/disk/ballast")


def _options(settings: Sequence[str]) -> list[str]:
    return [part for setting in settings for part in ("-c", setting)]


def _unprivileged_user() -> str | None:
    """Who runs the server when we are root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return None
