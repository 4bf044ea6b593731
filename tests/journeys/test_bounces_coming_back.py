"""F47 on real processes: what comes back by LMTP, a pipe or a mailbox, and what it does to somebody's subscription.

Each test has its own readers. A mail server notes under which return path each got the first item; from then on the test
is the world that answers.
"""

import asyncio
import contextlib
import smtplib
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.deployments import Deployment, Distributed, Standalone
from tests.desk import DISTRIBUTOR, SUBSCRIPTIONS, Desk
from tests.eventually import eventually
from tests.servers.post import Post
from tests.servers.rabbitmq import shared_amqp_url
from tests.servers.run import claim_port
from tests.servers.smtp import SmtpServer

from distributor.bounces.mailbox import POLL_EVERY_S
from distributor.webhooks.urls import CANARY_PATH
from shared.contracts.news import Audience

EXAMPLES = Path(__file__).parents[1] / "unit/distributor/bounce_examples"
BOUNCE_ADDRESS = "studs@forbundet.example"
HARD, AWAY, COMPLAINT = "hard-dsn-sendmail-user-unknown", "out_of_office-reply-swedish", "complaint-arf-abuse"
READERS = tuple(
    f"{name}@folk.example" for name in ("lmtp", "pipe", "post", "spam", "spampost", "borta", "smidd", "stor")
)
MAILBOX = {Distributed.kind: ("imap", "imap"), Standalone.kind: ("pop", "pop3")}


@dataclass
class World:
    """A deployment whose readers all have the first item, and the ways back into it."""

    deployment: Deployment
    relay: SmtpServer
    listen: int
    mailbox: int
    return_paths: dict[str, str]

    def report(self, example: str, to: str) -> bytes:
        """An example, addressed to the return path of a reader (or to any other address)."""
        raw = (EXAMPLES / f"{example}.eml").read_bytes()
        return raw.replace(BOUNCE_ADDRESS.encode(), self.return_paths.get(to, to).encode())

    async def by_lmtp(self, raw: bytes, to: str, *, sender: str = "") -> int:
        """The relay's way; gives the server's last word."""

        def hand_on() -> int:
            with smtplib.LMTP("127.0.0.1", self.listen, timeout=60) as client:
                try:
                    client.sendmail(sender, [self.return_paths.get(to, to)], raw.replace(b"\n", b"\r\n"))
                except smtplib.SMTPRecipientsRefused as refused:
                    return next(iter(refused.recipients.values()))[0]
                return 250

        return await asyncio.to_thread(hand_on)

    async def by_pipe(self, raw: bytes) -> int | None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "distributor.bounces",
            env=self.deployment.environment("distributor"),
            stdin=asyncio.subprocess.PIPE,
        )
        await process.communicate(raw)
        return process.returncode

    @contextlib.asynccontextmanager
    async def mailbox_with(self, *mails: bytes) -> AsyncIterator[Post]:
        post = Post([mail.replace(b"\n", b"\r\n") for mail in mails])
        server = await post.serve(MAILBOX[self.deployment.kind][0], self.mailbox)
        yield post
        server.close()

    async def states(self) -> dict[str, str]:
        async with self.deployment.client() as api:
            people = await Desk(api).all_pages(f"{SUBSCRIPTIONS}/subscribers")
        return {person["address"]: person["state"] for person in people}

    async def until(self, reader: str, state: str, within: float = 60.0) -> float:
        """The seconds until it was so."""
        began = time.monotonic()

        async def so() -> bool:
            return (await self.states())[reader] == state

        await eventually(so, within=within)
        return time.monotonic() - began


@pytest.fixture(scope="module", params=[pytest.param(Distributed.kind, marks=pytest.mark.soak), Standalone.kind])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    listen, mailbox = claim_port(), claim_port()
    settings = {
        "BOUNCE_ADDRESS": BOUNCE_ADDRESS,
        "BOUNCE_LISTEN": f"127.0.0.1:{listen}",
        "BOUNCE_MAILBOX_URL": f"{MAILBOX[request.param][1]}://u:p@127.0.0.1:{mailbox}",
        "RETRY_SCALE": "0.03",
    }
    made: Deployment = (
        Distributed(shared_amqp_url(), settings=settings)
        if request.param == Distributed.kind
        else Standalone(settings=settings)
    )
    with SmtpServer() as relay, made.opened(relay.port):
        asyncio.run(_first_item(made))
        paths = {mail.recipients[0]: mail.sender for mail in relay.accepted}
        assert set(paths) == set(READERS)
        yield World(made, relay, listen, mailbox, paths)


async def _first_item(deployment: Deployment) -> None:
    async with deployment.client() as api:
        desk = Desk(api)
        await desk.import_file("public", "\n".join(["email", *READERS]).encode())
        await desk.reached(await desk.publish_new(_fields()))


def _fields() -> dict[str, Any]:
    return {"kind": "news", "title": "Fler i arbete", "lead": "Det går bra.", "body": "Text.", "audiences": ["public"]}


async def test_f47_a_hard_bounce_suppresses_by_each_way_in(world: World) -> None:
    ways = ("lmtp@folk.example", "pipe@folk.example", "post@folk.example")
    lmtp, pipe, post = ways
    async with world.mailbox_with(world.report(HARD, post)) as mailbox:
        assert await world.by_lmtp(world.report(HARD, lmtp), lmtp) == 250
        assert await world.by_pipe(world.report(HARD, pipe)) == 0
        for reader in ways:
            await world.until(reader, "suppressed")
        assert mailbox.mails == {}
    before = len(world.relay.accepted)
    async with world.deployment.client() as api:
        desk = Desk(api)
        reach = await desk.reached(await desk.publish_new(_fields()))
    assert reach["adds_up"]
    again = {mail.recipients[0] for mail in world.relay.accepted[before:]}
    assert again
    assert not again & set(ways)


