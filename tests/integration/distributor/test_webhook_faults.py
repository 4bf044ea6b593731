"""The faults of webhook receivers (F48 to F51), each by its number, and the order of one item's events."""

import asyncio
import json
import math
import os
import random
import socket
import ssl
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohappyeyeballs import AddrInfoType
from aiohttp import web
from httptools import HttpResponseParser
from standardwebhooks.webhooks import Webhook
from tests.eventually import eventually
from tests.integration.distributor.conftest import Measured, snapshot
from tests.integration.distributor.webhook_room import CLOCK, URL, HookRoom, found, opened, settings_for
from tests.servers.certificates import CertificateAuthority
from tests.servers.process import ServerProcess
from tests.servers.receiver import CUT, HANG, Answer, HttpReceiver, redirect

from distributor.channels import Content, Dispatch, Outcome
from distributor.retry_policy import JITTER, SCHEDULES, jittered
from distributor.webhooks import exchange
from distributor.webhooks.addresses import AddressPolicy
from distributor.webhooks.client import Answer as Said
from distributor.webhooks.client import Silence, WebhookClient, Why
from distributor.webhooks.sending import SLOTS_PER_ENDPOINT, WebhookSender
from distributor.webhooks.urls import UrlNotAllowed, checked_url
from shared.contracts.delivery import Channel, DeliveryState
from shared.contracts.mail import Form, Lane, SubjectKind
from shared.contracts.news import ItemState, NewsCorrected, NewsPublished, NewsWithdrawn

HOSTILE_MB = 5.0
PLACES = 4
"""Of one endpoint: so many of its webhooks are under way at a time."""


A_DAY_S = 86_400
on_sqlite_first = pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.soak)], indirect=True
)


@pytest.fixture
async def hooks(database_url: str) -> AsyncIterator[HookRoom]:
    async with opened(database_url, webhook_timeout_s=0.5) as room:
        yield room


async def test_f48_a_broken_receiver_is_tried_for_three_days_told_of_disabled_and_restored(
    hooks: HookRoom, http_receiver: HttpReceiver
) -> None:
    key = await hooks.endpoint(http_receiver.url("/hook"))
    http_receiver.script("/hook", 500, HANG, CUT, 401, 404, 503, 302, 400, HANG, 404)
    await hooks.publish()
    async with hooks.sending():
        await hooks.settled()
    tried = http_receiver.requests
    assert len(tried) == 10
    assert sum(SCHEDULES[Channel.WEBHOOK], timedelta(0)) >= timedelta(hours=75)
    assert len({request.header("webhook-id") for request in tried}) == 1
    assert len({request.body for request in tried}) == 1
    stamps = [int(request.header("webhook-timestamp") or 0) for request in tried]
    assert stamps == sorted(stamps)
    assert all(abs(stamp - tried[n].received_at.timestamp()) < 3 for n, stamp in enumerate(stamps))
    assert stamps[-1] > stamps[0]  # two that hung took a second together
    for request in tried:
        Webhook(hooks.secrets[key]).verify(request.body, request.header_map)
    assert [(one.code, one.phase) for one in await hooks.tried()][:5] == [
        (500, "answer"),
        (None, "timeout"),
        (None, "broken_answer"),
        (401, "answer"),
        (404, "answer"),
    ]
    await hooks.care()
    assert len(await hooks.mails()) == 1
    await hooks.care(later=timedelta(days=5, minutes=1))
    assert (await hooks.shown(key))["disabled_reason"] == "failing"
    http_receiver.by_default(200)
    await hooks.publish(2)  # not planned: nothing is sent to a disabled endpoint
    await hooks.enable(key)
    since = (CLOCK.now() - timedelta(days=1)).isoformat()
    answer = await hooks.api.post(f"{URL}/{key}/recover", json={"since": since})
    assert answer.json() == {"replanned": 3}  # what failed, and what came while it was disabled
    async with hooks.sending():
        await hooks.settled()
    assert await hooks.states() == {"sent": 3}


