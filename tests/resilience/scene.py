"""A small county on a deployment, and the balance that every fault must leave: who should have a mail against who has.

The balance is drawn from what the mail server saw, never from what the product says of itself; then the two are compared.
"""

import asyncio
import csv
import io
import json
import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx2
from tests.deployments import ADMIN_KEY, SERVICES, WINDOW_OF_DOUBT, Deployment, Distributed, Standalone
from tests.desk import DISTRIBUTOR, SUBSCRIPTIONS, Desk, Json
from tests.eventually import eventually
from tests.inboxes import Inboxes, Mail
from tests.resilience.moments import Moment
from tests.resilience.oracle import Balance, Copy, Oracle
from tests.servers.postgres import PrivatePostgres
from tests.servers.proxy import TcpProxy
from tests.servers.rabbitmq import PrivateRabbitMQ
from tests.servers.receiver import HttpReceiver

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
POLITICIANS = [f"ledamot{number}@fullmaktige.example" for number in range(40)]
PUBLIC = [f"folk{number}@folk.example" for number in range(1150)]
EVERYBODY = frozenset((*NEWSROOMS, *POLITICIANS, *PUBLIC))  # in five batches
FEW: Json = {**FIELDS, "audiences": ["newsroom"]}
"""For the ten newsrooms and the intranet, in one batch: where the number of receivers shows nothing more."""
HOOK = "/hook"
SETTINGS = {"RETRY_SCALE": "0.1"}
TAKES_EFFECT_S = 2.0
RESENT_WITHIN_S = 60.0
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

    async def publish(self) -> str:
        item = await self.desk.draft(FIELDS)
        await self.desk.publish(item)
        self.oracle.accepted(item, EVERYBODY, frozenset({HOOK}))
        return item

    async def publish_to_few(self) -> str:
        item = await self.desk.draft(FEW)
        await self.desk.publish(item)
        self.oracle.accepted(item, frozenset(NEWSROOMS), frozenset({HOOK}))
        return item

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
            await check_ledger(self, item)
        await eventually(self._intranet_told, within=within, every=0.2)
        await check_settled(self)
        return self.oracle.check(self.inboxes.mails, self.intranet.requests)

    def _intranet_told(self) -> bool:
        """Whether every item came to each endpoint. The mails' `reach` does not wait for that: the distributor hears of
        an item from its own queue, and may be behind there.
        """
        told: dict[str, set[str]] = defaultdict(set)
        for request in self.intranet.requests:
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


async def check_ledger(scene: Scene, item: str) -> None:
    """The ledger says of each delivery what the mail server saw."""
    sent = [row for row in await scene.desk.deliveries(item, state="sent") if row["channel"] == "mail"]
    seen = Counter(
        mail.revision for mail in {(mail.to, mail.revision): mail for mail in scene.inboxes.of(item)}.values()
    )
    assert Counter(row["revision"] for row in sent) == seen
    # A row is sent only when the server said so: every one of them has its 250.
    answered = {(mail.to, mail.revision) for mail in scene.inboxes.of(item) if mail.answered_at is not None}
    assert len(answered) == len(sent)


async def check_settled(scene: Scene) -> None:
    """Nothing is left lying about: outboxes told, no dead letters, nobody waiting."""
    await eventually(lambda: not (left := scene.deployment.unfinished()) or _raise(left), within=20, every=0.2)


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
    """Bring the people and one endpoint in; gives the endpoint's secret."""
    deployment.intranet_link.lead_to(intranet.port)
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with httpx2.Client(base_url=deployment.url, headers=headers, timeout=60) as api:
        for audience in ("newsroom", "politician", "public"):
            upload = {"file": (f"{audience}.csv", people_file(audience), "text/csv")}
            answer = api.post(f"{SUBSCRIPTIONS}/imports", files=upload, data={"audience": audience})
            assert answer.status_code == 200, answer.text
        endpoint = {
            "name": "Intranätet",
            "organisation": "Kommunen",
            "contact_email": "webb@kommun.example",
            "url": f"http://127.0.0.1:{deployment.intranet_link.port}{HOOK}",
            "audiences": ["newsroom", "public"],
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
