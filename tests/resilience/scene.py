"""A small county on a deployment, and the balance that every fault must leave: who should have a mail against who has.

The balance is drawn from what the mail server saw, never from what the product says of itself; then the two are compared.
"""

import asyncio
import csv
import io
import json
import secrets
import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx2
from tests.deployments import ADMIN_KEY, SERVICES, WINDOW_OF_DOUBT, Deployment, Distributed, Standalone
from tests.desk import CONTENT, DISTRIBUTOR, SUBSCRIPTIONS, Desk, Json
from tests.eventually import eventually
from tests.inboxes import Inboxes, Mail
from tests.resilience.moments import Moment
from tests.resilience.oracle import Balance, Copy, Oracle
from tests.servers.postgres import PrivatePostgres
from tests.servers.proxy import TcpProxy
from tests.servers.rabbitmq import PrivateRabbitMQ
from tests.servers.receiver import HttpReceiver, ReceivedRequest

BODY_MARK = "Hela texten"
FIELDS: Json = {
    "kind": "press_release",
    "title": "Fler i arbete",
    "lead": "Det går åt rätt håll.",
    "body": f"{BODY_MARK} med siffror.",
    "contacts": [{"name": "Åsa Öberg", "phone": "0480-123 45"}],
    "audiences": ["newsroom", "politician", "public"],
}
NEWSROOMS = [f"desk{number}@tidning.example" for number in range(10)]
POLITICIANS = [f"ledamot{number}@fullmaktige.example" for number in range(490)]
PUBLIC = [f"folk{number}@folk.example" for number in range(700)]
EVERYBODY = frozenset((*NEWSROOMS, *POLITICIANS, *PUBLIC))  # in four batches
FEW: Json = {**FIELDS, "audiences": ["newsroom"]}
"""For the ten newsrooms and one intranet, in one batch: where the number of receivers shows nothing more."""
FIVE_HUNDRED: Json = {**FIELDS, "audiences": ["newsroom", "politician"]}
"""For so many, and for all five intranets."""
HOOK = "/hook"
HOOKS = frozenset({HOOK, *(f"/kommun/{number}" for number in range(4))})
"""The intranets: the first wants what is for newsrooms or the public, the others what is for politicians."""
CONTACT = "webb@kommun.example"
"""Of every intranet; hears of it when webhooks fail."""
SETTINGS = {"RETRY_SCALE": "0.1"}
TAKES_EFFECT_S = 2.0
RESENT_WITHIN_S = 60.0
GIVES_UP_S = 120.0
"""An editor's program asks again for so long: a service that was killed takes a while to start."""
RECONNECTIONS_A_SECOND = 5
"""To the broker, of one service: it has a connection to publish and one to consume."""
UNPUBLISHED = "SELECT count(*) FROM outbox WHERE published_at IS NULL"