async def test_f48_one_delivery_is_replayed_by_hand(hooks: HookRoom, http_receiver: HttpReceiver) -> None:
    await hooks.endpoint(http_receiver.url("/hook"))
    http_receiver.always("/hook", 410)
    await hooks.publish()
    async with hooks.sending():
        await hooks.settled()
    (endpoint,) = (await hooks.api.get(URL)).json()["data"]
    http_receiver.always("/hook", 200)
    await hooks.enable(UUID(endpoint["id"]))
    (delivery,) = (await hooks.api.get("/api/distributor/v1/deliveries")).json()["data"]
    again = await hooks.api.post(f"/api/distributor/v1/deliveries/{delivery['id']}/retry")
    assert again.status_code == 202
    async with hooks.sending():
        await hooks.settled()
    one, two = http_receiver.requests
    assert (one.body, one.header("webhook-id")) == (two.body, two.header("webhook-id"))
    assert await hooks.states() == {"sent": 1}


def test_f48_jitter_is_added_and_measured() -> None:
    random.seed(48)
    waits = [jittered(timedelta(hours=1), 1.0) / timedelta(hours=1) for _ in range(2000)]
    assert min(waits) >= 1
    assert 0.1 <= max(waits) - min(waits) <= 0.3


async def test_f48_bad_tls_is_tried_again_and_sent_nothing(
    hooks: HookRoom, certificate_authority: CertificateAuthority
) -> None:
    context: ssl.SSLContext = certificate_authority.server_context("other.example")
    with HttpReceiver(tls_context=context) as receiver:
        key = await hooks.endpoint(f"https://localhost:{receiver.port}/hook")
        sender = WebhookSender(hooks.settings, hooks.database, CLOCK)
        outcome = await sender.send(dispatch(key))
        await sender.close()
        assert (outcome.state, outcome.phase) == (DeliveryState.DEFERRED, Why.TLS)
        assert receiver.requests == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_f49_no_redirect_is_followed(hooks: HookRoom, http_receiver: HttpReceiver, status: int) -> None:
    with HttpReceiver() as target:
        http_receiver.always("/hook", redirect(target.url("/"), status))
        key = await hooks.endpoint(http_receiver.url("/hook"))
        sender = WebhookSender(hooks.settings, hooks.database, CLOCK)
        assert (await sender.send(dispatch(key))).state is DeliveryState.DEFERRED
        await sender.close()
        assert target.requests == []


async def test_f49_gone_is_gone_after_one_attempt_and_the_contact_hears_of_it(
    hooks: HookRoom, http_receiver: HttpReceiver
) -> None:
    http_receiver.by_default(410)
    key = await hooks.endpoint(http_receiver.url("/hook"))
    await hooks.publish()
    async with hooks.sending():
        await hooks.settled()
        assert (await hooks.shown(key))["disabled_reason"] == "gone"
        await hooks.publish(3)
        await hooks.settled()
    assert len(http_receiver.requests) == 1
    await hooks.care()
    await hooks.care()
    ((address, subject, words),) = await hooks.mails()
    assert (address, subject) == ("webb@nybro.example", "Vi har slutat skicka nyheter till Insidan")
    assert "410" in words


ASKED_TO_WAIT = {
    "90": 90,
    "0": 5,
    "-1": 5,
    "86400": A_DAY_S,
    "1000000000": A_DAY_S,
    "9" * 400: A_DAY_S,
    "1.5": 5,
    "soon": 5,
    "": 5,
    "²": 5,
    "date +2h": 7_200,
    "date -2h": 5,
    "date +40d": A_DAY_S,
    "Mon, 99 Foo 2026 99:99:99 GMT": 5,
}
"""The seconds from one try to the next, before their jitter."""


def written(wait: str) -> str:
    """As a header says it."""
    shift = {"date +2h": 2, "date -2h": -2, "date +40d": 960}.get(wait)
    return format_datetime(datetime.now(UTC) + timedelta(hours=shift), usegmt=True) if shift else wait


@on_sqlite_first
async def test_f49_retry_after_is_clamped(database_url: str, http_receiver: HttpReceiver) -> None:
    """From the receiver's words to the time in the ledger: between the schedule's first wait and a day, jitter included."""
    wanted = {}
    async with opened(database_url, retry_scale=1) as hooks:
        for number, (wait, seconds) in enumerate(ASKED_TO_WAIT.items()):
            for status in (429, 503):
                path = f"/{number}/{status}"
                http_receiver.always(path, Answer(status, {"Retry-After": written(wait)}))
                wanted[await hooks.endpoint(http_receiver.url(path))] = seconds
        await hooks.publish()
        async with hooks.sending():
            put_off = await eventually(lambda: all_put_off(hooks, len(wanted)), within=30)
    waits = {row.recipient_id: (row.next_attempt_at - row.changed_at).total_seconds() for row in put_off}
    assert waits.keys() == wanted.keys()
    for endpoint, seconds in wanted.items():
        # The header's date is in whole seconds, and was written some seconds before it was read.
        least = seconds - (60 if seconds == ASKED_TO_WAIT["date +2h"] else 0)
        assert least <= waits[endpoint] <= min(seconds * (1 + JITTER), A_DAY_S), (seconds, waits[endpoint])


