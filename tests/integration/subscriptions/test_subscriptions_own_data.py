"""The second level: a person's own data behind a fresh link, a change of address, and erasing."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import html5lib
import pytest
from httpx2 import AsyncClient
from sqlalchemy import inspect, text
from tests.integration.subscriptions.conftest import NOON, Register, emitted, make_item, run_dry

from shared.clock import FixedClock
from shared.contracts.delivery import BounceKind, DeliveryBounced
from shared.contracts.envelope import Envelope
from shared.database import Database
from shared.ids import new_id
from shared.messaging.bus import Incoming
from shared.service import Service
from subscriptions import fanout
from subscriptions.fanout import FanoutWorker
from subscriptions.weeding import Weeder

OWN = {"sec-fetch-site": "same-origin", "origin": "null"}
ONLY_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def person(register: Register) -> str:
    council = await register.organisation("council", "Kommunfullmäktige")
    role = {"audience": "politician", "organisation_id": council, "municipalities": ["0880"]}
    more = {"audience": "public"}
    return await register.person("anna.andersson@kalmar.example", role, more, name="Anna Andersson")


@pytest.fixture
def page(service: Service, person: str) -> str:
    url: str = service.app.state.links.preferences(UUID(person), 1)
    return url


def checked(html: str) -> Any:
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(html)
    assert len(tree.findall(".//h1")) == 1
    return tree


async def mails(database: Database) -> list[tuple[str, str, str]]:
    """To whom, the subject, the link."""
    return [
        (
            mail.data["recipients"][0]["address"],
            mail.data["request"]["subject"],
            mail.data["request"]["action_url"],
        )
        for mail in await emitted(database, "mail.requested")
        if mail.data["request"]
    ]


async def fresh(reader: AsyncClient, page: str, database: Database) -> str:
    answer = await reader.post(page, data={"action": "fresh_link"}, headers=OWN)
    assert answer.status_code == 303
    to, subject, link = (await mails(database))[-1]
    assert (to, subject) == ("anna.andersson@kalmar.example", "Länk till dina uppgifter")
    return link


async def state(office: AsyncClient, person: str) -> dict[str, Any]:
    return dict((await office.get(f"/api/subscriptions/v1/subscribers/{person}")).json())


async def test_a_fresh_link_opens_what_the_lasting_one_does_not_show(
    page: str, reader: AsyncClient, database: Database, clock: FixedClock
) -> None:
    assert "andersson" not in (await reader.get(page)).text.lower()
    link = await fresh(reader, page, database)
    for _ in range(2):  # a scanner first
        shown = await reader.get(link)
        assert shown.status_code == 200
        assert "anna.andersson@kalmar.example" in shown.text
        assert "Anna Andersson" in shown.text
        assert shown.headers["cache-control"] == "no-store"
        checked(shown.text)
    document = (await reader.get(f"{link}/export.json")).json()
    assert (document["address"], document["name"]) == ("anna.andersson@kalmar.example", "Anna Andersson")
    assert [role["audience"] for role in document["roles"]] == ["politician", "public"]
    assert [role["legal_basis"] for role in document["roles"]] == ["public_task", "consent"]
    assert [row["act"] for row in document["history"]] == ["joined"]
    assert document["mails"].startswith("https://nyheter.example/utskick/")
    [mails] = [e.get("href") for e in checked(shown.text).iter("a") if (e.get("href") or "").startswith("/utskick/")]
    assert document["mails"] == f"https://nyheter.example{mails}/export.json"
    path, _, token = link.rpartition("/")
    lasting = page.rpartition("/")[2]
    for dead in (lasting, token[:-1], "a" * 10_000, token[:-3] + "AAA"):
        for method in ("GET", "POST"):
            answer = await reader.request(method, f"{path}/{dead}")
            assert answer.status_code == 404
            assert "andersson" not in answer.text.lower()
        assert (await reader.get(f"{path}/{dead}/export.json")).status_code == 404
    assert (await reader.get(f"{page.rpartition('/')[0]}/{token}")).status_code == 404  # of one purpose only
    clock.advance(timedelta(minutes=30))
    for gone in (link, f"{link}/export.json"):
        answer = await reader.get(gone)
        assert (answer.status_code, "Länken gäller inte längre" in answer.text) == (404, True)
    assert (await reader.post(link, data={"action": "erase"}, headers=OWN)).status_code == 404


@ONLY_SQLITE
async def test_the_extract_holds_what_others_have_written_about_the_person(
    page: str, person: str, register: Register, reader: AsyncClient, office: AsyncClient, service: Service
) -> None:
    """Beside their own choices: a group's contact person, a desk, an open invitation, stops, bounces, tasks."""
    kept, asked = await register.group("Samverkan Kalmar", "0880"), await register.group("Samverkan Nybro", "0881")
    newsroom = await register.organisation("newsroom", "Barometern", "0880")
    seat = {"audience": "collaboration_group", "group_id": kept}
    desk = {"audience": "newsroom", "organisation_id": newsroom}
    bo = await register.person("bo@kalmar.example", {**seat, "group_id": asked})
    await register.change(person, roles=[seat, desk])
    v1, links = "/api/subscriptions/v1", service.app.state.links
    for path, whom in (
        (f"groups/{kept}/contact", person),
        (f"groups/{asked}/contact", bo),
        (f"organisations/{newsroom}/desk", person),
    ):
        assert (await office.put(f"{v1}/{path}", json={"subscriber_id": whom})).status_code == 200
    invited = {"action": "invite", "email": "Anna.Andersson@kalmar.example", "name": "A. A.", "locale": "sv"}
    assert (await reader.post(links.group(UUID(asked), 1), data=invited, headers=OWN)).status_code == 303
    await bounce(service, person)
    await office.post(f"{v1}/subscribers/{person}/suppressions", json={"note": "Ringde och bad om det."})
    link = await fresh(reader, page, service.database)
    held = (await reader.get(f"{link}/export.json")).json()
    assert (held["contact_person_for"], held["desk_of"]) == (["Samverkan Kalmar"], ["Barometern"])
    assert [(one["group"], one["name"]) for one in held["invitations"]] == [("Samverkan Nybro", "A. A.")]
    assert {task["kind"] for task in held["tasks"]} == {"newsroom_bounced", "group_contact_bounced"}
    shown = checked((await reader.get(link)).text)
    facts = " ".join("".join(part.itertext()) for part in shown.find(".//dl"))
    for told in (
        "Samverkan Kalmar",
        "Samverkan Nybro",
        "Barometern",
        "kom tillbaka",
        "Ringde och bad om det.",
        "Mejl till en redaktion kommer tillbaka, 12 maj 2026, 5.1.1",
        "Mejl till en grupps kontaktperson kommer tillbaka",
    ):
        assert told in facts
    why = " ".join("".join(part.itertext()) for part in shown.findall(".//main//li"))
    assert "Det lades till 12 maj 2026 av oss." in why