@dataclass
class Scene:
    """What one test has in hand."""

    deployment: Deployment
    desk: Desk
    inboxes: Inboxes
    intranet: HttpReceiver
    broker: PrivateRabbitMQ | None = None
    database: PrivatePostgres | None = None
    hook_secret: str = ""
    oracle: Oracle = field(default_factory=Oracle)
    kills: int = 0
    told_before: int = 0
    """Webhooks of the tests before, which share the intranet."""
    is_soak: bool = False

    async def publish(self) -> str:
        return await self._publish(FIELDS, EVERYBODY, HOOKS)

    async def publish_to_few(self) -> str:
        return await self._publish(FEW, frozenset(NEWSROOMS), frozenset({HOOK}))

    async def publish_to_five_hundred(self) -> str:
        return await self._publish(FIVE_HUNDRED, frozenset((*NEWSROOMS, *POLITICIANS)), HOOKS)

    async def _publish(self, fields: Json, recipients: frozenset[str], hooks: frozenset[str]) -> str:
        item = await self.desk.draft(fields)
        await self.desk.publish(item)
        self.oracle.accepted(item, recipients, hooks)
        return item

    async def publish_at_last(self, fields: Json = FEW) -> tuple[str, int]:
        """As an editor's program does it while something fails: with an Idempotency-Key, asking again until it is done.
        Gives the item, and how often it asked again.
        """
        draft, again = await self._done(f"{CONTENT}/items", fields)
        _, once_more = await self._done(f"{CONTENT}/items/{draft['id']}/publish", {})
        to_all = fields is FIVE_HUNDRED
        recipients = (*NEWSROOMS, *POLITICIANS) if to_all else NEWSROOMS
        self.oracle.accepted(draft["id"], frozenset(recipients), HOOKS if to_all else frozenset({HOOK}))
        return draft["id"], again + once_more

    async def _done(self, path: str, body: Json) -> tuple[Json, int]:
        key, gives_up_at, tries = secrets.token_hex(8), time.monotonic() + GIVES_UP_S, 0
        while True:
            try:
                answer = await self.desk.api.post(path, json=body, headers={"Idempotency-Key": key}, timeout=15)
                if answer.is_success:
                    return answer.json(), tries
                # 409: the first request is still under way.
                assert answer.status_code in (409, 502, 503), (answer.status_code, answer.text)
            except httpx2.TransportError:
                pass  # the process, or the line to it, is gone
            assert time.monotonic() < gives_up_at, path
            tries += 1
            await asyncio.sleep(0.5)

    @property
    def told(self) -> list[ReceivedRequest]:
        """What the intranets were told in this test."""
        return self.intranet.requests[self.told_before :]

    def when(self, service: str, moment: Moment, act: Callable[[], None]) -> threading.Event:
        """Do it at the moment; the event is set once it is done."""
        link, direction = self.link(service, moment.link), moment.direction
        return link.when(moment.pattern, act, direction=direction, nth=moment.nth, after=moment.after)

    def kill_when(self, service: str, moment: Moment) -> threading.Event:
        """SIGKILL the service at a moment on its own link, with what it was saying; `revive` it afterwards."""
        kill, link = self.deployment.killer(service), self.link(service, moment.link)

        def act() -> None:
            kill()
            link.drop()

        return self.when(service, moment, act)

    async def revive(self, service: str, died: threading.Event, within: float = 20) -> None:
        """Wait for the death that `kill_when` promised, and start the service again."""
        await eventually(died.is_set, within=within)
        await self.kill(service)
        await self.start(service)

    def link(self, service: str, name: str) -> TcpProxy:
        """The proxy between the service and what `name` says."""
        if name in ("mail", "intranet"):
            return self.deployment.mail_link if name == "mail" else self.deployment.intranet_link
        assert isinstance(self.deployment, Distributed)
        return (self.deployment.broker_links if name == "broker" else self.deployment.database_links)[service]

    async def check_sound(self, *, kills: int = 0, within: float = 60) -> Counter[str]:
        """The standard that every fault must leave: all that was accepted has arrived as it should, the ledger agrees with
        the receivers, and nothing is left lying about. `kills` are the deaths of senders that may have left doubts.
        """
        self.oracle.kills = kills
        for item in self.oracle.mails:
            await self.desk.reached(item, within=within)
        await eventually(self._intranet_told, within=within, every=0.2)
        await check_settled(self)
        for item in self.oracle.mails:
            check_ledger(self, item)
        return self.oracle.check(self.inboxes.mails, self.told)

    def _intranet_told(self) -> bool:
        """Whether every item came to each endpoint. The mails' `reach` does not wait for that: the distributor hears of
        an item from its own queue, and may be behind there.
        """
        told: dict[str, set[str]] = defaultdict(set)
        for request in self.told:
            told[json.loads(request.body)["subject"]].add(request.path)
        untold = [(item, hook) for item, hooks in self.oracle.hooks.items() for hook in hooks - told.get(item, set())]
        assert not untold, f"{len(untold)} webhooks not there, such as {untold[0]}"
        return True

    async def kill(self, service: str) -> None:
        self.kills += 1
        await asyncio.to_thread(self.deployment.kill, service)

    async def start(self, service: str) -> None:
        await asyncio.to_thread(self.deployment.start, service)

    async def end(self, service: str) -> None:
        await asyncio.to_thread(self.deployment.end, service)

    async def until_received(self, count: int, within: float = 30) -> None:
        await eventually(lambda: self.inboxes.count >= count, within=within)

    async def until_planned(self, item: str, count: int = len(EVERYBODY), within: float = 30) -> None:
        """Until the ledger has so many mails of the item."""
        rows = f"SELECT count(*) FROM deliveries WHERE channel = 'mail' AND subject_id = '{self.key(item)}'"
        await eventually(lambda: self.deployment.ask("distributor", rows)[0][0] >= count, within=within)

    @contextmanager
    def bus_stopped(self, service: str) -> Iterator[None]:
        """What the service says is not heard meanwhile, and it does not hear."""
        if isinstance(self.deployment, Standalone):
            with self.deployment.locked("bus"):
                yield
            return
        link = self.broker_link(service)
        link.hold()
        try:
            yield
        finally:
            link.cut()  # first, so that nothing that was held gets through
            link.release()

    def broker_link(self, service: str) -> TcpProxy:
        assert isinstance(self.deployment, Distributed)
        return self.deployment.broker_links[service]

    def broker_links(self) -> list[TcpProxy]:
        """Each service's."""
        return [self.broker_link(service) for service in SERVICES]

    def key(self, item: str) -> str:
        """Its id as the databases write it."""
        return item if isinstance(self.deployment, Distributed) else item.replace("-", "")