async def all_put_off(hooks: HookRoom, count: int) -> list[Any] | None:
    rows = await hooks.room.rows(state="deferred")
    return rows if len(rows) == count else None


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[dict[str, int]]:
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "tests.integration.distributor.webhook_hostile"]
    process = ServerProcess(command, tmp_path / "hostile.log", cwd=root)
    process.start(lambda: process.log.read_bytes().endswith(b"}\n"), within=30)
    yield json.loads(process.log.read_text())
    process.kill()


async def test_f50_who_pours_drips_or_says_nothing_takes_its_own_time_alone(
    database_url: str, hostile: dict[str, int], http_receiver: HttpReceiver, measured: Measured
) -> None:
    async with opened(database_url, webhook_timeout_s=2) as hooks:
        sender = WebhookSender(hooks.settings, hooks.database, CLOCK)
        pits = [await hooks.endpoint(f"http://127.0.0.1:{port}/") for port in hostile.values()]
        others = [await hooks.endpoint(http_receiver.url(f"/{n}")) for n in range(8)]
        await p95(sender, others)
        alone = [await p95(sender, others) for _ in range(3)]
        stuck = [asyncio.create_task(sender.send(dispatch(pit))) for pit in pits for _ in range(SLOTS_PER_ENDPOINT)]
        began = time.monotonic()
        await asyncio.sleep(0)
        beside = []
        while time.monotonic() - began < 1.5 or len(beside) < 8:
            beside.append(await p95(sender, others))
        outcomes: list[Outcome] = await asyncio.gather(*stuck)
        assert time.monotonic() - began < 30
        assert all(one.duration < timedelta(seconds=10) for one in outcomes)  # two, and a busy machine's pauses
        assert {one.state for one in outcomes} == {DeliveryState.DEFERRED}
        assert all(len(one.reply.encode()) <= 4096 for one in outcomes)
        await sender.close()
        medians = [round(statistics.median(rounds), 4) for rounds in (alone, beside)]
        measured("F50: others' p95, seconds, alone and beside", medians)
        # 20 ms for whatever else the machine does meanwhile.
        assert min(beside) < 1.2 * max(alone) + 0.02, (alone, beside)


async def test_f50_no_more_than_64_kb_of_an_answer_is_read(
    hostile: dict[str, int], monkeypatch: pytest.MonkeyPatch, measured: Measured
) -> None:
    """Counted as the parser is given it, headers and interim answers included."""
    given: list[int] = []

    class Counting(HttpResponseParser):
        def feed_data(self, data: Any) -> None:
            given.append(len(data))
            super().feed_data(data)

    monkeypatch.setattr(exchange, "HttpResponseParser", Counting)
    read = {}
    for kind, port in hostile.items():
        given.clear()
        async with WebhookClient(AddressPolicy(allow_loopback=True), timeout_s=1) as client:
            answer = await client.post(f"http://127.0.0.1:{port}/", {}, b"{}")
        read[kind] = sum(given)
        if kind in ("endless", "huge", "bomb"):
            assert isinstance(answer, Said)
            assert (answer.status, len(answer.body) >= 4096) == (500, True)
    measured("F50: octets of an answer read at most", max(read.values()))
    assert all(octets <= 65_536 for octets in read.values()), read


async def test_f50_memory_stays_flat(hostile: dict[str, int], measured: Measured) -> None:
    async with WebhookClient(AddressPolicy(allow_loopback=True), timeout_s=1) as client:

        async def round_of_all() -> None:
            urls = [f"http://127.0.0.1:{port}/" for port in hostile.values()]
            answers = await asyncio.gather(*(client.post(url, {}, b"{}") for url in urls * SLOTS_PER_ENDPOINT))
            assert all(len(one.body) <= 65_536 for one in answers if isinstance(one, Said))

        await round_of_all()
        before = resident_mb()
        await round_of_all()
        await round_of_all()
    grown = resident_mb() - before
    measured("F50: MB of memory more", round(grown, 2))
    assert grown < HOSTILE_MB


