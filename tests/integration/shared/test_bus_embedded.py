"""The embedded bus's own promises: one process, no loss on a kill, speed, and a clock that may be wrong."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.eventually import eventually
from tests.integration.shared.transports import FIRST, OTHER, QUEUES, SECOND, Collector, hang, news, published

import content.app
from content.settings import ContentSettings
from shared import process
from shared.clock import FixedClock
from shared.messaging import embedded
from shared.messaging.bus import Ack, BusUnavailable, Incoming, Retry
from shared.messaging.embedded import EmbeddedBus, FileInUse
from shared.messaging.topology import BROKER_DELIVERY_LIMIT
from shared.settings import EXIT_CONFIG

HOLDER = """
import asyncio, sys
from pathlib import Path
from shared.messaging.embedded import EmbeddedBus
from tests.integration.shared.transports import FIRST, QUEUES, news, published

async def main():
    bus = EmbeddedBus(Path(sys.argv[1]), queues=QUEUES)
    await bus.start()
    async def receive(incoming):
        print("in hand", incoming.message_id, flush=True)
        await asyncio.Event().wait()
    if "publish" in sys.argv:
        await published(bus, news("a"), news("b"))
    await bus.consume(FIRST, receive)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bus.sqlite3"


@pytest.fixture
async def opened(path: Path) -> AsyncIterator[Callable[..., EmbeddedBus]]:
    buses: list[EmbeddedBus] = []

    def build(**options: object) -> EmbeddedBus:
        buses.append(EmbeddedBus(path, queues=QUEUES, **options))  # type: ignore[arg-type]
        return buses[-1]

    yield build
    for bus in buses:
        await bus.close()


