"""The API: what it keeps, what it refuses and how, imports included."""

import time
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from httpx2 import AsyncClient
from sqlalchemy import inspect
from tests.integration.subscriptions.conftest import Register

from shared import migrations
from shared.database import Database, plumbing
from subscriptions.app import MIGRATIONS
from subscriptions.models import Base

V1 = "/api/subscriptions/v1"
COUNCILLORS = (
    "E-post;Namn;Fullmäktige;Kommun;Mandat från;Mandat till\n"
    "anna@kalmar.example;Anna Åberg;Kommunfullmäktige;Kalmar;2026-10-15;2030-10-14\n"
    "bo@nybro.example;Bo Ek;Kommunfullmäktige;Nybro;;\n"
    "anna@kalmar.example;Anna Åberg;Regionfullmäktige;;;\n"
)


async def send(office: AsyncClient, text: str | bytes, audience: str = "politician", *, dry: bool = False) -> Any:
    raw = text if isinstance(text, bytes) else text.encode()
    return await office.post(
        f"{V1}/imports?dry_run={str(dry).lower()}", files={"file": ("lista.csv", raw)}, data={"audience": audience}
    )


def outcome(answer: Any) -> tuple[int, int, int]:
    assert answer.status_code == 200, answer.text
    report = answer.json()
    assert report["errors"] == []
    return report["created"], report["updated"], report["unchanged"]


async def count(office: AsyncClient) -> int:
    return len((await office.get(f"{V1}/subscribers?limit=100")).json()["data"])


async def test_an_import_is_done_once_and_a_dry_run_never(office: AsyncClient) -> None:
    assert outcome(await send(office, COUNCILLORS, dry=True)) == (2, 1, 0)
    assert await count(office) == 0
    assert outcome(await send(office, COUNCILLORS)) == (2, 1, 0)
    before = (await office.get(f"{V1}/subscribers")).json()
    assert outcome(await send(office, COUNCILLORS)) == (0, 0, 3)
    assert outcome(await send(office, COUNCILLORS, dry=True)) == (0, 0, 3)
    assert (await office.get(f"{V1}/subscribers")).json() == before
    anna = next(row for row in before["data"] if row["name"] == "Anna Åberg")
    assert sorted(role["name"] for role in anna["roles"]) == ["Kommunfullmäktige", "Regionfullmäktige"]
    changed = COUNCILLORS.replace("Bo Ek", "Bo Ek Lund").replace("2030-10-14", "2028-10-14")
    assert outcome(await send(office, changed)) == (0, 2, 1)


async def test_b28_a_faulty_line_lets_nothing_in(office: AsyncClient) -> None:
    faulty = COUNCILLORS + "x@;;Kommunfullmäktige;Kalmar;;\n"
    refused = await send(office, faulty)
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    [error] = refused.json()["errors"]
    assert (error["line"], error["column"], error["code"]) == (5, "email", "invalid_email")
    dry = await send(office, faulty, dry=True)
    assert (dry.status_code, dry.json()["errors"]) == (200, [error])
    assert await count(office) == 0
    assert (await office.get(f"{V1}/organisations")).json()["data"] == []


async def test_an_import_brings_nobody_back(office: AsyncClient, register: Register) -> None:
    await send(office, COUNCILLORS)
    people = (await office.get(f"{V1}/subscribers")).json()["data"]
    for person in people:
        await register.change(person["id"], left_audiences=["politician"], unsubscribed=True)
    await send(office, COUNCILLORS.replace("Bo Ek", "Bo Lund"))
    for person in (await office.get(f"{V1}/subscribers")).json()["data"]:
        assert (person["state"], person["left_audiences"]) == ("unsubscribed", ["politician"])


@pytest.mark.parametrize(
    ("audience", "text", "role"),
    [
        ("newsroom", "email;redaktion;bevakar\ndesk@barometern.example;Barometern;Kalmar/Nybro\n", "Barometern"),
        (
            "collaboration_group",
            'email,grupp,kommun\ng@kalmar.example,Samverkan Öland,"0840,0885"\n',
            "Samverkan Öland",
        ),
        ("agency_official", "email;myndighet;kommun\na@fk.example;Försäkringskassan;\n", "Försäkringskassan"),
        ("public", "email;kommun\nu@kalmar.example;Kalmar\n", ""),
    ],
)
async def test_every_audience_can_be_imported(audience: str, text: str, role: str, office: AsyncClient) -> None:
    assert outcome(await send(office, text, audience)) == (1, 0, 0)
    assert outcome(await send(office, text, audience)) == (0, 0, 1)
    [person] = (await office.get(f"{V1}/subscribers?audience={audience}")).json()["data"]
    assert [(found["audience"], found["name"]) for found in person["roles"]] == [(audience, role)]


async def test_a_spreadsheet_gets_a_clear_answer(office: AsyncClient) -> None:
    answer = await send(office, b"PK\x03\x04" + b"\0" * 100)
    assert answer.status_code == 422
    assert "Excel" in answer.json()["errors"][0]["message_sv"]


