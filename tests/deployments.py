"""Budkavle as its operators run it: real processes with settings in their environment, on both deployments.

`Distributed` is three services as processes of their own, any number of replicas each, a PostgreSQL database each, RabbitMQ
between them and a reverse proxy in front. `Standalone` is one process with its data in one directory. A test sees
both alike: `url` is the origin, `kill`, `end` and `start` act on a service by name (in Standalone every service is the
one process). Mail goes through `mail_link`, whose other end the test chooses. All calls block: in an async test use
asyncio.to_thread.
"""

import contextlib
import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Self

import httpx2
import psycopg
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import make_url

from tests.servers.migrated import login, login_for, migrated_postgres
from tests.servers.origin import Origin
from tests.servers.postgres import create_database, drop_database, plain, shared_postgres_url
from tests.servers.process import ServerProcess
from tests.servers.proxy import TcpProxy
from tests.servers.run import claim_port, run_directory

SERVICES = ("content", "subscriptions", "distributor")
ADMIN_KEY = "tests-admin-key"
SECRET_KEY = "0123456789abcdef0123456789abcdef"
SENDER = "nyheter@forbundet.example"
SMTP_CONNECTIONS = 4
SMTP_PIPELINE = 2
WINDOW_OF_DOUBT = SMTP_CONNECTIONS * SMTP_PIPELINE
START_LIMIT_S = 60.0


class Replica:
    """One process, with its port and its log."""

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str], directory: Path, port: int) -> None:
        self.name = name
        self.port = port
        self.log = directory / f"{name}.log"
        own = {**env, "BUDKAVLE_PORT": str(self.port), "BUDKAVLE_INSTANCE": name}
        self._process = ServerProcess(command, self.log, env=own, cwd=directory)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.running

    def tell(self, **environment: str | None) -> None:
        """From its next start on; names as in its environment."""
        self._process.tell(environment)

    def say_into(self, log: Path) -> None:
        """From its next start on."""
        self._process.log = log

    def start(self) -> None:
        """Returns when it says that it is ready."""
        self._process.start(self._ready, within=START_LIMIT_S)

    def kill(self) -> None:
        self._process.kill()

    def pause(self) -> None:
        """SIGSTOP: a garbage collection, a machine that is moved, a debugger."""
        self._process.pause()

    def resume(self) -> None:
        self._process.resume()

    def end(self) -> None:
        """SIGTERM, and time to finish what is in hand."""
        self._process.end(signal.SIGTERM, within=25)

    def again(self, **environment: str | None) -> None:
        """An orderly restart, in an environment that differs so from then on."""
        self.tell(**environment)
        self.end()
        self.start()

    def _ready(self) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)


