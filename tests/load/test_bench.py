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
from collections.abc import Callable, Iterable, Iterator
from email.message import EmailMessage
from functools import partial
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
PLAIN = "plain way (Celery on RabbitMQ, a task a mail, smtplib, prefork 2)"
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
def sample(editors: Callable[[Deployment], Editor], table: Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    table.add("one mail", f"{stored.stat().st_size} bytes, text and HTML")
    words = {"from": str(message["From"]), "subject": str(message["Subject"])}
    words |= {"text": str(text.get_content()), "html": str(html.get_content())}
    path = directory / "mail.json"
    path.write_text(json.dumps(words))
    return path


class PlainWay:
    """Celery's workers, running; `send` is its one publish call."""

    def __init__(self, sink: SinkProcess, sample: Path, directory: Path) -> None:
        self._sink = sink
        self._root = Path(__file__).parents[2]
        self._told = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "PLAIN_WAY_BROKER": shared_amqp_url().partition("?")[0],
            "PLAIN_WAY_NAME": str(os.getpid()),
            "PLAIN_WAY_MAIL": str(sample),
            "PLAIN_WAY_SMTP_PORT": str(sink.port),
        }
        arguments = ["-A", "tests.load.plain_way", "worker", "-P", "prefork", "-c", "2", "-l", "info"]
        command = [sys.executable, "-m", "celery", *arguments]
        self._worker = ServerProcess(command, directory / "celery.log", env=self._told, cwd=self._root)
        self._worker.start(lambda: b" ready." in self._worker.log.read_bytes(), within=60)

    def send(self, count: int) -> float:
        """Seconds from the call to the last of `count` mails accepted."""
        arrivals = Arrivals(self._sink)
        began = time.time()
        command = [sys.executable, "-m", "tests.load.plain_way", str(count)]
        with subprocess.Popen(command, env=self._told, cwd=self._root) as sender:
            taken = arrivals.wait(count, within=LIMIT_S).last - began
            assert sender.wait() == 0
        return taken

    def pids(self) -> list[int]:
        return self._worker.family()

    def stop(self) -> None:
        self._worker.kill()


@pytest.fixture(scope="module")
def plain_way(sink: SinkProcess, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlainWay]:
    running = PlainWay(sink, sample, tmp_path_factory.mktemp("celery"))
    yield running
    running.stop()


def used(pids: Iterable[int]) -> float:
    """Processor time so far; of the plain way only its workers', of ours all that the services do."""
    return sum(cpu_seconds(pid) for pid in pids)


def test_ten_thousand_mails(
    opened: Open,
    editors: Callable[[Deployment], Editor],
    plain_way: PlainWay,
    sink: SinkProcess,
    table: Table,
    broken: list[str],
) -> None:
    """Taking turns, round by round: whatever else the machine does then touches all of them alike."""
    contenders: dict[str, Callable[[int], float]] = {PLAIN: plain_way.send}
    processes: dict[str, list[int]] = {PLAIN: plain_way.pids()}
    for kind in KINDS:
        deployment = opened(kind)
        settle(deployment)
        contenders[kind] = partial(all_readers, editors(deployment), sink)
        processes[kind] = list(pids(deployment).values())
        published(editors(deployment), sink, "news", Audience.POLITICIAN, FEW)  # warm, as on any other day
    plain_way.send(200)
    rounds: list[dict[str, float]] = []
    spent = dict.fromkeys(contenders, 0.0)
    for _ in range(RUNS):
        rounds.append({})
        for name, act in contenders.items():
            before = used(processes[name])
            rounds[-1][name] = act(MAILS)
            spent[name] += used(processes[name]) - before
    for name in contenders:
        taken = median(each[name] for each in rounds)
        cpu = spent[name] / (RUNS * MAILS) * 1e6
        table.add(f"{name}: 10,000 mails", f"{MAILS / taken:.0f} mails/s ({taken:.2f} s; CPU {cpu:.0f} µs a mail)")
    for kind in KINDS:
        ratios = [each[PLAIN] / each[kind] for each in rounds]
        told = ", ".join(f"{ratio:.1f}" for ratio in ratios)
        table.add(f"{kind}: against the plain way", f"{median(ratios):.1f} times (rounds: {told})")
        if median(ratios) < TIMES_FASTER:
            broken.append(f"{kind}: less than {TIMES_FASTER} times the plain way")


def settle(deployment: Deployment) -> None:
    """Let its readers move in."""
    add_people(deployment, Audience.NEWSROOM, range(DESKS))
    add_people(deployment, Audience.POLITICIAN, range(FEW))
    add_people(deployment, Audience.PUBLIC, range(MAILS))


def all_readers(editor: Editor, sink: SinkProcess, count: int) -> float:
    return published(editor, sink, "news", Audience.PUBLIC, count)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_mail_and_the_memory(
    kind: str,
    opened: Open,
    editors: Callable[[Deployment], Editor],
    sink: SinkProcess,
    table: Table,
    broken: list[str],
) -> None:
    deployment = opened(kind)
    editor = editors(deployment)
    if first_newsroom_mail(deployment, editor, sink, table) >= FIRST_MAIL_S:
        broken.append(f"{kind}: the first newsroom mail took {FIRST_MAIL_S} s or more")
    if growth(deployment, editor, sink, table) >= GROWTH_MB:
        broken.append(f"{kind}: memory grew by {GROWTH_MB} MB or more")


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


def test_the_promises(broken: list[str]) -> None:
    """At the end, so that one broken promise hides no other figure."""
    assert not broken