@pytest.mark.bench
async def test_a_hundred_thousand_lines_in_half_a_minute(office: AsyncClient) -> None:
    lines = [f"p{n}@kalmar.example;Person {n};Kommunfullmäktige;Kalmar;;\n" for n in range(100_000)]
    text = COUNCILLORS.splitlines(keepends=True)[0] + "".join(lines)
    began = time.perf_counter()
    assert outcome(await send(office, text)) == (100_000, 0, 0)
    print(f"\n{time.perf_counter() - began:.1f} s")
    assert time.perf_counter() - began < 30


async def test_an_address_belongs_to_one_subscriber(office: AsyncClient, register: Register) -> None:
    first = await register.person("Anna@Kalmar.example")
    answer = await office.post(f"{V1}/subscribers", json={"address": "anna@kalmar.EXAMPLE"})
    assert (answer.status_code, answer.json()["code"]) == (409, "subscriber_exists")
    other = await register.person("other@kalmar.example")
    taken = await office.patch(
        f"{V1}/subscribers/{other}", json={"address": "anna@kalmar.example"}, headers={"If-Match": "*"}
    )
    assert taken.status_code == 409
    assert (await office.get(f"{V1}/subscribers/{first}")).json()["address"] == "Anna@kalmar.example"
    assert (await office.get(f"{V1}/subscribers/{other}")).json()["address"] == "other@kalmar.example"


async def test_a_stale_change_is_refused(office: AsyncClient, register: Register) -> None:
    path = f"{V1}/subscribers/{await register.person('a@kalmar.example')}"
    tag = (await office.get(path)).headers["etag"]
    assert (await office.patch(path, json={"name": "A"})).status_code == 428
    changed = await office.patch(path, json={"name": "A"}, headers={"If-Match": tag})
    assert (changed.status_code, changed.headers["etag"] != tag) == (200, True)
    assert (await office.patch(path, json={"name": "B"}, headers={"If-Match": tag})).status_code == 412
    assert (await office.get(path)).json()["name"] == "A"


async def test_the_same_key_does_the_work_once(office: AsyncClient) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = await office.post(f"{V1}/subscribers", json={"address": "a@kalmar.example"}, headers=key)
    again = await office.post(f"{V1}/subscribers", json={"address": "a@kalmar.example"}, headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert again.headers["etag"] == first.headers["etag"]
    other = await office.post(f"{V1}/subscribers", json={"address": "b@kalmar.example"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"address": "a@b"}, "/address", "invalid_email"),
        ({"address": "a@kalmar.example", "id": "1"}, "/id", "unknown_field"),
        ({"address": "a@kalmar.example", "roles": [{"audience": "newsroom"}]}, "/roles/0/organisation_id", "unknown_place"),
        ({"address": "a@kalmar.example", "roles": [{"audience": "collaboration_group"}]}, "/roles/0/group_id", "unknown_place"),
        ({"address": "a@kalmar.example", "roles": [{"audience": "public"}] * 2}, "/roles/1", "duplicate_role"),
        ({"address": "a@kalmar.example", "roles": [{"audience": "public", "municipalities": ["0880"]}]}, "/roles/0/municipalities", "field_not_for_audience"),
        ({"address": "a@kalmar.example", "municipalities": ["0180"]}, "/municipalities/0", "unknown_municipality"),
        ({"address": "a@kalmar.example", "topics": ["football"]}, "/topics/0", "unknown_topic"),
        ({"address": "a@kalmar.example", "name": "a\r\nBcc: b"}, "/name", "invalid_text"),
        ({"address": "a@kalmar.example", "paused_until": "0001-01-01T00:00:00+14:00"}, "/paused_until", "odd_time"),
        ({"address": "a@kalmar.example", "paused_until": "2026-06-01T00:00:00"}, "/paused_until", "timezone_aware"),
    ],
)  # fmt: skip
async def test_bad_input_names_the_field(body: dict[str, Any], pointer: str, code: str, office: AsyncClient) -> None:
    answer = await office.post(f"{V1}/subscribers", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [(error["pointer"], error["code"]) for error in answer.json()["errors"]] == [(pointer, code)]
    assert await count(office) == 0


async def test_lists_are_paged_to_the_end(office: AsyncClient, register: Register) -> None:
    wanted = [await register.person(f"p{number}@kalmar.example") for number in range(7)]
    found: list[str] = []
    cursor = ""
    while cursor is not None:
        query = f"?limit=3&cursor={cursor}" if cursor else "?limit=3"
        answer = (await office.get(f"{V1}/subscribers{query}")).json()
        found += [row["id"] for row in answer["data"]]
        cursor = answer["next_cursor"]
    assert found == wanted


async def test_a_key_is_needed(reader: AsyncClient) -> None:
    for method, path in (("GET", "subscribers"), ("POST", "subscribers"), ("POST", "imports"), ("GET", "groups")):
        answer = await reader.request(method, f"{V1}/{path}")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_the_migrations_build_what_the_models_say(database: Database, database_url: str) -> None:
    def differences(connection: Any) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"target_metadata": None, "compare_type": False})
        found = compare_metadata(context, [Base.metadata, plumbing])  # type: ignore[arg-type]
        assert inspect(connection).get_table_names()
        return list(found)

    migrations.upgrade(MIGRATIONS, database_url)  # a second time does nothing
    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []
