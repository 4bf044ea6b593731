"""How fast, and how much memory: both deployments against the plain Python way, in one run, on one sink. `make bench`.

Absolute figures belong to the machine and to what else it does; the ratios are what is promised. Whatever a promise is
broken by is printed before the test fails.
"""

import email
import email.policy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from statistics import median

import pytest
from tests.deployments import ADMIN_KEY, Deployment, Distributed, Standalone
from tests.load.arrivals import Arrivals
from tests.load.conftest import Table
from tests.load.memory import Watch, cpu_seconds, idle_share
from tests.load.newsroom import Editor
from tests.load.people import add_people
from tests.servers.process import ServerProcess
from tests.servers.rabbitmq import shared_amqp_url
from tests.servers.sink import SinkProcess

from shared.contracts.news import Audience

pytestmark = pytest.mark.bench

KINDS = (Standalone.kind, Distributed.kind)
MAILS = 10_000
RUNS = 3
TIMES_FASTER = 5.0
FEW, MANY = 1_000, 100_000
GROWTH_MB = 30.0
DESKS = 5
FIRST_MAIL_S = 0.5
LIMIT_S = 240.0

Open = Callable[[str], Deployment]


@pytest.fixture(scope="module")
def rates() -> dict[str, float]:
    """Mails a second by contender, medians; the ratios are taken when all have run."""
    return {}


@pytest.fixture(scope="module")
def broken() -> list[str]:
    """Promises that did not hold."""
    return []


@pytest.fixture(scope="module")
def editors() -> Iterator[Callable[[Deployment], Editor]]:
    made: list[Editor] = []

    def editor(deployment: Deployment) -> Editor:
        made.append(Editor(deployment, ADMIN_KEY))
        return made[-1]

    yield editor
    for each in made:
        each.close()


def pids(deployment: Deployment) -> dict[str, int]:
    return {replica.name: replica.pid for replica in deployment.every_replica()}


def published(editor: Editor, sink: SinkProcess, kind: str, audience: Audience, count: int) -> tuple[float, float]:
    """Seconds from the publish call to the first and to the last of `count` mails accepted."""
    item = editor.draft(kind, audience, f"Nytt om arbetet i länet, {time.time_ns()}")
    arrivals = Arrivals(sink)
    began = time.time()
    editor.publish(item)
    arrived = arrivals.wait(count, within=LIMIT_S)
    return arrived.first - began, arrived.last - began