class Deployment:
    """What the two have in common. `standing` are those that run now, for the report of a failed test."""

    kind: str
    standing: ClassVar[list["Deployment"]] = []

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.kind}-", dir=run_directory()))
        self.mail_link = TcpProxy()
        self.intranet_link = TcpProxy()
        self.replicas: dict[str, list[Replica]] = {}
        self._settings = dict(settings or {})

    @property
    def url(self) -> str:
        """The origin: site, pages and APIs of all services."""
        raise NotImplementedError

    def client(self) -> httpx2.AsyncClient:
        """An API client with the administrator's key."""
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=60)

    def open(self) -> None:
        """Make the databases, then start every replica."""
        self.mail_link.start()
        self.intranet_link.start()
        self._open()
        self.standing.append(self)

    @contextlib.contextmanager
    def opened(self, mail_port: int | None = None) -> Iterator[Self]:
        """Open as long as the block lasts, with its mail led to a port."""
        self.mail_link.target = mail_port
        try:
            self.open()
            yield self
        finally:
            self.close()

    def close(self) -> None:
        """End every process and take the databases away."""
        with contextlib.suppress(ValueError):
            self.standing.remove(self)
        for replica in self.every_replica():
            if replica.running:
                replica.kill()
        self._close()
        self.mail_link.stop()
        self.intranet_link.stop()

    def start(self, service: str) -> None:
        """Start what of the service does not run."""
        _all_at_once([replica.start for replica in self._of(service) if not replica.running])

    def kill(self, service: str) -> None:
        """SIGKILL to every replica of the service."""
        for replica in self._of(service):
            replica.kill()

    def killer(self, service: str) -> Callable[[], None]:
        """SIGKILL without waiting for the end, for moments that must not pass meanwhile. `start` needs a `kill` first."""

        def kill() -> None:
            for pid in self.pids(service):
                os.kill(pid, signal.SIGKILL)

        return kill

    def end(self, service: str) -> None:
        """SIGTERM to every replica of the service; returns when they have ended."""
        _all_at_once([replica.end for replica in self._of(service)])

    def pids(self, service: str) -> list[int]:
        return [replica.pid for replica in self._of(service) if replica.running]

    def every_replica(self) -> list[Replica]:
        return [replica for service in dict.fromkeys(self.replicas) for replica in self.replicas[service]]

    def links(self) -> list[TcpProxy]:
        """Every proxy, between whomsoever."""
        return [self.mail_link, self.intranet_link]

    def logs(self) -> dict[str, str]:
        """What every process has said so far."""
        replicas = {replica.name: replica for replica in self.every_replica()}
        return {name: replica.log.read_text(errors="replace") for name, replica in replicas.items()}

    def log_lines(self, since: datetime | None = None) -> Iterator[dict[str, Any]]:
        """The JSON lines of all logs, of all tests that shared the deployment unless told since when."""
        for text in self.logs().values():
            for line in text.splitlines():
                if line.startswith("{"):
                    told = json.loads(line)
                    if since is None or datetime.fromisoformat(told["timestamp"]) >= since:
                        yield told

    def unfinished(self) -> dict[str, int]:
        """What lies in the services' databases and should not once all is quiet; empty then."""
        questions = {
            "outbox": "SELECT count(*) FROM outbox WHERE published_at IS NULL",
            "dead letters": "SELECT count(*) FROM dead_letters",
        }
        asked = {
            f"{service}: {what}": self.ask(service, sql) for service in SERVICES for what, sql in questions.items()
        }
        leased = (
            "SELECT count(*) FROM deliveries"
            " WHERE state IN ('leased', 'planned', 'deferred') OR state = 'uncertain' AND next_attempt_at IS NOT NULL"
        )
        asked["distributor: open deliveries"] = self.ask("distributor", leased)
        return {what: answer[0][0] for what, answer in asked.items() if answer[0][0]}

    def damaged(self) -> list[str]:
        """What is wrong with the files of the databases, where they are ours to look at."""
        return []

    def metric(self, service: str, name: str) -> float:
        """A sample's sum over the labels and replicas of a service."""
        total = 0.0
        for replica in self._of(service):
            with urllib.request.urlopen(f"http://127.0.0.1:{replica.port}/metrics", timeout=10) as answer:
                families = text_string_to_metric_families(answer.read().decode())
            total += sum(sample.value for family in families for sample in family.samples if sample.name == name)
        return total

    def ask(self, service: str, sql: str) -> list[tuple[Any, ...]]:
        """Rows from a service's database: for choosing moments, and for what must not be left behind."""
        raise NotImplementedError

    def environment(self, service: str) -> dict[str, str]:
        """What a command of that service needs in its environment."""
        raise NotImplementedError

    def _of(self, service: str) -> list[Replica]:
        return self.replicas[service]

    def _open(self) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError

    def _environment(self, **settings: str) -> dict[str, str]:
        common = {
            "PUBLIC_URL": self.url,
            "SECRET_KEYS": SECRET_KEY,
            "ADMIN_KEY": ADMIN_KEY,
            "HOST": "127.0.0.1",
            "LOG_FORMAT": "json",
            "SENDER": SENDER,
            "ORGANISATION": "Samordningsförbundet i Kalmar län",
            "POSTAL_ADDRESS": "Box 1, 391 20 Kalmar",
            "FACEBOOK_URL": "https://www.facebook.com/forbundet.example",
            "SMTP_URL": f"smtp://127.0.0.1:{self.mail_link.port}?starttls=never",
            "SMTP_CONNECTIONS": str(SMTP_CONNECTIONS),
            "SMTP_PIPELINE": str(SMTP_PIPELINE),
            "SMTP_TIMEOUT_S": "20",
            "WEBHOOK_ALLOW_LOOPBACK": "true",
        }
        told = {**common, **self._settings, **settings}
        surroundings = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in os.environ}
        return {**surroundings, **{f"BUDKAVLE_{name}": value for name, value in told.items()}}


