"""The service at work on a bus: from one event in to the last event out, with nothing stood in for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.subscriptions.conftest import NOON, Register, make_item

from shared.contracts.envelope import Envelope
from shared.contracts.news import NewsPublished
from shared.ids import new_id
from shared.messaging.bus import Ack, Incoming, Message
from shared.messaging.embedded import EmbeddedBus
from shared.messaging.topology import CONTENT_FANOUTS, DISTRIBUTOR_NEWS_MAIL, DISTRIBUTOR_PRESS, NEWS
from shared.service import Service


class Listener:
    """Keeps what a queue brings."""

    def __init__(self) -> None:
        self.heard: list[Envelope] = []

    async def receive(self, incoming: Incoming) -> Ack:
        self.heard.append(Envelope.model_validate_json(incoming.body))
        return Ack()


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[EmbeddedBus]:
    bus = EmbeddedBus(tmp_path / "bus.sqlite3")
    await bus.start()
    yield bus
    await bus.close()


async def test_one_event_in_and_everybody_out(
    service: Service, register: Register, bus: EmbeddedBus, eventually: Callable[..., Any]
) -> None:
    paper = await register.organisation("newsroom", "Barometern")
    desk = await register.person("desk@barometern.example", {"audience": "newsroom", "organisation_id": paper})
    public = [await register.person(f"p{number}@kalmar.example", {"audience": "public"}) for number in range(5)]
    press, news, done = Listener(), Listener(), Listener()
    for queue, listener in ((DISTRIBUTOR_PRESS, press), (DISTRIBUTOR_NEWS_MAIL, news), (CONTENT_FANOUTS, done)):
        await bus.consume(queue, listener.receive)
    await service.start(bus, work=True)
    item = make_item("newsroom", "public")
    envelope = Envelope.wrap(
        NewsPublished(item=item),
        event_id=new_id(),
        source="/budkavle/content",
        subject=str(item.item_id),
        time=NOON,
        correlation_id="from-the-editor",
    )
    body = envelope.model_dump_json().encode()
    assert await bus.publish([Message(str(envelope.id), NEWS, "news.published", body)]) == [None]
    await eventually(lambda: done.heard, within=20)
    await service.stop(asyncio.get_running_loop().time() + 10)

    def reached(listener: Listener) -> list[str]:
        return sorted(row["recipient_id"] for event in listener.heard for row in event.data["recipients"])

    assert reached(press) == [desk]
    assert reached(news) == sorted(public)
    [completed] = done.heard
    assert [(total["audience"], total["planned"]) for total in completed.data["totals"]] == [
        ("newsroom", 1),
        ("public", 5),
    ]
    assert {event.correlationid for event in (*press.heard, *news.heard, completed)} == {"from-the-editor"}