async def test_f47_f53_a_complaint_unsubscribes_within_a_minute_and_stops_what_is_planned(world: World) -> None:
    spam, spampost = "spam@folk.example", "spampost@folk.example"
    world.relay.on("RCPT", "451 4.3.2 Please come back later")
    async with world.deployment.client() as api:
        desk = Desk(api)
        item = await desk.publish_new(_fields())
        await eventually(lambda: desk.deliveries(item), within=30)
        assert await world.by_lmtp(world.report(COMPLAINT, spam), BOUNCE_ADDRESS) == 250
        assert await world.until(spam, "unsubscribed") < 60
        # One that is being tried just then is called off when it is due again.
        await eventually(lambda: desk.deliveries(item, state="cancelled"), within=30)
        world.relay.behave()
        reach = await desk.reached(item)
    got = {mail.recipients[0] for mail in world.relay.accepted if item.encode() in mail.content}
    assert spam not in got
    assert spampost in got
    assert reach["total"]["cancelled"] == 1
    async with world.mailbox_with(world.report(COMPLAINT, spampost)):
        # Here the mailbox is looked into as much more often as RETRY_SCALE says.
        assert POLL_EVERY_S + await world.until(spampost, "unsubscribed") < 60


async def test_f47_out_of_office_and_forgeries_change_nothing(world: World) -> None:
    away, forged_at = "borta@folk.example", "smidd@folk.example"
    path = world.return_paths[forged_at]
    at = path.index("+") + 30
    forged = path[:at] + ("a" if path[at] != "a" else "b") + path[at + 1 :]
    letter = b"From: eva@kommun.example\nSubject: Fraga\n\n" + world.report(HARD, forged)
    assert await world.by_lmtp(world.report(AWAY, away), away) == 250
    assert await world.by_lmtp(world.report(HARD, forged), forged) == 550
    assert await world.by_lmtp(world.report(HARD, forged), BOUNCE_ADDRESS) == 250
    assert await world.by_pipe(world.report(HARD, forged)) == 0
    async with world.mailbox_with(letter, world.report(AWAY, away)) as mailbox:
        await eventually(lambda: list(mailbox.mails) == [1], within=30)
    # Whatever any of these could have set off has passed when a later, genuine one has come through.
    witness = "stor@folk.example"
    assert await world.by_lmtp(await asyncio.to_thread(_large, world, witness), witness) == 250
    await world.until(witness, "suppressed")
    states = await world.states()
    assert (states[away], states[forged_at]) == ("active", "active")
    assert not [line for line in world.deployment.log_lines() if line["event"] == "worker_failed"]


async def test_f47_ten_megabytes_cost_little(world: World) -> None:
    """`stor` may be suppressed already: the same report again is written down once, and costs the same."""
    reader = "stor@folk.example"
    raw = await asyncio.to_thread(_large, world, reader)
    assert len(raw) > 10 * 2**20
    before = _peak(world.deployment, anew=True)
    began = time.monotonic()
    assert await world.by_lmtp(raw, reader) == 250
    assert time.monotonic() - began < 20
    await world.until(reader, "suppressed")
    assert _peak(world.deployment) - before < 16 * 2**20


async def test_what_goes_out_is_seen_to_arrive_at_the_canary(world: World) -> None:
    """An operator makes a subscriber and an endpoint of their own and names them; nobody helps the webhook on its way."""
    async with world.deployment.client() as api:
        desk = Desk(api)
        await desk.import_file("public", f"email\n{BOUNCE_ADDRESS}".encode())
        people = await desk.all_pages(f"{SUBSCRIPTIONS}/subscribers")
        endpoint = {"name": "Kanariefågeln", "organisation": "Vi", "contact_email": "webb@forbundet.example"}
        endpoint |= {"url": f"{world.deployment.url}{CANARY_PATH}", "audiences": [*Audience]}
        made = await desk.call("POST", f"{DISTRIBUTOR}/endpoints", json=endpoint)
        named = {
            "BUDKAVLE_CANARY_SUBSCRIBER": next(one["id"] for one in people if one["address"] == BOUNCE_ADDRESS),
            "BUDKAVLE_CANARY_ENDPOINT": made["id"],
        }
        for replica in world.deployment.replicas["distributor"]:
            await asyncio.to_thread(replica.again, **named)
        item = await desk.publish_new(_fields())
        await desk.reached(item)
        (mail,) = world.relay.to(BOUNCE_ADDRESS)
        arriving = mail.content.replace(b"\r\n", b"\n")
        assert await world.by_lmtp(arriving, BOUNCE_ADDRESS, sender=mail.sender) == 250
        arrived = "SELECT channel FROM arrivals JOIN deliveries ON id = delivery_id ORDER BY channel"
        ask = world.deployment.ask
        await eventually(lambda: ask("distributor", arrived) == [("mail",), ("webhook",)], within=30)
        tried = await desk.call("POST", f"{DISTRIBUTOR}/endpoints/{made['id']}/test")
        assert (tried["outcome"], tried["status"]) == ("sent", 204)


def _large(world: World, reader: str) -> bytes:
    """A report that returns a mail of ten megabytes, in lines as mails have them."""
    raw = world.report(HARD, reader)
    end = raw.rindex(b"\n--", 0, raw.rindex(b"--\n"))
    return raw[:end] + b"\n" + (b"x" * 76 + b"\n") * 140_000 + raw[end:]


def _peak(deployment: Deployment, *, anew: bool = False) -> int:
    """Octets that the distributor has held at most; from now on, with `anew`."""
    process = Path(f"/proc/{deployment.pids('distributor')[0]}")
    if anew:
        (process / "clear_refs").write_text("5")
    return int((process / "status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
