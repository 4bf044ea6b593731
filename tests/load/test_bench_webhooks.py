"""How fast webhooks go out: ours, signed, with the guard and the ledger on, against bare loops. `make bench`.

All post the same 2 kB to the same receiver, 32 requests in flight, from one process, on the event loop that the services
run on. The bare loops sign too; they keep no ledger, judge no address, limit no answer and retry nothing. Of ours, as in
production, more are in the ledger's hands than on their way. Beside the rate stands the CPU of the process a webhook,
which neighbours disturb less.
"""

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple
from uuid import UUID, uuid4

import aiohttp
import httpx2
import pytest
import uvloop
from tests.deployments import ADMIN_KEY, Deployment, Distributed, Standalone
from tests.load.conftest import Table
from tests.load.hook_ledger import HookLedger, snapshot
from tests.load.hook_sink import hook_sink
from tests.load.newsroom import Editor
from tests.servers.postgres import create_database, drop_database, shared_postgres_url
from tests.servers.rabbitmq import shared_amqp_url
from tests.servers.sink import SinkProcess

from distributor.channels import Content, Dispatch
from distributor.webhooks.body import CONTENT_TYPE, news_body
from distributor.webhooks.sending import WebhookSender
from distributor.webhooks.signing import new_secret, signed_headers, signer
from shared.clock import SystemClock
from shared.contracts.delivery import Channel
from shared.contracts.mail import Form, Lane, SubjectKind

pytestmark = pytest.mark.bench

CLOCK = SystemClock()
IN_FLIGHT = 32
ENDPOINTS = 640
ITEMS = 10
HOOKS = ENDPOINTS * ITEMS
RUNS = int(os.environ.get("BENCH_ROUNDS", "5"))
OF_AIOHTTP, OF_HTTPX2 = 0.8, 10.0
MANY_ENDPOINTS, ALL_TOLD_S, PUBLISHED = 1_000, 2.0, 21


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with hook_sink(tmp_path_factory.mktemp("hooks")) as (base, _):
        yield base


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    with hook_sink(tmp_path_factory.mktemp("seen")) as (base, log):
        yield base, log


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/distributor.sqlite3"
        return
    request.getfixturevalue("durable_postgres")
    server = shared_postgres_url()
    url = create_database(server)
    yield url
    drop_database(url, server)


def requests() -> tuple[bytes, Callable[[int], dict[str, str]]]:
    item = snapshot()
    body = news_body(Content(SubjectKind.ITEM, item.item_id, 1, item), Form.NEWS, CLOCK.now())
    signers = [signer(new_secret())]
    return body, lambda number: {
        **signed_headers(f"d-{number}", CLOCK.now(), body, signers),
        "Content-Type": CONTENT_TYPE,
    }


class Taken(NamedTuple):
    """What a number of webhooks took: how many a second, and the process's CPU for each, in µs."""

    rate: float
    cpu_us: float


async def taken(work: Awaitable[object], count: int) -> Taken:
    began, spent = time.perf_counter(), time.process_time()
    await work
    return Taken(count / (time.perf_counter() - began), (time.process_time() - spent) / count * 1e6)


async def all_of(post: Callable[[int], Awaitable[None]], count: int) -> None:
    """`count` requests, `IN_FLIGHT` at a time."""
    numbers = iter(range(count))

    async def slot() -> None:
        for number in numbers:
            await post(number)

    await asyncio.gather(*(slot() for _ in range(IN_FLIGHT)))


async def plain_aiohttp(base: str, count: int) -> None:
    body, headers = requests()
    async with aiohttp.ClientSession() as session:

        async def post(number: int) -> None:
            async with session.post(f"{base}/hook/{number % ENDPOINTS}", data=body, headers=headers(number)) as answer:
                assert answer.status == 200
                await answer.read()

        await all_of(post, count)


async def plain_httpx2(base: str, count: int) -> None:
    body, headers = requests()
    async with httpx2.AsyncClient(trust_env=False, limits=httpx2.Limits(max_connections=IN_FLIGHT)) as client:

        async def post(number: int) -> None:
            answer = await client.post(f"{base}/hook/{number % ENDPOINTS}", content=body, headers=headers(number))
            assert answer.status_code == 200

        await all_of(post, count)


async def without_ledger(hooks: HookLedger, endpoint_ids: Sequence[UUID], count: int) -> None:
    """Our sender by itself: reads the endpoint, signs, judges the address, limits the answer, says the outcome."""
    sender = WebhookSender(hooks.settings, hooks.database, CLOCK)
    item = snapshot()
    content = Content(SubjectKind.ITEM, item.item_id, 1, item)
    at = CLOCK.now()

    async def post(number: int) -> None:
        key = endpoint_ids[number % len(endpoint_ids)]
        told = Dispatch(uuid4(), Channel.WEBHOOK, key, Form.NEWS, Lane.NEWS, content, at, attempt=1)
        assert (await sender.send(told)).code == 200

    try:
        await all_of(post, count)
    finally:
        await sender.close()