async def bounce(service: Service, person: str) -> None:
    bounced = DeliveryBounced(delivery_id=new_id(), recipient_id=UUID(person), kind=BounceKind.HARD, status="5.1.1")
    envelope = Envelope.wrap(
        bounced, event_id=new_id(), source="/budkavle/distributor", subject="d", time=NOON, correlation_id="c-1"
    )
    await service.consumers[1].receive(Incoming(str(envelope.id), envelope.model_dump_json().encode(), 1))


async def test_an_address_is_confirmed_at_the_new_one_told_to_the_old_one_and_taken_back_from_there(
    page: str, person: str, reader: AsyncClient, office: AsyncClient, database: Database
) -> None:
    link = await fresh(reader, page, database)
    asked = await reader.post(link, data={"action": "move", "new_address": "Anna@blåbär.example"}, headers=OWN)
    assert asked.status_code == 200
    checked(asked.text)
    to, subject, confirm = (await mails(database))[-1]
    assert (to, subject) == ("Anna@xn--blbr-noae.example", "Bekräfta din nya adress")
    assert (await reader.get(confirm)).status_code == 200
    assert (await state(office, person))["address"] == "anna.andersson@kalmar.example"
    for _ in range(2):  # a double click
        confirmed = await reader.post(confirm, headers=OWN)
        assert confirmed.status_code == 200
        assert "kalmar.example" not in confirmed.text
        checked(confirmed.text)
    assert (await state(office, person))["address"] == "Anna@xn--blbr-noae.example"
    assert (await reader.get(page)).status_code == 404  # the old mailbox's links end
    (*_, away, here) = await mails(database)
    assert (away[0], away[1]) == ("anna.andersson@kalmar.example", "Din adress hos oss har ändrats")
    assert (here[0], here[1]) == ("Anna@xn--blbr-noae.example", "Dina mejl kommer hit från och med nu")
    assert "blbr" not in str((await emitted(database, "mail.requested"))[-2].data["request"])
    assert (await reader.get(here[2])).status_code == 200
    assert (await reader.get(away[2])).status_code == 200
    for _ in range(2):
        assert (await reader.post(away[2], headers=OWN)).status_code == 200
    assert (await state(office, person))["address"] == "anna.andersson@kalmar.example"
    assert (await reader.get(here[2])).status_code == 404
    assert (await reader.post(confirm, headers=OWN)).status_code == 404  # and does not let the other one in again
    assert (await mails(database))[-1][0] == "anna.andersson@kalmar.example"


