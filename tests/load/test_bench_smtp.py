"""How fast ready bytes leave: our pool, pipelined and not, against `smtp-source` and aiosmtplib alone. `make bench`.

All send the same 6 kB to Postfix's own `smtp-sink`, one recipient each, from one process, in turns within one run.
"""

import asyncio
import os
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator

import aiosmtplib
import pytest
import uvloop
from tests.load.conftest import Table
from tests.servers.run import claim_port

from distributor.mail.dialogue import Composed
from distributor.mail.relay_url import RelayUrl
from distributor.mail.smtp import RelaySettings, SmtpRelay

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(shutil.which("smtp-sink") is None, reason="smtp-sink and smtp-source are part of Postfix"),
]

CONNECTIONS, OF_AIOSMTPLIB = 16, 32
MAILS, MAILS_SLOW = 20_000, 8_000
IN_HAND = 2
RUNS = int(os.environ.get("BENCH_ROUNDS", "5"))
GOAL_SOURCE, GOAL_AIOSMTPLIB = 1.0, 4.0
HEAD = b"From: a@forbundet.example\r\nTo: b@kommun.example\r\nSubject: Fler unga i arbete\r\n\r\n"
TEXT = HEAD + (b"x" * 70 + b"\r\n") * ((6000 - len(HEAD)) // 72)


@pytest.fixture(scope="module")
def sink_port() -> Iterator[int]:
    port = claim_port()
    command = ["smtp-sink", "-u", "nobody", f"127.0.0.1:{port}", "1000"]
    sink = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while not listens(port):
        assert time.monotonic() < deadline, "smtp-sink does not listen"
        time.sleep(0.02)
    yield port
    sink.terminate()
    sink.wait(10)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def ours(port: int) -> float:
    url = RelayUrl.parse(f"smtp://127.0.0.1:{port}?starttls=never")
    relay = SmtpRelay(RelaySettings(url, CONNECTIONS, timeout_s=60, dot_timeout_s=60, ehlo_name="bench.example"))
    numbers = iter(range(MAILS))

    async def slot() -> None:
        for number in numbers:
            mail = Composed("a@forbundet.example", f"b{number}@kommun.example", TEXT, f"<{number}@x.example>")
            assert (await relay.transmit(mail)).sent

    began = time.perf_counter()
    await asyncio.gather(*(slot() for _ in range(CONNECTIONS * IN_HAND)))
    rate = MAILS / (time.perf_counter() - began)
    await relay.close()
    return rate


async def aiosmtplib_alone(port: int) -> float:
    numbers = iter(range(MAILS_SLOW))

    async def connection() -> None:
        async with aiosmtplib.SMTP(
            hostname="127.0.0.1", port=port, start_tls=False, local_hostname="x.example"
        ) as client:
            for number in numbers:
                await client.sendmail("a@forbundet.example", f"b{number}@kommun.example", TEXT)

    began = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(OF_AIOSMTPLIB)))
    return MAILS_SLOW / (time.perf_counter() - began)


def smtp_source(port: int) -> float:
    sessions, size = str(CONNECTIONS), str(len(TEXT))
    command = ["smtp-source", "-d", "-s", sessions, "-m", str(MAILS), "-l", size, f"127.0.0.1:{port}"]
    began = time.perf_counter()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return MAILS / (time.perf_counter() - began)


def test_ready_bytes_a_second(sink_port: int, table: Table) -> None:
    contenders = {
        "ours": lambda: uvloop.run(ours(sink_port)),
        "smtp-source": lambda: smtp_source(sink_port),
        "aiosmtplib": lambda: uvloop.run(aiosmtplib_alone(sink_port)),
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for run in range(RUNS):
        for name in contenders if run % 2 else reversed(contenders):
            rates[name].append(contenders[name]())
    medians = {name: statistics.median(each) for name, each in rates.items()}
    each = ", ".join(f"{rate:.0f}" for rate in rates["ours"])
    table.add(f"ready bytes, {CONNECTIONS} connections", f"{medians['ours']:.0f}/s ({each})")
    for name, connections, goal in (
        ("smtp-source", CONNECTIONS, GOAL_SOURCE),
        ("aiosmtplib", OF_AIOSMTPLIB, GOAL_AIOSMTPLIB),
    ):
        ratio = medians["ours"] / medians[name]
        table.goal(f"ready bytes of {name}, {connections} connections", ratio, goal, f"{medians[name]:.0f}/s")
