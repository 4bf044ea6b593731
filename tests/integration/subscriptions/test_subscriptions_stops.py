"""What stops and resumes mail, and what the distributor is told of it."""

from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from httpx2 import AsyncClient
from structlog.testing import capture_logs
from tests.integration.subscriptions.conftest import Register, emitted

from shared.contracts.delivery import BounceKind, DeliveryBounced, DeliveryComplained, fingerprint
from shared.contracts.envelope import Envelope, Event
from shared.database import Database
from shared.ids import new_id
from shared.messaging.bus import Ack, Incoming
from shared.service import Service


@pytest.fixture
async def reader_id(register: Register) -> str:
    return await register.person("u@kalmar.example", {"audience": "public"})


async def bring(service: Service, event: Event, *, of: datetime | None = None) -> None:
    time = of or service.clock.now()
    envelope = Envelope.wrap(
        event, event_id=new_id(), source="/budkavle/distributor", subject="d", time=time, correlation_id="c-1"
    )
    answer = await service.consumers[1].receive(Incoming(str(envelope.id), envelope.model_dump_json().encode(), 1))
    assert isinstance(answer, Ack)


async def told(database: Database) -> list[tuple[str, str | None, str | None]]:
    """What was said of recipients, by rising version."""
    events = sorted(await emitted(database, "recipient"), key=lambda envelope: int(envelope.data["version"]))
    versions = [event.data["version"] for event in events]
    assert len(set(versions)) == len(versions)
    return [(event.type.split(".")[3], event.data.get("audience"), event.data.get("until")) for event in events]


async def state(office: AsyncClient, key: str) -> dict[str, Any]:
    return dict((await office.get(f"/api/subscriptions/v1/subscribers/{key}")).json())


async def test_a_pause_within_an_unsubscription_is_not_forgotten(
    reader_id: str, register: Register, database: Database
) -> None:
    until = "2026-06-01T00:00:00Z"
    await register.change(reader_id, paused_until=until)
    await register.change(reader_id, unsubscribed=True)
    await register.change(reader_id, unsubscribed=True)
    await register.change(reader_id, unsubscribed=False)
    await register.change(reader_id, paused_until=None)
    assert await told(database) == [
        ("stopped", None, until),
        ("stopped", None, None),
        ("stopped", None, until),
        ("resumed", None, None),
    ]


async def test_a_hard_bounce_suppresses_until_the_address_changes(
    reader_id: str, service: Service, register: Register, office: AsyncClient, database: Database
) -> None:
    soft = DeliveryBounced(delivery_id=new_id(), recipient_id=UUID(reader_id), kind=BounceKind.SOFT, status="4.2.2")
    hard = DeliveryBounced(delivery_id=new_id(), recipient_id=UUID(reader_id), kind=BounceKind.HARD, status="5.1.1")
    await bring(service, soft)
    assert (await state(office, reader_id))["state"] == "active"
    for _ in range(2):
        await bring(service, hard)
    assert (await state(office, reader_id))["state"] == "suppressed"
    await register.change(reader_id, address="new@kalmar.example")
    assert (await state(office, reader_id))["state"] == "active"
    assert [event[0] for event in await told(database)] == ["stopped", "resumed"]


async def test_a_late_bounce_of_an_old_address_leaves_the_new_one(
    reader_id: str, service: Service, register: Register, office: AsyncClient, database: Database
) -> None:
    key = UUID(reader_id)
    old = (await state(office, reader_id))["address"]
    late = DeliveryBounced(
        delivery_id=new_id(), recipient_id=key, kind=BounceKind.HARD, address_fingerprint=fingerprint(key, old)
    )
    await register.change(reader_id, address="new@kalmar.example")
    await bring(service, late)
    assert (await state(office, reader_id))["state"] == "active"
    assert await told(database) == []
    anew = late.model_copy(update={"address_fingerprint": fingerprint(key, "New@kalmar.example")})
    await bring(service, anew)
    assert (await state(office, reader_id))["state"] == "suppressed"


async def test_a_bounced_newsroom_is_told_of(register: Register, service: Service) -> None:
    paper = await register.organisation("newsroom", "Barometern")
    desk = await register.person("desk@barometern.example", {"audience": "newsroom", "organisation_id": paper})
    hard = DeliveryBounced(delivery_id=new_id(), recipient_id=UUID(desk), kind=BounceKind.HARD, status="5.1.1")
    with capture_logs() as logs:
        await bring(service, hard)
    assert [entry["subscriber_id"] for entry in logs if entry["event"] == "newsroom_desk_bounced"] == [desk]
    assert not any("barometern" in str(entry) for entry in logs)


async def test_a_complaint_unsubscribes(
    reader_id: str, service: Service, office: AsyncClient, database: Database
) -> None:
    for _ in range(2):
        await bring(service, DeliveryComplained(delivery_id=new_id(), recipient_id=UUID(reader_id)))
    await bring(service, DeliveryComplained(delivery_id=new_id(), recipient_id=new_id()))
    assert (await state(office, reader_id))["state"] == "unsubscribed"
    assert await told(database) == [("stopped", None, None)]


async def test_erasure_leaves_nothing_but_an_event(reader_id: str, office: AsyncClient, database: Database) -> None:
    path = f"/api/subscriptions/v1/subscribers/{reader_id}"
    assert (await office.delete(path)).status_code == 204
    assert (await office.delete(path)).status_code == 404
    assert (await office.get(path)).status_code == 404
    [event] = await emitted(database, "recipient.erased")
    assert event.data["recipient_id"] == reader_id
    assert "kalmar.example" not in event.model_dump_json()