@ONLY_SQLITE
async def test_b26_an_address_change_that_is_not_confirmed_or_not_possible(
    page: str,
    person: str,
    register: Register,
    reader: AsyncClient,
    office: AsyncClient,
    database: Database,
    clock: FixedClock,
    service: Service,
) -> None:
    await register.person("bo@kalmar.example", {"audience": "public"})
    link = await fresh(reader, page, database)
    for typed in ("", "anna@", "anna.andersson@kalmar.example", "a@kalmar.example\r\nBcc: b@kalmar.example"):
        refused = await reader.post(link, data={"action": "move", "new_address": typed}, headers=OWN)
        assert refused.status_code == 422
        tree = checked(refused.text)
        assert tree.find(".//*[@id='new_address-fel']") is not None
    await reader.post(link, data={"action": "move", "new_address": "bo@kalmar.example"}, headers=OWN)
    taken = (await mails(database))[-1]
    assert taken[0] == "bo@kalmar.example"  # the answer on the page told nothing
    assert (await reader.post(taken[2], headers=OWN)).status_code == 409
    await reader.post(link, data={"action": "move", "new_address": "ny@kalmar.example"}, headers=OWN)
    assert (await reader.get(taken[2])).status_code == 404  # a newer one took its place
    newest = (await mails(database))[-1]
    clock.advance(timedelta(days=7))
    assert (await reader.post(newest[2], headers=OWN)).status_code == 404
    await next(worker for worker in service.workers if isinstance(worker, Weeder)).weed()
    assert await everywhere(database, "ny@kalmar.example", but=("outbox",)) == []
    forgotten = {event.data["recipient_id"] for event in await emitted(database, "recipient.erased")}
    recipients = {mail.data["recipients"][0]["recipient_id"] for mail in await emitted(database, "mail.requested")}
    assert forgotten == recipients - {person}
    assert (await state(office, person))["address"] == "anna.andersson@kalmar.example"


async def test_b29_erasing_leaves_the_address_in_no_table(
    page: str,
    register: Register,
    reader: AsyncClient,
    office: AsyncClient,
    database: Database,
    worker: FanoutWorker,
    person: str,
) -> None:
    added = {"address": "anna.other@kalmar.example", "roles": [{"audience": "public"}]}
    once = {"Idempotency-Key": "one"}
    other = (await office.post("/api/subscriptions/v1/subscribers", json=added, headers=once)).json()["id"]
    await reader.post("/prenumerera", data={"email": "anna.andersson@kalmar.example"}, headers=OWN)
    async with database.transaction() as session:
        await fanout.record(session, make_item("politician", "public"), NOON)
    await run_dry(worker, database)
    link = await fresh(reader, page, database)
    await reader.post(link, data={"action": "move", "new_address": "anna.new@kalmar.example"}, headers=OWN)
    assert await everywhere(database, "anna.andersson") != []
    for typed in ("", "on", "test@example.com"):  # what scanners fill in
        refused = await reader.post(link, data={"action": "erase", "own_address": typed}, headers=OWN)
        assert refused.status_code == 422
        assert checked(refused.text).find(".//*[@id='own_address-fel']") is not None
    erased = await reader.post(
        link, data={"action": "erase", "own_address": "Anna.Andersson@KALMAR.example "}, headers=OWN
    )
    assert (erased.status_code, "Dina uppgifter är borttagna" in erased.text) == (200, True)
    checked(erased.text)
    for part in ("anna.andersson", "Anna Andersson", "anna.new@"):
        assert await everywhere(database, part) == []
    assert {event.data["recipient_id"] for event in await emitted(database, "recipient.erased")} >= {person}
    batches = [mail for mail in await emitted(database, "mail.requested") if mail.data["subject_kind"] == "item"]
    everybody = [recipient for batch in batches for recipient in batch.data["recipients"]]
    assert {(recipient["recipient_id"], recipient["address"]) for recipient in everybody} == {
        (person, ""),
        (other, "anna.other@kalmar.example"),
    }
    assert (await reader.get(page)).status_code == 404
    assert (await office.delete(f"/api/subscriptions/v1/subscribers/{other}")).status_code == 204
    assert await everywhere(database, "anna.") == []
    again = await office.post("/api/subscriptions/v1/subscribers", json=added, headers=once)
    assert again.status_code == 410


async def everywhere(database: Database, wanted: str, but: tuple[str, ...] = ()) -> list[str]:
    """The tables that hold the text, in whatever column."""
    found = []
    async with database.engine.connect() as connection:
        tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
        for table in set(tables) - set(but):
            for row in await connection.execute(text(f"SELECT * FROM {table}")):
                values = [
                    bytes(v).decode(errors="replace") if isinstance(v, bytes | memoryview) else str(v) for v in row
                ]
                if any(wanted.lower() in value.lower() for value in values):
                    found.append(table)
    return sorted(set(found))
