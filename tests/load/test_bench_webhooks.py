"""How fast webhooks go out: ours, signed, with the guard and the ledger on, against bare loops. `make bench`.

All post the same 2 kB to the same receiver, 32 in flight, from one process. The bare loops sign too; they keep no
ledger, judge no address, limit no answer and retry nothing.
"""

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from uuid import UUID, uuid4

import aiohttp
import httpx2
import pytest
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


async def rate(post: Callable[[int], Awaitable[None]], count: int) -> float:
    """Requests a second, `IN_FLIGHT` at a time."""
    numbers = iter(range(count))

    async def slot() -> None:
        for number in numbers:
            await post(number)

    began = time.perf_counter()
    await asyncio.gather(*(slot() for _ in range(IN_FLIGHT)))
    return count / (time.perf_counter() - began)


async def plain_aiohttp(base: str, count: int) -> float:
    body, headers = requests()
    async with aiohttp.ClientSession() as session:

        async def post(number: int) -> None:
            async with session.post(f"{base}/hook/{number % ENDPOINTS}", data=body, headers=headers(number)) as answer:
                assert answer.status == 200
                await answer.read()

        return await rate(post, count)


async def plain_httpx2(base: str, count: int) -> float:
    body, headers = requests()
    async with httpx2.AsyncClient(trust_env=False, limits=httpx2.Limits(max_connections=IN_FLIGHT)) as client:

        async def post(number: int) -> None:
            answer = await client.post(f"{base}/hook/{number % ENDPOINTS}", content=body, headers=headers(number))
            assert answer.status_code == 200

        return await rate(post, count)


async def without_ledger(hooks: HookLedger, endpoint_ids: Sequence[UUID], count: int) -> float:
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
        return await rate(post, count)
    finally:
        await sender.close()


async def test_webhooks_a_second(ledger_url: str, receiver: str, table: Table) -> None:
    kind = ledger_url.partition(":")[0].partition("+")[0]
    hooks = HookLedger(ledger_url)
    endpoint_ids = await hooks.register(receiver, ENDPOINTS)
    await hooks.plan(endpoint_ids, ITEMS)
    await hooks.drain()
    ours, alone, bare = [], [], []

    async def measure_ours() -> None:
        await hooks.begin_again()
        ours.append(HOOKS / await hooks.drain())

    async def measure_sender() -> None:
        alone.append(await without_ledger(hooks, endpoint_ids, HOOKS))

    async def measure_bare() -> None:
        bare.append(await plain_aiohttp(receiver, HOOKS))

    contenders = (measure_ours, measure_sender, measure_bare)
    for run in range(RUNS):
        for measure in contenders if run % 2 else contenders[::-1]:
            await measure()
    slow = await plain_httpx2(receiver, HOOKS // 8)
    await hooks.database.dispose()
    first, second = median(ours) / median(bare), median(ours) / slow
    table.add(f"webhooks, {kind}", f"{median(ours):.0f}/s ({', '.join(f'{each:.0f}' for each in ours)})")
    sending = median(alone) / median(bare)
    table.add("  without the ledger", f"{median(alone):.0f}/s, {sending:.2f} times plain aiohttp")
    table.goal(f"webhooks, {kind}, of a plain aiohttp loop", first, OF_AIOHTTP, f"{median(bare):.0f}/s")
    table.goal(f"webhooks, {kind}, of a plain httpx2 loop", second, OF_HTTPX2, f"{slow:.0f}/s")


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
