"""Newsroom desks: the desk stays, is asked twice a year, and what goes wrong becomes a task."""

from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from httpx2 import AsyncClient
from structlog.testing import capture_logs
from tests.integration.subscriptions.conftest import Register, emitted
from tests.integration.subscriptions.test_subscriptions_stops import bring

from shared.clock import FixedClock
from shared.contracts.delivery import BounceKind, DeliveryBounced, DeliveryComplained
from shared.database import Database
from shared.ids import new_id
from shared.service import Service
from subscriptions.desks.care import DeskCare

V1 = "/api/subscriptions/v1"
OWN = {"sec-fetch-site": "same-origin"}
HALF_A_YEAR, THREE_WEEKS = timedelta(days=182), timedelta(days=21)


class Desks:
    """A newsroom with a desk and a named person, and the worker that cares for it."""

    def __init__(self, office: AsyncClient, care: DeskCare, newsroom: str, desk: str, person: str) -> None:
        self.office, self.care = office, care
        self.newsroom, self.desk, self.person = newsroom, desk, person

    async def care_for(self) -> None:
        while await self.care.advance():
            pass

    async def shown(self) -> dict[str, Any]:
        return dict((await self.office.get(f"{V1}/organisations/{self.newsroom}/desk")).json())

    async def tasks(self, **query: str) -> list[dict[str, Any]]:
        return list((await self.office.get(f"{V1}/tasks", params={"state": "open", **query})).json()["data"])


@pytest.fixture
async def desks(office: AsyncClient, register: Register, service: Service) -> Desks:
    newsroom = await register.organisation("newsroom", "Barometern", "0880", "0881")
    role = {"audience": "newsroom", "organisation_id": newsroom}
    desk = await register.person("red@barometern.example", role)
    person = await register.person("eva@barometern.example", role, name="Eva Ek")
    care = next(worker for worker in service.workers if isinstance(worker, DeskCare))
    desks = Desks(office, care, newsroom, desk, person)
    await desks.care_for()
    return desks


async def questions(database: Database) -> list[dict[str, Any]]:
    return [mail.data for mail in await emitted(database, "mail.requested")]


async def test_no_answer_brings_a_reminder_and_then_a_task(desks: Desks, clock: FixedClock, database: Database) -> None:
    assert (await desks.shown())["subscriber_id"] == desks.desk
    clock.advance(HALF_A_YEAR)
    for told in (1, 2, 2):
        await desks.care_for()
        await desks.care_for()
        assert len(await questions(database)) == told
        clock.advance(THREE_WEEKS)
    asked = await questions(database)
    assert {mail["recipients"][0]["address"] for mail in asked} == {"red@barometern.example"}
    assert Counter(mail["form"] for mail in asked) == {"preferences": 1, "reminder": 1}
    assert {mail["lane"] for mail in asked} == {"transactional"}
    assert "Kalmar, Nybro" in asked[0]["request"]["paragraphs"][0]
    [task] = await desks.tasks()
    assert (task["kind"], task["organisation_id"], task["subscriber_id"]) == (
        "desk_unanswered", desks.newsroom, desks.desk
    )  # fmt: skip
    clock.advance(HALF_A_YEAR)
    await desks.care_for()
    assert len(await questions(database)) == 3


async def test_the_answers_and_what_scanners_do(
    desks: Desks, clock: FixedClock, database: Database, reader: AsyncClient
) -> None:
    clock.advance(HALF_A_YEAR)
    await desks.care_for()
    [mail] = await questions(database)
    url = mail["request"]["action_url"]
    before = await desks.shown()
    for method in ("GET", "HEAD"):
        answer = await reader.request(method, url, follow_redirects=True)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    page = await reader.get(url)
    assert "barometern.example" not in page.text
    assert (
        await reader.post(url, data={"answer": "yes"}, headers={"origin": "https://evil.example"})
    ).status_code == 403
    assert (await reader.post(url, data={}, headers=OWN)).status_code == 422
    hasty = await reader.post(url, data={"answer": "yes"}, headers=OWN)
    assert (hasty.status_code, "Skriv ordet ja" in hasty.text) == (422, True)
    assert await desks.shown() == before, "a program that presses everything as the mail comes answers for nobody"
    clock.advance(timedelta(minutes=5))
    for _ in range(2):
        yes = await reader.post(url, data={"answer": "yes"}, headers=OWN)
        assert yes.status_code == 303
    assert "Tack för svaret" in (await reader.get(yes.headers["location"])).text
    assert ((await desks.shown())["step"], await desks.tasks()) == ("ask", [])
    clock.advance(THREE_WEEKS * 2)
    await desks.care_for()
    assert len(await questions(database)) == 1

    unchanged = {"answer": "change", "municipalities": ["0880", "0881"]}
    assert (await reader.post(url, data=unchanged, headers=OWN)).status_code == 422
    faulty = await reader.post(url, data={**unchanged, "email": "ny@", "message": "Hej"}, headers=OWN)
    assert faulty.status_code == 422
    assert 'value="ny@"' in faulty.text
    assert 'value="Hej"' in faulty.text
    for address in ("ny@barometern.example", "nyast@barometern.example"):
        wish = {"answer": "change", "municipalities": ["0880"], "topics": ["results"], "email": address}
        assert (await reader.post(url, data=wish, headers=OWN)).status_code == 303
    [task] = await desks.tasks(kind="desk_wish")
    assert task["details"] == {
        "address": "nyast@barometern.example", "municipalities": ["0880"], "topics": ["results"], "message": ""
    }  # fmt: skip
    assert (await desks.office.get(f"{V1}/organisations/{desks.newsroom}/desk")).json()["subscriber_id"] == desks.desk


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_whoever_is_quick_writes_a_word(
    desks: Desks, clock: FixedClock, database: Database, reader: AsyncClient
) -> None:
    clock.advance(HALF_A_YEAR)
    await desks.care_for()
    url = (await questions(database))[-1]["request"]["action_url"]
    assert (await reader.post(url, data={"answer": "yes", "ord": " Ja!"}, headers=OWN)).status_code == 303
    assert (await desks.shown())["step"] == "ask"


