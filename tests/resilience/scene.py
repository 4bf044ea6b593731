"""A small county on a deployment, and the balance that every fault must leave: who should have a mail against who has.

The balance is drawn from what the mail server saw, never from what the product says of itself; then the two are compared.
"""

import asyncio
import csv
import io
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2
from tests.deployments import ADMIN_KEY, WINDOW_OF_DOUBT, Deployment, Distributed, Standalone
from tests.desk import DISTRIBUTOR, SUBSCRIPTIONS, Desk, Json
from tests.eventually import eventually
from tests.inboxes import Inboxes, Mail
from tests.servers.proxy import TcpProxy
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
SETTINGS = {"RETRY_SCALE": "0.1"}
TAKES_EFFECT_S = 2.0
RESENT_WITHIN_S = 60.0


@dataclass
class Scene:
    """What one test has in hand."""

    deployment: Deployment
    desk: Desk
    inboxes: Inboxes
    intranet: HttpReceiver
    kills: int = 0

    async def publish(self) -> str:
        item = await self.desk.draft(FIELDS)
        await self.desk.publish(item)
        return item

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
        rows = f"SELECT count(*) FROM deliveries WHERE channel = 'mail' AND subject_id = '{self._key(item)}'"
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

    def _key(self, item: str) -> str:
        return item if isinstance(self.deployment, Distributed) else item.replace("-", "")


def check_once_each(mails: Sequence[Mail], expected: frozenset[str], *, kills: int = 0) -> int:
    """Nothing lost, nobody unexpected; repeats at most the window of doubt a kill, each the same to the byte.

    Gives the number of repeats.
    """
    copies: dict[str, list[Mail]] = {}
    for mail in mails:
        copies.setdefault(mail.to, []).append(mail)
    assert set(copies) == expected, _difference(set(copies), expected)
    repeats = sum(len(same) - 1 for same in copies.values())
    assert repeats <= kills * WINDOW_OF_DOUBT
    assert all(len({(mail.message_id, mail.sha256) for mail in same}) == 1 for same in copies.values())
    return repeats


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


def check_nobody_after(mails: Sequence[Mail], revision: int, took_effect_at: float) -> None:
    """Nobody gets the faulty revision once the correction or withdrawal has taken effect."""
    late = [mail.to for mail in mails if mail.revision == revision and mail.dot_at > took_effect_at + TAKES_EFFECT_S]
    assert not late, f"{len(late)} got revision {revision} too late"


def now() -> float:
    return time.time()


def populate(deployment: Deployment, intranet: HttpReceiver) -> None:
    """Bring the people and one endpoint in."""
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
            "url": intranet.url("/hook"),
            "audiences": ["public"],
        }
        assert api.post(f"{DISTRIBUTOR}/endpoints", json=endpoint).status_code == 201


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


def _difference(found: set[str], expected: frozenset[str]) -> str:
    lost, unexpected = expected - found, found - expected
    return f"{len(lost)} lost {sorted(lost)[:5]}, {len(unexpected)} unexpected {sorted(unexpected)[:5]}"