class Distributed(Deployment):
    """Three services on RabbitMQ and PostgreSQL. `modes` are the commands of each service's replicas. With `from_empty` each
    service's own command migrates its database, which costs a process each; else it is the copy of a migrated one.
    """

    kind = "rabbitmq-postgresql"

    def __init__(
        self,
        amqp_url: str,
        *,
        modes: Sequence[str] = ("run",),
        settings: Mapping[str, str] | None = None,
        linked: Sequence[str] = (),
        database_server: str = "",
        from_empty: bool = False,
    ) -> None:
        """The services named in `linked` reach broker and database through proxies, `broker_links[service]` and
        `database_links[service]`. The databases are made on the run's server unless another is named.
        """
        super().__init__(settings)
        self._database_server = database_server or shared_postgres_url()
        broker = httpx2.URL(amqp_url)
        self.namespace = f"t{secrets.token_hex(6)}"
        self.amqp_url = str(broker.copy_merge_params({"namespace": self.namespace}))
        self.broker_links = {service: TcpProxy(broker.port or 5672) for service in linked}
        self.database_links = {service: TcpProxy(make_url(self._database_server).port or 5432) for service in linked}
        self.origin = Origin()
        self._modes = modes
        self._from_empty = from_empty
        self._databases: dict[str, str] = {}

    @property
    def url(self) -> str:
        return self.origin.url

    def owner_url(self, service: str) -> str:
        """The service's database, in libpq's words, as whoever owns its tables."""
        return plain(self._databases[service])

    def ask(self, service: str, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.owner_url(service), autocommit=True) as connection:
            return connection.execute(sql.encode()).fetchall()

    def execute(self, service: str, statement: str) -> None:
        """What an operator would do to a service's database by hand."""
        with psycopg.connect(self.owner_url(service), autocommit=True) as connection:
            connection.execute(statement.encode())

    def database_moved(self, port: int) -> None:
        """Another server has it now: new connections are led there, and those that stand are left alone."""
        for link in self.database_links.values():
            link.target = port
        self._databases = {
            service: make_url(url).set(port=port).render_as_string(hide_password=False)
            for service, url in self._databases.items()
        }
        self._database_server = make_url(self._database_server).set(port=port).render_as_string(hide_password=False)

    def _open(self) -> None:
        self.origin.start()
        for link in self._own_links():
            link.start()
        self._databases = {service: self._database(service) for service in SERVICES}
        if self._from_empty:
            _all_at_once([lambda service=service: self._migrate(service) for service in SERVICES])
        for service in SERVICES:
            self.replicas[service] = [
                self._replica(service, mode, number) for number, mode in enumerate(self._modes, start=1)
            ]
            self.origin.replicas[service] = [
                replica.port
                for replica, mode in zip(self.replicas[service], self._modes, strict=True)
                if mode != "work"
            ]
        _all_at_once([replica.start for replica in self.every_replica()])

    def _close(self) -> None:
        self.origin.stop()
        for link in self._own_links():
            link.stop()
        for url in self._databases.values():
            drop_database(url, self._database_server)

    def links(self) -> list[TcpProxy]:
        return [*super().links(), *self._own_links()]

    def _own_links(self) -> list[TcpProxy]:
        return [*self.broker_links.values(), *self.database_links.values()]

    def _replica(self, service: str, mode: str, number: int) -> Replica:
        command = [sys.executable, "-m", service, mode]
        return Replica(f"{service}-{number}", command, self.environment(service), self.directory, claim_port())

    def _database(self, service: str) -> str:
        server = self._database_server
        if not self._from_empty:
            return migrated_postgres(service, server)
        url = create_database(server)
        login_for(service, url)
        return url

    def _migrate(self, service: str) -> None:
        command = [sys.executable, "-m", service, "migrate"]
        as_owner = self._environment(DATABASE_URL=self._databases[service], BROKER_URL=self.amqp_url)
        done = subprocess.run(command, env=as_owner, cwd=self.directory, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{service} migrate: {done.stderr[-3000:]}"

    def budkavle(self, *arguments: str) -> str:
        """The operator's command line, beside the services; what it printed."""
        named = {f"{service.upper()}_DATABASE_URL": login(service, url) for service, url in self._databases.items()}
        command = [str(Path(sys.executable).with_name("budkavle")), *arguments]
        done = subprocess.run(
            command, env=self._environment(**named), cwd=self.directory, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"budkavle {' '.join(arguments)}: {done.stderr[-3000:]}"
        return done.stdout

    def environment(self, service: str) -> dict[str, str]:
        broker, database = httpx2.URL(self.amqp_url), make_url(login(service, self._databases[service]))
        if service in self.broker_links:
            broker = broker.copy_with(host="127.0.0.1", port=self.broker_links[service].port)
            database = database.set(host="127.0.0.1", port=self.database_links[service].port)
        url = database.render_as_string(hide_password=False)
        return self._environment(DATABASE_URL=url, BROKER_URL=str(broker))


class Standalone(Deployment):
    """One process, SQLite, the embedded bus."""

    kind = "standalone"

    def __init__(self, *, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(settings)
        self.data = self.directory / "data"
        self._port = claim_port()

    @property
    def url(self) -> str:
        return f"http://localhost:{self._port}"

    def ask(self, service: str, sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.database(service), timeout=10)) as connection:
            return connection.execute(sql).fetchall()

    def unfinished(self) -> dict[str, int]:
        with contextlib.closing(sqlite3.connect(self.database("bus"), timeout=10)) as connection:
            (queued,) = connection.execute("SELECT count(*) FROM queued_messages").fetchone()
        return super().unfinished() | ({"bus: messages": queued} if queued else {})

    def damaged(self) -> list[str]:
        found = []
        for name in (*SERVICES, "bus"):
            with contextlib.closing(sqlite3.connect(self.database(name), timeout=10)) as connection:
                found += [f"{name}: {row[0]}" for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
        return found

    def database(self, name: str) -> Path:
        """The file of a service, or (`bus`) of the embedded bus."""
        return self.data / f"{name}.sqlite3"

    def environment(self, service: str) -> dict[str, str]:
        files = {
            "DATABASE_URL": f"sqlite:///{self.database(service)}",
            "BROKER_URL": f"embedded:{self.database('bus')}",
        }
        return self._environment(**files)

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Nobody else writes in the file meanwhile."""
        with contextlib.closing(sqlite3.connect(self.database(name), timeout=10, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")

    def _open(self) -> None:
        command = [str(Path(sys.executable).with_name("budkavle")), "up"]
        replica = Replica("standalone", command, self._environment(DATA_DIR=str(self.data)), self.directory, self._port)
        self.replicas = {service: [replica] for service in SERVICES}
        replica.start()

    def _close(self) -> None:
        """Its files go with the run's directory."""


def _all_at_once(acts: Sequence[Any]) -> None:
    with ThreadPoolExecutor(max_workers=max(len(acts), 1)) as pool:
        for done in [pool.submit(act) for act in acts]:
            done.result()