async def test_f50_a_tar_pit_holds_no_more_than_its_own_places(hooks: HookRoom, http_receiver: HttpReceiver) -> None:
    http_receiver.always("/pit", HANG)
    pit = await hooks.endpoint(http_receiver.url("/pit"))
    others = [await hooks.endpoint(http_receiver.url(f"/{n}")) for n in range(5)]
    await hooks.publish(20)
    async with hooks.sending():

        async def all_told() -> bool:
            return all(len(http_receiver.requests_to(f"/{n}")) == 20 for n in range(len(others)))

        await eventually(all_told, within=20)
        assert (await hooks.shown(others[0]))["health"]["works"] is True
        assert http_receiver.requests_to("/pit")
    assert http_receiver.most_under_way("/pit") == PLACES
    assert (await hooks.shown(pit))["health"]["works"] is not True


DENIED = [
    "127.0.0.1",
    "127.8.8.8",
    "169.254.169.254",
    "169.254.1.1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "100.100.100.200",
    "0.0.0.0",
    "168.63.129.16",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%lo",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1:7f00:0:100::",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:7f00:1::",
    "2001:db8::5efe:7f00:1",
    "fe80::5efe:169.254.169.254",
    "5f00::1",
]
NOTATIONS = [
    "http://2130706433/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://127.1/",
    "https://0/",
    "https://[::ffff:7f00:1]/",
    "https://[::1]/",
    "https://127.0.0.1./",
    "https://127。0。0。1/",
    "https://①②⑦.0.0.1/",
    "https://localhost/",
    "https://[fe80::1%25lo]/",
    "https://169.254.169.254/latest/meta-data/",
]


class Names:
    """A name server of our own: `answers` in turn, the last for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def look_up(self, host: str, port: int) -> list[AddrInfoType]:
        said = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not said:
            raise OSError(socket.EAI_NONAME, "NXDOMAIN")
        return [found(address, port) for address in said]

    def close(self) -> None:
        return None


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every address that the loop is asked to connect to."""
    seen: list[Any] = []
    connect = asyncio.selector_events.BaseSelectorEventLoop.sock_connect

    async def noted(self: Any, sock: socket.socket, address: Any) -> None:
        seen.append(address)
        await connect(self, sock, address)

    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", noted)
    return seen


@pytest.mark.parametrize("address", DENIED)
async def test_f51_no_denied_address_is_dialled_whatever_name_leads_to_it(dialled: list[Any], address: str) -> None:
    for answers in ([address], ["93.184.215.14", address]):
        async with WebhookClient(AddressPolicy(), timeout_s=2, resolver=Names(answers)) as client:
            answer = await client.post("https://intranat.example/hook", {}, b"{}")
            literal = f"https://[{address}]/" if ":" in address else f"https://{address}/"
            written = await client.post(literal, {}, b"{}")
        assert isinstance(answer, Silence)
        assert answer.why is Why.DENIED
        assert isinstance(written, Silence)
    assert dialled == []


async def test_f51_a_name_that_is_rebound_is_judged_each_time(dialled: list[Any], http_receiver: HttpReceiver) -> None:
    policy = AddressPolicy(allow_loopback=True)
    url = f"http://intranat.example:{http_receiver.port}/hook"
    async with WebhookClient(policy, timeout_s=2, resolver=Names(["127.0.0.1"], ["169.254.169.254"])) as client:
        assert not isinstance(await client.post(url, {}, b"{}"), Silence)
        again = await asyncio.gather(*(client.post(url, {}, b"{}") for _ in range(3)))
    assert {address[0] for address in dialled} == {"127.0.0.1"}
    assert any(isinstance(answer, Silence) and answer.why is Why.DENIED for answer in again)


@pytest.mark.soak
async def test_f51_no_denied_address_is_connected_to_whatever_a_real_name_server_says(
    tmp_path: Path, measured: Measured
) -> None:
    """In namespaces of its own, where every denied address is there, listens, and counts."""
    denied = [address for address in DENIED if "%" not in address]
    (tmp_path / "denied.json").write_text(json.dumps(denied))
    script = "tests.integration.distributor.webhook_names"
    apart = ["unshare", "--map-root-user", "--net", "--mount"]
    process = await asyncio.create_subprocess_exec(
        *(*apart, sys.executable, "-m", script, str(tmp_path / "denied.json"), str(tmp_path)),
        cwd=Path(__file__).parents[3],
        stdout=asyncio.subprocess.PIPE,
    )
    told = json.loads((await asyncio.wait_for(process.communicate(), 120))[0])
    answers = told["answers"]
    measured("F51: connections by address", told["connections"])
    assert set(told["connections"]) == {"93.184.215.14"}
    assert answers.pop("public.test") == [200]
    assert set(answers.pop("rebound.test")) == {200, Why.DENIED}
    assert [answers.pop(name) for name in ("servfail.test", "silent.test", "nowhere.test")] == [[Why.LOOK_UP]] * 3
    assert {why for whys in answers.values() for why in whys} == {Why.DENIED}
    assert len(answers) == 2 * len(denied) + 2


