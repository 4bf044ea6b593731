"""The deployments that a worker keeps while it is in this room: opened when first needed, shared by all tests, since each
must go on after whatever was done to it. What a failed test has left behind is taken away.

The distributed one has a broker and a database server of its own, to be killed, and a proxy on every link.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from tests.deployments import SERVICES, Deployment, Distributed, Standalone
from tests.resilience.scene import SETTINGS, check_queues_empty, populate
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbitMQ
from tests.servers.receiver import HttpReceiver

from shared.messaging.topology import QUEUES


@dataclass
class Home:
    """One deployment with all that stands around it."""

    deployment: Deployment
    intranet: HttpReceiver
    broker: PrivateRabbitMQ | None = None
    database: PrivatePostgres | None = None
    hook_secret: str = ""

    def make_whole(self) -> None:
        """Whatever the test before stopped runs again."""
        for server in (self.broker, self.database):
            if server is not None and not server.running:
                server.start()
        for service in self.deployment.replicas:
            self.deployment.start(service)


@contextmanager
def own_home(
    database: PrivatePostgres,
    *,
    modes: Sequence[str] = ("run",),
    settings: Mapping[str, str] = SETTINGS,
    linked: Sequence[str] = (),
) -> Iterator[Home]:
    """A distributed deployment, with people in it, on this database server and a broker of its own; all of it goes at the end."""
    with ExitStack() as closing, HttpReceiver() as intranet:
        broker = PrivateRabbitMQ()
        for server in (broker, database):
            closing.callback(server.remove)
            server.start()
        made = Distributed(broker.url, modes=modes, settings=settings, linked=linked, database_server=database.url)
        closing.enter_context(made.opened())
        yield Home(made, intranet, broker, database, populate(made, intranet))


@dataclass
class House:
    """What is open now."""

    homes: dict[str, Home] = field(default_factory=dict)
    _open: ExitStack = field(default_factory=ExitStack)

    def home(self, kind: str) -> Home:
        if kind not in self.homes:
            self.homes[kind] = self._opened(self._distributed if kind == Distributed.kind else self._standalone)
        self.homes[kind].make_whole()
        return self.homes[kind]

    def close(self, *, ended_well: bool = False) -> None:
        """If no test has failed, the brokers hold nothing any more, neither waiting nor in somebody's hands."""
        brokers = [home.broker for home in self.homes.values() if home.broker is not None and home.broker.running]
        self.homes.clear()
        with self._open.pop_all():
            if ended_well:
                for broker in brokers:
                    check_queues_empty(broker)

    def _opened(self, make: Callable[[], Home]) -> Home:
        home = make()
        self._open.callback(home.deployment.close)
        home.deployment.open()
        home.hook_secret = populate(home.deployment, home.intranet)
        if home.broker is not None and isinstance(home.deployment, Distributed):
            for queue in QUEUES:
                home.broker.await_registered(f"{home.deployment.namespace}.{queue.name}")
        return home

    def _standalone(self) -> Home:
        return Home(Standalone(settings=SETTINGS), self._open.enter_context(HttpReceiver()))

    def _distributed(self) -> Home:
        broker, database = PrivateRabbitMQ(), PrivatePostgres(durable=False)
        for server in (broker, database):
            self._open.callback(server.remove)
            server.start()
        made = Distributed(broker.url, settings=SETTINGS, linked=SERVICES, database_server=database.url)
        return Home(made, self._open.enter_context(HttpReceiver()), broker, database)