def kill_while_in_hand(path: Path, *options: str) -> str:
    """Run a process that takes a message and hangs, and kill it; returns what it had in hand."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), *options],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert child.stdout is not None
    line = child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait(10)
    child.stdout.close()
    return line.removeprefix("in hand ").strip()


async def test_a_message_in_hand_at_a_kill_is_due_again_at_once(path: Path, opened: Callable[..., EmbeddedBus]) -> None:
    assert await asyncio.to_thread(kill_while_in_hand, path, "publish") == "a"
    bus, seen = opened(), Collector()
    await bus.start()
    started = time.monotonic()
    await bus.consume(FIRST, seen)
    await eventually(seen.has("a", "b"))
    assert seen.ids == ["a", "b"]
    assert time.monotonic() - started < 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_message_that_kills_its_process_is_given_up_and_takes_no_neighbour_along(
    path: Path, opened: Callable[..., EmbeddedBus]
) -> None:
    await asyncio.to_thread(kill_while_in_hand, path, "publish")
    with closing(sqlite3.connect(path)) as connection:  # as many deaths, without the wait for as many processes
        connection.execute("UPDATE queued_messages SET deaths = ? WHERE message_id = 'a'", [BROKER_DELIVERY_LIMIT - 1])
        connection.commit()
    assert await asyncio.to_thread(kill_while_in_hand, path) == "a"
    bus, seen = opened(), Collector()
    await bus.start()
    await bus.consume(FIRST, seen)
    await eventually(seen.has("a", "b"))
    assert [(incoming.message_id, incoming.given_up) for incoming in seen.seen] == [("a", True), ("b", False)]


async def test_a_second_process_is_refused_and_a_second_bus_too(path: Path, opened: Callable[..., EmbeddedBus]) -> None:
    bus = opened()
    await bus.start()
    with pytest.raises(FileInUse, match="in use by another Budkavle"):
        await opened().start()
    child = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", HOLDER, str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert child.returncode != 0 and "FileInUse" in child.stderr
    await bus.close()
    await opened().start()


def test_a_service_beside_another_on_the_same_bus_is_refused_in_one_line(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bus, loop = EmbeddedBus(path), asyncio.new_event_loop()
    loop.run_until_complete(bus.start())
    told = {
        "DATABASE_URL": f"sqlite:///{path}.other",
        "BROKER_URL": f"embedded:{path}",
        "SECRET_KEYS": "k" * 32,
        "PORT": "0",
    }
    for name, value in told.items():
        monkeypatch.setenv(f"BUDKAVLE_{name}", value)
    monkeypatch.setattr(sys, "argv", ["content", "work"])
    monkeypatch.setattr(process.logging, "configure", lambda **_: None)
    with pytest.raises(SystemExit) as end:
        process.main("content", ContentSettings, content.app.build, path.parent)
    loop.run_until_complete(bus.close())
    loop.close()
    line = capsys.readouterr().err
    assert end.value.code == EXIT_CONFIG
    assert line.count("\n") == 1 and "in use by another Budkavle" in line and "python -m content run" in line


async def test_a_planned_end_is_no_death(path: Path, opened: Callable[..., EmbeddedBus]) -> None:
    bus, seen = opened(), Collector(hang)
    await bus.start()
    await bus.consume(FIRST, seen)
    await published(bus, news("a"), news("b"))
    await eventually(lambda: seen.ids)
    await bus.close()
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT message_id, leased, deaths FROM queued_messages WHERE queue = 'tests.first'")
        assert rows.fetchall() == [("a", 0, 0), ("b", 0, 0)]


@pytest.mark.parametrize(("size", "in_hand"), [(400_000, 2), (2_000_000, 1)])
async def test_no_more_than_a_megabyte_is_in_hand_but_one_message_at_least(
    path: Path, opened: Callable[..., EmbeddedBus], size: int, in_hand: int
) -> None:
    bus = opened()
    await bus.start()
    await published(bus, *(news(f"large {number}", body=b"x" * size) for number in range(4)))
    seen = Collector(hang)
    await bus.consume(FIRST, seen)
    await eventually(lambda: seen.seen)
    with closing(sqlite3.connect(path)) as connection:
        (leased,) = connection.execute("SELECT count(*) FROM queued_messages WHERE leased").fetchone()
    assert leased == in_hand


async def test_it_knows_how_much_each_queue_holds(opened: Callable[..., EmbeddedBus]) -> None:
    bus = opened()
    await bus.start()
    await published(bus, news("a"), news("b", routing_key="news.corrected"))
    assert await bus.depths() == {FIRST.name: 2, SECOND.name: 1, OTHER.name: 0}


async def test_a_clock_that_steps_back_hides_nothing(opened: Callable[..., EmbeddedBus]) -> None:
    clock = FixedClock(datetime(2026, 11, 22, 8, 30, tzinfo=UTC))
    bus, seen = opened(clock=clock), Collector()
    await bus.start()
    await published(bus, news("before"))
    clock.advance(timedelta(hours=-1))
    await published(bus, news("after"))
    await bus.consume(FIRST, seen)
    await eventually(lambda: seen.ids == ["before", "after"], within=3)


async def test_a_retry_waits_its_time(opened: Callable[..., EmbeddedBus]) -> None:
    clock = FixedClock(datetime(2026, 11, 22, 8, 30, tzinfo=UTC))
    bus, seen = opened(clock=clock), Collector(lambda incoming: Retry(15) if incoming.attempt == 1 else Ack())
    await bus.start()
    await bus.consume(FIRST, seen)
    await published(bus, news("late"))
    await eventually(lambda: seen.ids)
    clock.advance(timedelta(seconds=14))
    await published(bus, news("marker"))
    await eventually(seen.has("marker"))
    assert seen.ids.count("late") == 1
    clock.advance(timedelta(seconds=1))
    await eventually(lambda: seen.ids.count("late") == 2, within=5)


async def test_answers_that_cannot_be_written_are_written_later_and_hand_nothing_out_twice(
    path: Path, opened: Callable[..., EmbeddedBus], monkeypatch: pytest.MonkeyPatch
) -> None:
    record, failures = embedded._record, iter([OSError("disk full"), OSError("disk full")])

    def failing(*arguments: object) -> None:
        if (error := next(failures, None)) is not None:
            raise error
        record(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(embedded, "_record", failing)
    monkeypatch.setattr(embedded, "POLL_S", 0.02)
    bus, seen = opened(), Collector()
    await bus.start()
    await bus.consume(FIRST, seen)
    await published(bus, *(news(str(number)) for number in range(50)))

    async def nothing_left() -> bool:
        return (await bus.depths())[FIRST.name] == 0

    await eventually(nothing_left)
    assert seen.ids == [str(number) for number in range(50)]


async def test_what_cannot_be_written_is_not_accepted(
    opened: Callable[..., EmbeddedBus], monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = opened()
    assert [type(answer) for answer in await bus.publish([news("too early")])] == [BusUnavailable]
    await bus.start()

    async def full(_rows: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(bus, "_write", full)
    assert [type(answer) for answer in await bus.publish([news("a")])] == [BusUnavailable]


@pytest.mark.bench
async def test_two_thousand_small_messages_a_second(opened: Callable[..., EmbeddedBus]) -> None:
    total = 10_000
    bus, done = opened(), asyncio.Event()
    count = 0

    async def receive(_incoming: Incoming) -> Ack:
        nonlocal count
        count += 1
        if count == total:
            done.set()
        return Ack()

    await bus.start()
    await bus.consume(FIRST, receive)
    started, spent = time.perf_counter(), time.process_time()
    for batch in range(total // 50):
        await published(bus, *(news(f"{batch}-{n}", body=b"x" * 500, routing_key="news.corrected") for n in range(50)))
    await done.wait()
    await bus.drain()
    wall, cpu = time.perf_counter() - started, time.process_time() - spent
    print(f"embedded bus: {total / wall:,.0f} messages/s, {total / cpu:,.0f} per second of processor time")
    assert total / cpu > 2_000, "what the machine's other work cannot slow down"