async def test_f51_nothing_is_there_or_cannot_be_found(dialled: list[Any]) -> None:
    async with WebhookClient(AddressPolicy(), timeout_s=2, resolver=Names([])) as client:
        answer = await client.post("https://intranat.example/hook", {}, b"{}")
    assert isinstance(answer, Silence)
    assert answer.why is Why.LOOK_UP
    assert dialled == []


async def test_f51_no_notation_of_a_denied_address_can_be_registered_or_dialled(
    dialled: list[Any], tmp_path: Path
) -> None:
    settings = settings_for(f"sqlite:///{tmp_path}/x", webhook_allow_loopback=False)
    for text in NOTATIONS:
        with pytest.raises(UrlNotAllowed):
            checked_url(text, settings.address_policy, own_url=settings.public_url)
        async with WebhookClient(settings.address_policy, timeout_s=2) as client:
            assert isinstance(await client.post(text, {}, b"{}"), Silence)
    assert dialled == []


async def test_one_items_events_arrive_in_order_and_one_at_a_time(hooks: HookRoom) -> None:
    """Two senders, an endpoint that takes its time, and an item that is corrected and withdrawn meanwhile."""
    seen: dict[str, list[int]] = defaultdict(list)
    under_way: dict[str, int] = defaultdict(int)
    overlaps: list[str] = []

    async def slow(request: web.BaseRequest) -> web.Response:
        told = json.loads(await request.read())["data"]
        under_way[told["item_id"]] += 1
        if under_way[told["item_id"]] > 1:
            overlaps.append(told["item_id"])
        await asyncio.sleep(0.15)
        seen[told["item_id"]].append(told["revision"])
        under_way[told["item_id"]] -= 1
        return web.Response()

    runner = web.ServerRunner(web.Server(slow))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    await hooks.endpoint(f"http://127.0.0.1:{runner.addresses[0][1]}/")
    items = [uuid4() for _ in range(6)]
    try:
        async with hooks.sending(replicas=2):
            for item in items:
                await hooks.room.hear(NewsPublished(item=snapshot(item)))
            for revision in (2, 3):
                await asyncio.sleep(0.1)
                for item in items:
                    await hooks.room.hear(NewsCorrected(item=snapshot(item, revision), note="Rättat"))
            for item in items[:3]:
                withdrawn = snapshot(item, 4, ItemState.WITHDRAWN)
                await hooks.room.hear(NewsWithdrawn(item=withdrawn, reason="Fel"))

            async def all_told() -> bool:
                last = {str(item): 4 if item in items[:3] else 3 for item in items}
                return all(not seen[item] or seen[item][-1] == newest for item, newest in last.items()) and sum(
                    len(told) for told in seen.values()
                ) >= len(items[3:])

            await eventually(all_told, within=30)
            await hooks.settled()
    finally:
        await runner.cleanup()
    assert overlaps == []
    assert all(told == sorted(set(told)) for told in seen.values()), seen
    assert all(seen[str(item)][-1] == 3 for item in items[3:])


async def p95(sender: WebhookSender, keys: list[UUID]) -> float:
    """Seconds that the slowest twentieth of 80 webhooks takes, one to each endpoint at a time."""
    taken: list[float] = []

    async def post(key: UUID) -> None:
        for _ in range(10):
            began = time.perf_counter()
            assert (await sender.send(dispatch(key))).state is DeliveryState.SENT
            taken.append(time.perf_counter() - began)

    await asyncio.gather(*(post(key) for key in keys))
    return sorted(taken)[math.ceil(len(taken) * 0.95) - 1]


def dispatch(key: UUID) -> Dispatch:
    item = snapshot(uuid4())
    content = Content(SubjectKind.ITEM, item.item_id, 1, item)
    return Dispatch(uuid4(), Channel.WEBHOOK, key, Form.NEWS, Lane.NEWS, content, CLOCK.now(), attempt=1)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1_000_000
