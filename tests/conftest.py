"""Fixtures that every room of the suite may use. Servers are real; see `tests/servers/`."""

import secrets
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import structlog
from playwright.async_api import Browser, Page

from tests import eventually as waiting
from tests import scheduling
from tests.servers import chromium as browsers
from tests.servers import run
from tests.servers.certificates import CertificateAuthority
from tests.servers.postgres import PrivatePostgres, shared_postgres_url
from tests.servers.rabbitmq import PrivateRabbitMQ, shared_amqp_url
from tests.servers.receiver import HttpReceiver
from tests.servers.recycled import Databases
from tests.servers.smtp import SmtpServer


def pytest_configure(config: pytest.Config) -> None:
    """The run belongs to pytest itself; under xdist to the controller, and the workers inherit it."""
    if not hasattr(config, "workerinput"):
        run.open_run()
    _tell_failures_plainly()


def _tell_failures_plainly() -> None:
    """A traceback with the locals of every frame, which structlog prints where nobody configured it, takes up to two
    seconds of the processor, and dozens of tests have something fail on purpose."""
    plainly = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plainly])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> scheduling.Rooms | None:
    """Unless the command line asks for another."""
    return scheduling.Rooms(config, log) if config.option.dist == "load" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items[:] = scheduling.slowest_first(items)


def pytest_unconfigure(config: pytest.Config) -> None:
    run.close_run()


@pytest.fixture
def amqp_url() -> str:
    """The run's broker, with a namespace that no other test has. The transport prefixes exchanges and queues with it."""
    url = shared_amqp_url()
    return f"{url}{'&' if '?' in url else '?'}namespace=t{secrets.token_hex(6)}"


@pytest.fixture(scope="session")
def _databases() -> Iterator[Databases]:
    databases = Databases(shared_postgres_url())
    yield databases
    databases.drop_all()


@pytest.fixture
def postgres_database(_databases: Databases) -> Iterator[Callable[[], str]]:
    """Call it for the SQLAlchemy URL of a PostgreSQL database, without tables or (`service`) migrated; each call another."""
    lent: list[str] = []

    def lend(service: str = "") -> str:
        lent.append(_databases.lend(service))
        return lent[-1]

    yield lend
    for url in lent:
        _databases.take_back(url)


@pytest.fixture
def private_rabbitmq() -> Iterator[PrivateRabbitMQ]:
    """A broker to kill, hang or fill; started."""
    broker = PrivateRabbitMQ()
    broker.start()
    yield broker
    broker.remove()


@pytest.fixture
def private_postgres() -> Iterator[PrivatePostgres]:
    """A database server to kill or hang; started, and as durable as in production."""
    server = PrivatePostgres()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def free_port() -> int:
    """A TCP port on loopback that nobody else in this run gets. For more than one: `tests.servers.run.claim_port()`."""
    return run.claim_port()


@pytest.fixture
def eventually() -> Callable[..., object]:
    """`await eventually(predicate, within=10.0)`; the same function as `tests.eventually.eventually`."""
    return waiting.eventually


@pytest.fixture
def smtp_server() -> Iterator[SmtpServer]:
    """A mail server without TLS; for other kinds use `with SmtpServer(...) as server`."""
    with SmtpServer() as server:
        yield server


@pytest.fixture
def http_receiver() -> Iterator[HttpReceiver]:
    """A receiver of webhooks on plain HTTP."""
    with HttpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def certificate_authority() -> CertificateAuthority:
    return CertificateAuthority()


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser."""
    return browsers.chromium_path()


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with browsers.launched(chromium) as launched:
        yield launched


@pytest.fixture
async def browser_page(browser: Browser) -> Page:
    """An empty page in a Swedish reader's browser (Europe/Stockholm). Its own context: no cookies, no cache."""
    context = await browser.new_context(locale="sv-SE", timezone_id="Europe/Stockholm")
    return await context.new_page()