async def test_a_task_is_closed_once_with_a_reason_and_forgets(
    desks: Desks, service: Service, office: AsyncClient
) -> None:
    hard = DeliveryBounced(delivery_id=new_id(), recipient_id=UUID(desks.desk), kind=BounceKind.HARD, status="5.1.1")
    with capture_logs() as logs:
        for _ in range(2):
            await bring(service, hard)
    [task] = await desks.tasks()
    assert (task["kind"], task["details"]) == ("newsroom_bounced", {"status": "5.1.1", "is_desk": True})
    assert [line["task_id"] for line in logs if line["event"] == "task_raised"] == [task["id"]]
    path = f"{V1}/tasks/{task['id']}"
    assert (await office.post(f"{path}/close", json={"reason": " "})).status_code == 422
    assert (await office.post(f"{V1}/tasks/{new_id()}/close", json={"reason": "x"})).status_code == 404
    closed = (await office.post(f"{path}/close", json={"reason": "Ny adress per telefon"})).json()
    assert (closed["state"], closed["reason"], closed["details"]) == ("closed", "Ny adress per telefon", {})
    assert (await office.get(path)).json() == closed
    again = await office.post(f"{path}/close", json={"reason": "Igen"})
    assert (again.status_code, again.json()["code"]) == (409, "task_closed")
    await bring(service, hard)
    assert len(await desks.tasks()) == 1
    assert [found["id"] for found in await desks.tasks(state="closed")] == [task["id"]]


async def test_a_person_who_leaves_takes_no_desk_along(
    desks: Desks, service: Service, office: AsyncClient, clock: FixedClock, database: Database
) -> None:
    await bring(service, DeliveryComplained(delivery_id=new_id(), recipient_id=UUID(desks.person)))
    await office.delete(f"{V1}/subscribers/{desks.person}")
    assert (await desks.shown())["subscriber_id"] == desks.desk
    assert [(task["kind"], task["subscriber_id"]) for task in await desks.tasks()] == [("newsroom_complained", None)]
    await office.delete(f"{V1}/subscribers/{desks.desk}")
    clock.advance(timedelta(hours=1))
    await desks.care_for()
    shown = await desks.shown()
    assert (shown["subscriber_id"], shown["step"]) == (None, "address")
    assert "desk_missing" in {task["kind"] for task in await desks.tasks()}
    assert await questions(database) == []


async def test_the_editor_names_the_desk_and_old_links_end(
    desks: Desks, office: AsyncClient, register: Register, reader: AsyncClient, service: Service
) -> None:
    path = f"{V1}/organisations/{desks.newsroom}/desk"
    url = service.app.state.links.desk(UUID(desks.newsroom), 1)
    assert (await reader.get(url)).status_code == 200
    stranger = await register.person("x@kalmar.example")
    assert (await office.put(path, json={"subscriber_id": stranger})).status_code == 422
    assert (
        await office.put(f"{V1}/organisations/{new_id()}/desk", json={"subscriber_id": stranger})
    ).status_code == 404
    same = await office.put(path, json={"subscriber_id": desks.desk})
    assert (same.status_code, (await reader.get(url)).status_code) == (200, 200)
    named = await office.put(path, json={"subscriber_id": desks.person})
    assert named.json()["subscriber_id"] == desks.person
    assert (await reader.get(url)).status_code == 404
    assert (await reader.post(url, data={"answer": "yes"}, headers=OWN)).status_code == 404


async def test_a_newsroom_of_several_nameless_addresses_needs_the_editor(
    desks: Desks, register: Register, clock: FixedClock
) -> None:
    radio = await register.organisation("newsroom", "P4 Kalmar")
    for address in ("a@p4.example", "b@p4.example"):
        await register.person(address, {"audience": "newsroom", "organisation_id": radio})
    await desks.care_for()
    assert [task["organisation_id"] for task in await desks.tasks(kind="desk_missing")] == [radio]