@pytest.fixture(scope="module")
def sample(opened: Open, editors: Callable[[Deployment], Editor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of our own mails, taken apart: the plain way sends the same words."""
    directory = tmp_path_factory.mktemp("sample")
    catching = SinkProcess(directory, "--store", str(directory))
    catching.start()
    deployment = Standalone(settings={"SMTP_URL": f"{catching.url}?starttls=never"})
    deployment.open()
    add_people(deployment, Audience.PUBLIC, range(1))
    published(editors(deployment), catching, "news", Audience.PUBLIC, 1)
    deployment.close()
    catching.stop()
    (stored,) = directory.glob("*.eml")
    message = email.message_from_bytes(stored.read_bytes(), policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None and html is not None
    words = {"from": str(message["From"]), "subject": str(message["Subject"]), "size": str(stored.stat().st_size)}
    words |= {"text": str(text.get_content()), "html": str(html.get_content())}
    path = directory / "mail.json"
    path.write_text(json.dumps(words))
    return path


def test_the_plain_way(sink: SinkProcess, sample: Path, tmp_path: Path, table: Table, rates: dict[str, float]) -> None:
    told = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "PLAIN_WAY_BROKER": shared_amqp_url().partition("?")[0],
        "PLAIN_WAY_NAME": str(os.getpid()),
        "PLAIN_WAY_MAIL": str(sample),
        "PLAIN_WAY_SMTP_PORT": str(sink.port),
    }
    root = Path(__file__).parents[2]
    arguments = ["-A", "tests.load.plain_way", "worker", "-P", "prefork", "-c", "2", "-l", "info"]
    worker = ServerProcess([sys.executable, "-m", "celery", *arguments], tmp_path / "celery.log", env=told, cwd=root)
    worker.start(lambda: b" ready." in worker.log.read_bytes(), within=60)
    taken = []
    for count in (200, *[MAILS] * RUNS):
        arrivals = Arrivals(sink)
        began = time.time()
        sender = subprocess.Popen([sys.executable, "-m", "tests.load.plain_way", str(count)], env=told, cwd=root)
        taken.append(arrivals.wait(count, within=LIMIT_S).last - began)
        assert sender.wait() == 0
    worker.kill()
    rates["plain"] = MAILS / median(taken[1:])
    size = json.loads(sample.read_text())["size"]
    table.add("one mail", f"{size} bytes, text and HTML")
    table.add("plain way: Celery on RabbitMQ, a task a mail, smtplib, prefork 2", f"{rates['plain']:.0f} mails/s")


@pytest.mark.parametrize("kind", KINDS)
def test_a_deployment(
    kind: str,
    opened: Open,
    editors: Callable[[Deployment], Editor],
    sink: SinkProcess,
    table: Table,
    rates: dict[str, float],
    broken: list[str],
) -> None:
    deployment = opened(kind)
    editor = editors(deployment)
    add_people(deployment, Audience.NEWSROOM, range(DESKS))
    add_people(deployment, Audience.POLITICIAN, range(FEW))
    add_people(deployment, Audience.PUBLIC, range(MAILS))
    published(editor, sink, "news", Audience.POLITICIAN, FEW)  # connections and caches are warm, as on any other day
    rates[kind] = ten_thousand_mails(deployment, editor, sink, table)
    if first_newsroom_mail(deployment, editor, sink, table) >= FIRST_MAIL_S:
        broken.append(f"{kind}: the first newsroom mail took {FIRST_MAIL_S} s or more")
    if growth(deployment, editor, sink, table) >= GROWTH_MB:
        broken.append(f"{kind}: memory grew by {GROWTH_MB} MB or more")


def ten_thousand_mails(deployment: Deployment, editor: Editor, sink: SinkProcess, table: Table) -> float:
    """Mails a second, from the publish call to the last accepted."""
    before = {name: cpu_seconds(pid) for name, pid in pids(deployment).items()}
    taken = [published(editor, sink, "news", Audience.PUBLIC, MAILS)[1] for _ in range(RUNS)]
    used = {name: (cpu_seconds(pid) - before[name]) / (RUNS * MAILS) * 1e6 for name, pid in pids(deployment).items()}
    rate = MAILS / median(taken)
    table.add(
        f"{deployment.kind}: 10,000 mails, publish to last accepted", f"{rate:.0f} mails/s ({median(taken):.2f} s)"
    )
    table.add(f"{deployment.kind}: CPU a mail", ", ".join(f"{name} {each:.0f} µs" for name, each in used.items()))
    return rate


def first_newsroom_mail(deployment: Deployment, editor: Editor, sink: SinkProcess, table: Table) -> float:
    """Seconds from the publish call to the first newsroom's mail accepted."""
    firsts, idle = [], []
    for _ in range(10):
        idle.append(idle_share())
        firsts.append(published(editor, sink, "press_release", Audience.NEWSROOM, DESKS)[0])
    measured = (
        f"{median(firsts):.3f} s (of 10, {min(firsts):.3f} to {max(firsts):.3f}; machine {median(idle):.0%} idle)"
    )
    table.add(f"{deployment.kind}: publish to first newsroom mail", measured)
    return median(firsts)


def growth(deployment: Deployment, editor: Editor, sink: SinkProcess, table: Table) -> float:
    """By how many megabytes the service grows that grows most."""
    with Watch(pids(deployment)) as few:
        published(editor, sink, "news", Audience.POLITICIAN, FEW)
    add_people(deployment, Audience.AGENCY_OFFICIAL, range(MANY))
    with Watch(pids(deployment)) as many:
        _, taken = published(editor, sink, "news", Audience.AGENCY_OFFICIAL, MANY)
    grown = {name: many.highest[name] - few.highest[name] for name in few.highest}
    told = ", ".join(f"{name} {few.highest[name]:.0f} → {many.highest[name]:.0f} MB" for name in grown)
    table.add(f"{deployment.kind}: memory, 1,000 → 100,000 recipients", f"{told} ({MANY / taken:.0f} mails/s)")
    return max(grown.values())


def test_the_promise(table: Table, rates: dict[str, float], broken: list[str]) -> None:
    """At the end, so that one broken promise hides no other figure."""
    for kind in KINDS:
        ratio = rates[kind] / rates["plain"]
        table.add(f"{kind}: against the plain way", f"{ratio:.1f} times")
        if ratio < TIMES_FASTER:
            broken.append(f"{kind}: less than {TIMES_FASTER} times the plain way")
    assert not broken
