"""The ledger over HTTP."""

from collections.abc import AsyncIterator
from uuid import uuid4

import httpx2
import pytest
from pydantic import SecretStr
from tests.integration.distributor.conftest import Room, batch, people, snapshot

from distributor import repository
from distributor.app import build
from distributor.channels import Fault, Outcome
from distributor.states import FAILED, SENT


@pytest.fixture
async def client(room: Room) -> AsyncIterator[httpx2.AsyncClient]:
    service = build(room.settings.model_copy(update={"admin_key": SecretStr("a" * 40)}))
    transport = httpx2.ASGITransport(app=service.app)
    headers = {"Authorization": "Bearer " + "a" * 40}
    async with httpx2.AsyncClient(transport=transport, base_url="http://x", headers=headers) as client:
        yield client
    await service.database.dispose()


async def test_pages_of_the_ledger_hold_every_row_once(room: Room, client: httpx2.AsyncClient) -> None:
    item = snapshot(uuid4())
    await room.hear(batch(item, people(25)))
    url, seen = f"/api/distributor/v1/deliveries?item={item.item_id}&limit=10", []
    cursor = ""
    while cursor is not None:
        page = (await client.get(url + (f"&cursor={cursor}" if cursor else ""))).json()
        seen += [row["id"] for row in page["data"]]
        cursor = page["next_cursor"]
    assert len(seen) == len(set(seen)) == 25


@pytest.mark.parametrize(
    "asked", ["item={item}&state=failed", "state=failed", "recipient={some}", "item={item}&state=sent"]
)
async def test_a_page_looks_at_no_more_than_its_window(
    asked: str, room: Room, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "WINDOW", 6)
    item, listed = snapshot(uuid4()), people(30)
    bad = {person.recipient_id for person in listed[:7]}
    room.sender.answer = lambda d: (
        Outcome(FAILED, 554, fault=Fault.CONTENT) if d.recipient_id in bad else Outcome(SENT, 250)
    )
    await room.hear(batch(item, listed))
    await room.drain()
    url = "/api/distributor/v1/deliveries?limit=3&" + asked.format(item=item.item_id, some=listed[0].recipient_id)
    seen, cursor = [], ""
    while cursor is not None:
        page = (await client.get(url + (f"&cursor={cursor}" if cursor else ""))).json()
        seen += [row["recipient_id"] for row in page["data"]]
        cursor = page["next_cursor"]
    failed, everybody = {str(key) for key in bad}, {str(person.recipient_id) for person in listed}
    wanted = {"state=failed": failed, "recipient={some}": {str(listed[0].recipient_id)}}.get(asked)
    wanted = wanted or (failed if asked.endswith("failed") else everybody - failed)
    assert len(seen) == len(set(seen))
    assert set(seen) == wanted


async def test_a_delivery_shows_its_attempts_with_the_servers_reply_and_no_address(
    room: Room, client: httpx2.AsyncClient
) -> None:
    told = batch(snapshot(uuid4()), people(1))
    room.sender.answer = lambda d: Outcome(SENT, 250, "2.0.0", "2.0.0 Ok: queued as 4F2A")
    await room.hear(told)
    await room.drain()
    recipient = told.recipients[0].recipient_id
    (row,) = (await client.get(f"/api/distributor/v1/deliveries?recipient={recipient}&state=sent")).json()["data"]
    answer = await client.get(f"/api/distributor/v1/deliveries/{row['id']}")
    assert answer.json()["status"] == "delivered"
    assert [tried["reply"] for tried in answer.json()["attempt_log"]] == ["2.0.0 Ok: queued as 4F2A"]
    assert "person0" not in answer.text


async def test_b42_retry_by_hand(room: Room, client: httpx2.AsyncClient) -> None:
    room.sender.answer = lambda d: Outcome(FAILED, 554, fault=Fault.CONTENT)
    await room.hear(batch(snapshot(uuid4()), people(1)))
    await room.drain()
    (row,) = await room.rows()
    url = f"/api/distributor/v1/deliveries/{row.id}/retry"
    first, second = await client.post(url), await client.post(url)
    assert (first.status_code, first.json()["state"]) == (202, "planned")
    assert (second.status_code, second.json()["code"]) == (409, "not_retriable")
    assert (await client.post(f"/api/distributor/v1/deliveries/{uuid4()}/retry")).status_code == 404


@pytest.mark.parametrize("query", ["?cursor=x%C3%A4", "?limit=0", "?limit=101", "?state=lost", "?item=7"])
async def test_wrong_questions_are_answered_with_the_field(query: str, client: httpx2.AsyncClient) -> None:
    answer = await client.get(f"/api/distributor/v1/deliveries{query}")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["pointer"].startswith("?")


async def test_without_a_key_nothing_is_shown(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/api/distributor/v1/deliveries", headers={"Authorization": ""})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