def check_once_each(mails: Sequence[Mail], expected: frozenset[str], *, kills: int = 0) -> int:
    """Nothing lost, nobody unexpected; repeats at most the window of doubt a kill, each the same to the byte.

    Gives the number of repeats.
    """
    balance = Balance.of(map(Copy.of_mail, mails), expected)
    balance.check(repeats=kills * WINDOW_OF_DOUBT)
    return balance.repeats


def check_ledger(scene: Scene, item: str) -> None:
    """The ledger says of each delivery what its receiver saw: who has it, in which revision, and nobody else; and of what came
    twice that it may have."""
    mails = scene.inboxes.of(item)
    seen = Counter((mail.to, mail.revision) for mail in mails)
    # A row is sent only when the server said so: every one of them has its 250.
    answered = {(mail.to, mail.revision) for mail in mails if mail.answered_at is not None}
    rows = f"FROM deliveries WHERE state = 'sent' AND subject_id = '{scene.key(item)}'"
    sent = scene.deployment.ask("distributor", f"SELECT address, revision, repeats {rows} AND channel = 'mail'")
    assert Counter((address, revision) for address, revision, _ in sent) == Counter(set(seen)) == Counter(answered)
    _check_flagged(seen, {(address, revision): repeats for address, revision, repeats in sent})
    urls = dict(scene.deployment.ask("distributor", "SELECT id, url FROM endpoints"))
    again = "repeats + tries - 1"  # an endpoint that did not answer well is asked again, which is no doubt
    hooks = scene.deployment.ask(
        "distributor", f"SELECT recipient_id, revision, {again} {rows} AND channel = 'webhook'"
    )
    told = [(request.path, json.loads(request.body)) for request in scene.told if (request.status or 0) // 100 == 2]
    had = Counter((path, body["data"]["revision"]) for path, body in told if body["subject"] == item)
    assert Counter((urlsplit(urls[key]).path, revision) for key, revision, _ in hooks) == Counter(set(had))
    _check_flagged(had, {(urlsplit(urls[key]).path, revision): tries for key, revision, tries in hooks})


def _check_flagged(came: Counter[tuple[str, int]], repeats: dict[tuple[str, int], int]) -> None:
    """Nothing came again but where the ledger says that it may have."""
    unflagged = [one for one, copies in came.items() if copies - 1 > repeats[one]]
    assert not unflagged, f"{len(unflagged)} came again, and the ledger knows of no doubt: {unflagged[:5]}"


async def check_settled(scene: Scene) -> None:
    """Nothing is left lying about: outboxes told, no dead letters, nobody waiting, no message in a queue or in hand, and no
    file damaged."""
    await eventually(lambda: not (left := scene.deployment.unfinished()) or _raise(left), within=20, every=0.2)
    assert not (damaged := scene.deployment.damaged()), damaged
    if scene.is_soak and scene.broker is not None:
        await asyncio.to_thread(check_queues_empty, scene.broker)


def check_queues_empty(broker: PrivateRabbitMQ, within: float = 20) -> None:
    """By the broker's own word, of what waits and of what was handed out and not acknowledged. Takes it a second."""
    gives_up_at = time.monotonic() + within
    while held := _held(broker):
        assert time.monotonic() < gives_up_at, held


def _held(broker: PrivateRabbitMQ) -> dict[str, int]:
    listed = broker.control("list_queues", "--no-table-headers", "name", "messages").splitlines()
    queues = dict(line.split() for line in listed if line.strip())
    return {name: int(count) for name, count in queues.items() if int(count)}


def _raise(left: dict[str, int]) -> bool:
    raise AssertionError(left)


async def asked(desk: Desk, *services: str) -> None:
    """Every API call of these services is answered with a 2xx."""
    if "content" in services:
        await desk.call("GET", "/api/content/v1/items")
    if "subscriptions" in services:
        people = await desk.call("GET", f"{SUBSCRIPTIONS}/subscribers", params={"limit": "1"})
        await desk.change_subscriber(people["data"][0]["id"], {"name": "Ny"})
        preview = {"audiences": ["public"]}
        await desk.call("POST", f"{SUBSCRIPTIONS}/audience-preview", json=preview)
    if "distributor" in services:
        await desk.call("GET", f"{DISTRIBUTOR}/deliveries", params={"limit": "1"})
        await desk.call("GET", f"{DISTRIBUTOR}/endpoints")


def check_reconnections(scene: Scene) -> int:
    """Since when `asked_at` was emptied, no service has run the broker over; gives how many connections at most it asked
    for within a second."""
    asked = [most_within(link.asked_at, 1.0) for link in scene.broker_links()]
    assert max(asked) <= RECONNECTIONS_A_SECOND, asked
    return max(asked)


def most_within(instants: Sequence[float], window_s: float) -> int:
    """How many of these, in order, lie within such a stretch at most."""
    return max((bisect_left(instants, at + window_s) - start for start, at in enumerate(instants)), default=0)


def check_nobody_after(mails: Sequence[Mail], revision: int, took_effect_at: float) -> None:
    """Nobody gets the faulty revision once the correction or withdrawal has taken effect."""
    late = [mail.to for mail in mails if mail.revision == revision and mail.dot_at > took_effect_at + TAKES_EFFECT_S]
    assert not late, f"{len(late)} got revision {revision} too late"


def now() -> float:
    return time.time()


def populate(deployment: Deployment, intranet: HttpReceiver) -> str:
    """Bring the people and the intranets in; gives the first one's secret."""
    deployment.intranet_link.lead_to(intranet.port)
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with httpx2.Client(base_url=deployment.url, headers=headers, timeout=60) as api:
        for audience in ("newsroom", "politician", "public"):
            upload = {"file": (f"{audience}.csv", people_file(audience), "text/csv")}
            answer = api.post(f"{SUBSCRIPTIONS}/imports", files=upload, data={"audience": audience})
            assert answer.status_code == 200, answer.text
        secrets = {path: _add_endpoint(api, deployment.intranet_link.port, path) for path in sorted(HOOKS)}
    return secrets[HOOK]


def _add_endpoint(api: httpx2.Client, port: int, path: str) -> str:
    endpoint = {
        "name": f"Intranätet {path}",
        "organisation": "Kommunen",
        "contact_email": CONTACT,
        "url": f"http://127.0.0.1:{port}{path}",
        "audiences": ["newsroom", "public"] if path == HOOK else ["politician"],
    }
    answer = api.post(f"{DISTRIBUTOR}/endpoints", json=endpoint)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["secret"])


def people_file(audience: str) -> bytes:
    """The CSV file of one audience."""
    columns, addresses = {
        "newsroom": (("email", "organisation"), NEWSROOMS),
        "politician": (("email", "organisation"), POLITICIANS),
        "public": (("email",), PUBLIC),
    }[audience]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows((address, "Länet")[: len(columns)] for address in addresses)
    return text.getvalue().encode()