def test_webhooks_a_second(ledger_url: str, receiver: str, table: Table) -> None:
    uvloop.run(compared(ledger_url, receiver, table))


async def compared(ledger_url: str, receiver: str, table: Table) -> None:
    kind = ledger_url.partition(":")[0].partition("+")[0]
    hooks = HookLedger(ledger_url)
    endpoint_ids = await hooks.register(receiver, ENDPOINTS)
    await hooks.plan(endpoint_ids, ITEMS)
    await hooks.drain(IN_FLIGHT)
    contenders: dict[str, Callable[[], Awaitable[object]]] = {
        "ours": lambda: hooks.drain(IN_FLIGHT),
        "without the ledger": lambda: without_ledger(hooks, endpoint_ids, HOOKS),
        "plain aiohttp": lambda: plain_aiohttp(receiver, HOOKS),
    }
    runs: dict[str, list[Taken]] = {name: [] for name in contenders}
    for run in range(RUNS):
        for name in list(contenders)[:: 1 if run % 2 else -1]:
            await hooks.begin_again()
            runs[name].append(await taken(contenders[name](), HOOKS))
    slow = await taken(plain_httpx2(receiver, HOOKS // 8), HOOKS // 8)
    await hooks.database.dispose()
    rates = {name: median(one.rate for one in each) for name, each in runs.items()}
    cpu = {name: median(one.cpu_us for one in each) for name, each in runs.items()}
    bare = rates["plain aiohttp"]
    for name, each in runs.items():
        told = ", ".join(f"{one.rate:.0f}" for one in each)
        table.add(f"webhooks, {kind}, {name}", f"{rates[name]:.0f}/s ({told}), {cpu[name]:.0f} µs of CPU each")
    table.goal(f"webhooks, {kind}, of a plain aiohttp loop", rates["ours"] / bare, OF_AIOHTTP, f"{bare:.0f}/s")
    table.add("  by CPU", f"{cpu['plain aiohttp'] / cpu['ours']:.2f} times plain aiohttp")
    table.goal(f"webhooks, {kind}, of a plain httpx2 loop", rates["ours"] / slow.rate, OF_HTTPX2, f"{slow.rate:.0f}/s")
    table.add("  by CPU", f"{slow.cpu_us / cpu['ours']:.1f} times plain httpx2, {slow.cpu_us:.0f} µs")


@pytest.mark.parametrize("kind", [Standalone.kind, Distributed.kind])
def test_publish_to_the_last_of_a_thousand_endpoints(
    kind: str, seen: tuple[str, Path], request: pytest.FixtureRequest, sink: SinkProcess, table: Table
) -> None:
    base, log = seen
    settings = {"WEBHOOK_ALLOW_LOOPBACK": "true", "SMTP_URL": f"smtp://127.0.0.1:{sink.port}?starttls=never"}
    deployment: Deployment
    if kind == Standalone.kind:
        deployment = Standalone(settings=settings)
    else:
        request.getfixturevalue("durable_postgres")
        deployment = Distributed(shared_amqp_url(), settings=settings)
    deployment.open()
    try:
        _register(deployment, base, MANY_ENDPOINTS)
        editor = Editor(deployment, ADMIN_KEY)
        taken = [_told(editor, log, MANY_ENDPOINTS) for _ in range(PUBLISHED)][1:]
        editor.close()
    finally:
        deployment.close()
    slowest = sorted(taken)[math.ceil(len(taken) * 0.95) - 1]
    told = f"median {median(taken):.2f} s of {len(taken)}"
    table.goal(
        f"{kind}: publish to the last of {MANY_ENDPOINTS:,} endpoints, p95 s", slowest, ALL_TOLD_S, told, at_most=True
    )
    assert slowest < ALL_TOLD_S


def _register(deployment: Deployment, base: str, count: int) -> None:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with httpx2.Client(base_url=deployment.url, headers=headers, timeout=60, trust_env=False) as api:
        for number in range(count):
            wanted = {
                "name": f"Intranät {number}",
                "organisation": "Nybro kommun",
                "url": f"{base}/hook/{number}",
                "contact_email": "webb@nybro.example",
            }
            answer = api.post("/api/distributor/v1/endpoints", json=wanted)
            assert answer.status_code == 201, answer.text


def _told(editor: Editor, log: Path, count: int) -> float:
    """Seconds from the publish call to the last endpoint's answer; each is told once."""
    item = editor.draft("news", "agency_official", f"Nytt, {time.time_ns()}")
    offset = log.stat().st_size
    began, deadline = time.time(), time.monotonic() + 60
    editor.publish(item)
    while True:
        lines = log.read_bytes()[offset:].split(b"\n")[:-1]
        if len(lines) >= count:
            assert len({line.split()[1] for line in lines}) == len(lines) == count
            return float(lines[-1].split()[0]) - began
        assert time.monotonic() < deadline, f"{len(lines)} of {count} endpoints were told"
        time.sleep(0.05)
