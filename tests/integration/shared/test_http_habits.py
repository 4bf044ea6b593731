"""The HTTP habits on both databases: a 2xx is on disk, a POST is done once, every error is a problem that says what to mend."""

import asyncio
import gzip
import json
import re
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Annotated, Any
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI, Form
from fastapi.responses import Response
from pydantic import AwareDatetime, BaseModel, Field, SecretStr
from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, func, select
from sqlalchemy.exc import OperationalError

from shared import idempotency, keys, problems
from shared.clock import FixedClock
from shared.database import Database
from shared.http import Reading, RequestModel, Writing, create_app
from shared.idempotency import Answer, OptionalKey, once
from shared.keys import Admin, Publisher, Reader, Scope, Writer
from shared.settings import Settings
from shared.strict_json import MAX_BODY_BYTES, MAX_OTHER_BYTES, MAX_VALUES

ADMIN_KEY = "the-first-admin-key-0123456789"
AT = datetime(2026, 11, 22, 8, 30, tzinfo=UTC)

BOMB = gzip.compress(b" " * 20_000_000)

metadata = MetaData()
notes = Table(
    "notes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("text", String(200), nullable=False),
    # Checked at the commit: the way to make one fail.
    Column("parent", Integer, ForeignKey("notes.id", deferrable=True, initially="DEFERRED", name="fk_parent")),
)


class Note(RequestModel):
    text: str = Field(min_length=1, max_length=20)
    parent: int | None = None
    at: AwareDatetime | None = None
    inner: dict[str, list[float]] = Field(default_factory=dict)


class Noted(BaseModel):
    id: int
    text: str


@dataclass
class Site:
    app: FastAPI
    database: Database
    clock: FixedClock
    client: httpx2.AsyncClient

    async def count(self) -> int:
        async with self.database.reading() as session:
            return await session.scalar(select(func.count()).select_from(notes)) or 0

    async def key(self, *scopes: Scope, **changes: Any) -> str:
        async with self.database.transaction() as session:
            key = await keys.create(session, name="test", scopes=scopes, at=self.clock.now())
            if changes:
                row = keys.api_keys.c.id == key.split("_")[1]
                await session.execute(keys.api_keys.update().where(row).values(**changes))
        return key


def _routes(app: FastAPI, clock: FixedClock) -> None:
    @app.post("/notes", status_code=201)
    async def write(note: Note, session: Writing, key: OptionalKey) -> Response:
        async def work() -> Answer:
            row = await session.execute(notes.insert().values(text=note.text, parent=note.parent).returning(notes.c.id))
            return Answer(Noted(id=row.scalar_one(), text=note.text), 201, {"Location": "/notes/1"})

        return await once(session, key, clock.now(), work)

    @app.post("/forms")
    async def form(word: Annotated[str, Form(max_length=5)]) -> dict[str, str]:
        return {"word": word}

    @app.get("/notes")
    async def listing(session: Reading, limit: int = 10) -> dict[str, int]:
        return {"count": await session.scalar(select(func.count()).select_from(notes)) or 0}

    @app.get("/api/formats")
    async def formats() -> str:
        return "as json"

    @app.post("/raise-after-write")
    async def fail(session: Writing) -> None:
        await session.execute(notes.insert().values(text="never"))
        raise problems.Problem(409, "not_now", "Not in this state.")

    @app.get("/crash")
    async def crash() -> None:
        raise RuntimeError("secret detail")

    for path, principal in (("/r", Reader), ("/w", Writer), ("/p", Publisher), ("/a", Admin)):
        app.add_api_route(path, _who(principal))


def _who(principal: Any) -> Any:
    async def who(caller: principal) -> dict[str, str]:  # type: ignore[valid-type]
        return {"caller": caller.key_id}  # type: ignore[attr-defined]

    return who


@pytest.fixture
async def site(database: Database, database_url: str) -> AsyncIterator[Site]:
    async with database.engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    clock = FixedClock(AT)
    settings = Settings(
        database_url=database_url,
        broker_url="embedded:bus.sqlite3",
        secret_keys=("k" * 32,),
        admin_key=ADMIN_KEY,  # type: ignore[arg-type]
    )
    app = create_app("tests", "Tests", settings=settings, database=database, clock=clock)
    _routes(app, clock)
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield Site(app, database, clock, client)


def the_problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert (document["status"], document["code"]) == (status, code)
    assert document["type"].endswith(f"/{code}") and document["title"]
    assert document["instance"] == answer.headers["x-correlation-id"]
    return document


async def test_when_the_answer_begins_the_row_is_committed(site: Site) -> None:
    seen: list[int] = []

    async def watching(scope: Any, receive: Any, send: Any) -> None:
        async def look_first(message: Any) -> None:
            if message["type"] == "http.response.start":
                seen.append(await site.count())
            await send(message)

        await site.app(scope, receive, look_first)

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=watching), base_url="http://test") as client:
        assert (await client.post("/notes", json={"text": "first"})).status_code == 201
    assert seen == [1]


async def test_a_commit_that_fails_is_no_2xx(site: Site) -> None:
    document = the_problem(
        await site.client.post("/notes", json={"text": "orphan", "parent": 99}), 500, "internal_error"
    )
    assert "fk_parent" not in json.dumps(document)
    assert await site.count() == 0


async def test_a_problem_rolls_back(site: Site) -> None:
    document = the_problem(await site.client.post("/raise-after-write"), 409, "not_now")
    assert document["detail"] == "Not in this state."
    assert await site.count() == 0


async def test_b11_ten_at_once_with_the_same_key_are_one_creation(site: Site) -> None:
    headers = {"Idempotency-Key": "once"}
    answers = await asyncio.gather(
        *(site.client.post("/notes", json={"text": "once"}, headers=headers) for _ in range(10))
    )
    assert {(answer.status_code, answer.content, answer.headers["location"]) for answer in answers} == {
        (201, answers[0].content, "/notes/1")
    }
    assert [answer.headers.get("idempotent-replayed") for answer in answers].count("true") == 9
    assert await site.count() == 1


async def test_b11_a_key_belongs_to_one_request_one_caller_and_one_day(site: Site) -> None:
    async def post(text: str, **headers: str) -> httpx2.Response:
        return await site.client.post("/notes", json={"text": text}, headers={"Idempotency-Key": "k", **headers})

    assert (await post("a")).status_code == 201
    document = the_problem(await post("b"), 422, "idempotency_mismatch")
    assert [error["pointer"] for error in document["errors"]] == ["?idempotency-key"]
    assert "idempotent-replayed" not in (await post("b", authorization="Bearer other")).headers
    site.clock.advance(timedelta(hours=24, seconds=-1))
    assert (await post("a")).headers["idempotent-replayed"] == "true"  # F2: kept for a day, to the end of it
    site.clock.advance(timedelta(seconds=2))
    assert "idempotent-replayed" not in (await post("b")).headers
    assert await site.count() == 3


async def test_b11_what_is_kept_of_a_body_cannot_be_guessed_and_survives_a_new_secret_key(site: Site) -> None:
    body, named = b'{"text":"hemligt"}', "bk_0123456789ab_weak"
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json", "Authorization": f"Bearer {named}"}
    first = await site.client.post("/notes", content=body, headers=headers)
    async with site.database.reading() as session:
        kept, caller = (
            await session.execute(
                select(idempotency.idempotency_keys.c.fingerprint, idempotency.idempotency_keys.c.caller)
            )
        ).one()
    assert caller == "0123456789ab"
    assert kept not in {sha256(part).hexdigest() for part in (body, b"POST\0/notes\0" + body)}
    settings = site.app.state.settings
    newer = (SecretStr("n" * 40), *settings.secret_keys)
    site.app.state.settings = settings.model_copy(update={"secret_keys": newer})
    again = await site.client.post("/notes", content=body, headers=headers)
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    another = await site.client.post("/notes", content=b'{"text":"annat"}', headers=headers)
    the_problem(another, 422, "idempotency_mismatch")


async def test_a_key_whose_work_failed_is_free_again(site: Site) -> None:
    headers = {"Idempotency-Key": "k"}
    the_problem(
        await site.client.post("/notes", json={"text": "x", "parent": 9}, headers=headers), 500, "internal_error"
    )
    async with site.database.reading() as session:
        assert (await session.execute(select(idempotency.idempotency_keys))).all() == []
    assert (await site.client.post("/notes", json={"text": "x"}, headers=headers)).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"])
async def test_b11_a_key_that_is_none_is_refused(site: Site, key: str) -> None:
    answer = await site.client.post("/notes", json={"text": "x"}, headers={"Idempotency-Key": key})
    the_problem(answer, 400, "invalid_idempotency_key")


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        (b"", 422, "invalid_request", "/"),
        (b"{", 400, "malformed_json", None),
        (b"nonsense", 400, "malformed_json", None),
        (b"\xef\xbb\xbf{}", 400, "malformed_json", None),
        ('{"text":"x"}'.encode("utf-16"), 400, "malformed_json", None),
        ('{"text":"x"}'.encode("utf-16-le"), 400, "malformed_json", None),
        (b'{"text":"\xff"}', 400, "malformed_json", None),
        (b'{"text":"raw \x00 nul"}', 400, "malformed_json", None),
        (rb'{"text":"\ud800"}', 422, "invalid_text", "/text"),
        (rb'{"inner":{"\ud800":1}}', 422, "invalid_text", "/inner"),
        (rb'{"text":"nul \u0000"}', 422, "invalid_text", "/text"),
        (rb'{"\u0000":"x"}', 422, "invalid_text", "/"),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, bytes) else None,
)
async def test_b1_text_that_is_no_json_or_no_text_is_refused_and_the_place_named(
    site: Site, body: bytes, status: int, code: str, pointer: str | None
) -> None:
    document = await _refused(site, body, status, code, pointer)
    if code in ("malformed_json", "invalid_text"):
        assert re.search(r"\((character|byte) \d+\)", document["detail"])


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        (b'{"text":"a","text":"b"}', 422, "duplicate_field", "/text"),
        (b'{"text":"a","inner":{"b/c":1,"b/c":2}}', 422, "duplicate_field", "/inner/b~1c"),
        (b'{"text":"x","inner":{"a":[NaN]}}', 422, "invalid_number", "/inner/a/0"),
        (b'{"text":"x","inner":{"a":[-Infinity]}}', 422, "invalid_number", "/inner/a/0"),
        (b'{"text":"x","inner":{"a":[1,1e400]}}', 422, "invalid_number", "/inner/a/1"),
        (b'{"text":"x","parent":9223372036854775808}', 422, "invalid_number", "/parent"),
        (b'{"text":"x","parent":' + b"9" * 5000 + b"}", 422, "invalid_number", "/parent"),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, bytes) else None,
)
async def test_b2_json_with_more_than_one_meaning_is_refused_and_the_field_named(
    site: Site, body: bytes, status: int, code: str, pointer: str | None
) -> None:
    await _refused(site, body, status, code, pointer)


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        (b'{"text":' + b"[" * 10_000 + b"]" * 10_000 + b"}", 400, "malformed_json", None),
        (b'{"text":' + b"[" * 100 + b"]" * 100 + b"}", 400, "malformed_json", None),
        (b'{"text":"' + b"x" * 2_000_000 + b'"}', 413, "payload_too_large", None),
        (b"[" + b"1," * 900_000 + b"1]", 413, "payload_too_large", None),
        (b'{"text":"x","inner":{"a":[' + b'"y",' * 400_000 + b'"y"]}}', 413, "payload_too_large", None),
        (b"{%s}" % b",".join(b'"%x":1' % number for number in range(100_000)), 413, "payload_too_large", None),
        (
            b'{%s,"z":1,"z":2}' % b",".join(b'"%x":1' % number for number in range(150_000)),
            422,
            "duplicate_field",
            "/z",
        ),
        (b'{"%s":[%s1]}' % (b"n" * 1_000_000, b"1," * 100_000), 413, "payload_too_large", None),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, bytes) else None,
)
async def test_b3_what_is_too_deep_too_long_or_too_large_is_refused_in_time(
    site: Site, body: bytes, status: int, code: str, pointer: str | None
) -> None:
    await _refused(site, body, status, code, pointer)


async def test_b3_a_length_that_is_announced_is_answered_with_the_limit_and_the_size(site: Site) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await site.client.post("/notes", content=b" " * 11_000_000, headers=headers)
    document = the_problem(answer, 413, "payload_too_large")
    assert "11000000 bytes" in document["detail"]
    assert f"{MAX_BODY_BYTES} bytes" in document["detail"]


async def test_b16_of_parameters_without_number_the_first_hundred_are_named(site: Site) -> None:
    answer = await site.client.get("/api/formats?" + "&".join(f"p{number:05}" for number in range(8000)))
    assert len(the_problem(answer, 422, "invalid_request")["errors"]) == 100


async def test_b5_of_faults_without_number_the_first_hundred_are_named(site: Site) -> None:
    body = {"text": "x", **{f"no{number}": 1 for number in range(9000)}}
    document = the_problem(await site.client.post("/notes", json=body), 422, "invalid_request")
    assert [error["pointer"] for error in document["errors"]] == [f"/no{number}" for number in range(100)]
    assert "100 of 9000" in document["detail"]


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        (b'{"text":"x","id":7}', 422, "invalid_request", "/id"),
        (b'{"text":""}', 422, "invalid_request", "/text"),
        (b'{"text":"x","at":"2026-11-22T08:30:00"}', 422, "invalid_request", "/at"),
        (b'{"text":"x","at":"2026-02-30T08:30:00Z"}', 422, "invalid_request", "/at"),
        (b'{"text":"x","inner":{"a/b~c":["y"]}}', 422, "invalid_request", "/inner/a~1b~0c/0"),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, bytes) else None,
)
async def test_b5_what_is_not_there_to_be_set_and_what_has_the_wrong_form_is_named(
    site: Site, body: bytes, status: int, code: str, pointer: str | None
) -> None:
    await _refused(site, body, status, code, pointer)


async def _refused(site: Site, body: bytes, status: int, code: str, pointer: str | None) -> dict[str, Any]:
    began = time.monotonic()
    answer = await site.client.post("/notes", content=body, headers={"Content-Type": "application/json"})
    document = the_problem(answer, status, code)
    assert [error["pointer"] for error in document["errors"]] == ([pointer] if pointer else [])
    assert time.monotonic() - began < 5
    assert await site.count() == 0
    if status == 413:
        assert re.search(f"larger than {MAX_BODY_BYTES} bytes|more than {MAX_VALUES} values", document["detail"])
    return document


async def test_b3_a_body_that_has_no_end_is_cut_off(site: Site) -> None:
    """Chunked, without a length, and never finished."""
    assert await _stream(site.app, b"application/json") == (413, "payload_too_large", MAX_BODY_BYTES)


async def _stream(app: Any, content_type: bytes, *, chunk: bytes = b" " * 100_000) -> tuple[int, str, int]:
    """Speak ASGI ourselves: httpx2 would read the whole body before it sends any of it."""
    chunks, sent = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal chunks
        chunks += 1
        assert chunks < 1000, "100 MB were read"
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/notes", "raw_path": b"/notes", "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1),
        "server": ("test", 80), "headers": [(b"content-type", content_type), (b"transfer-encoding", b"chunked")],
    }  # fmt: skip
    await app(scope, receive, send)
    document = json.loads(sent[1]["body"])
    return sent[0]["status"], document["code"], int(re.sub(r"\D", "", document["detail"]))


@pytest.mark.parametrize(
    "content_type", [b"text/plain", b"multipart/form-data; boundary=x", b"application/octet-stream"]
)
async def test_b3_an_endless_body_of_another_type_is_not_read_either(site: Site, content_type: bytes) -> None:
    assert await _stream(site.app, content_type) == (413, "payload_too_large", MAX_OTHER_BYTES)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_b4_json_under_another_name_is_refused(site: Site, content_type: str) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    answer = await site.client.post("/notes", content=b'{"text":"x"}', headers=headers)
    the_problem(answer, 415, "unsupported_media_type")
    assert await site.count() == 0


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate, gzip", "identity, gzip"])
async def test_b4_a_packed_body_is_not_unpacked(site: Site, encoding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    answer = await site.client.post("/notes", content=BOMB, headers=headers)
    the_problem(answer, 415, "unsupported_media_type")
    assert answer.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("image/webp", 406),
        ("text/html,application/xhtml+xml", 406),
        ("application/json;q=0", 406),
        ("nonsense", 406),
        ("text/html, */*;q=0.1", 200),
        ("application/*", 200),
        ("application/json; charset=utf-8", 200),
        ("", 200),
    ],
)
async def test_b4_a_format_that_is_not_offered_is_said_so(site: Site, accept: str, status: int) -> None:
    answer = await site.client.get("/api/formats", headers={"Accept": accept})
    assert answer.status_code == status
    if status == 406:
        assert "application/json" in the_problem(answer, 406, "not_acceptable")["detail"]


async def test_b16_where_nothing_is_and_where_the_method_is_wrong(site: Site) -> None:
    the_problem(await site.client.get("/nowhere"), 404, "not_found")
    wrong = await site.client.put("/notes", json={})
    the_problem(wrong, 405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET, POST"
    traced = await site.client.request("TRACE", "/notes")
    the_problem(traced, 405, "method_not_allowed")
    assert traced.headers["allow"] == "GET, POST"
    for path in ("/%2e%2e/notes", "/%2e%2e%2f%2e%2e%2fetc/passwd", "//notes", "/notes%00", "/notes;x=1"):
        the_problem(await site.client.send(_raw(site, path)), 404, "not_found")
    assert (await site.client.get("/notes", params={"q": "x" * 8_000})).status_code == 200


def _raw(site: Site, path: str) -> httpx2.Request:
    """The path as it is written here: the client would tidy it up."""
    request = site.client.build_request("GET", "http://test/")
    request.url = request.url.copy_with(raw_path=path.encode())
    return request


async def test_b17_a_key_that_is_used_too_often_is_told_its_limit_and_no_other_is(site: Site) -> None:
    flood, other = await site.key(Scope.READ), await site.key(Scope.READ)
    site.app.state.rates.per_second = 2
    answers = [await site.client.get("/r", headers={"Authorization": f"Bearer {flood}"}) for _ in range(90)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert 0 < len(refused) <= 80, "ten at once, and two a second since"
    document = the_problem(refused[-1], 429, "too_many_requests")
    assert "2 times a second (requests_per_key)" in document["detail"]
    assert refused[-1].headers["retry-after"] == "1"
    assert (await site.client.get("/r", headers={"Authorization": f"Bearer {other}"})).status_code == 200
    assert (await site.client.get("/notes")).status_code == 200


async def test_b18_the_way_to_an_address_without_its_slash_names_no_host_that_a_caller_claims(site: Site) -> None:
    answer = await site.client.get("/notes/?a=1", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.headers["location"]) == (307, "/notes?a=1")


@pytest.mark.parametrize(
    "claim",
    [
        {"X-Forwarded-For": "10.0.0.1"},
        {"Forwarded": "for=10.0.0.1;host=evil.example"},
        {"X-Forwarded-Host": "evil.example"},
        {"X-User": "admin"},
        {"X-Forwarded-User": "admin"},
        {"X-Original-URL": "/a"},
        {"X-HTTP-Method-Override": "POST"},
        {"Host": "evil.example"},
    ],
)
async def test_b18_what_a_caller_claims_of_itself_opens_nothing(site: Site, claim: dict[str, str]) -> None:
    the_problem(await site.client.get("/a", headers=claim), 401, "unauthorized")
    answer = await site.client.get("/notes", headers=claim)
    assert answer.json() == {"count": 0}
    assert "evil" not in answer.text + str(answer.headers)


async def test_b16_a_query_parameter_is_named_with_a_question_mark(site: Site) -> None:
    document = the_problem(await site.client.get("/notes?limit=many"), 422, "invalid_request")
    (error,) = document["errors"]
    assert (error["pointer"], error["code"], error["message_sv"]) == ("?limit", "int_parsing", "Skriv ett heltal.")


async def test_b5_a_query_parameter_that_is_not_there_is_no_filter_that_takes_all(site: Site) -> None:
    site.app.add_api_route("/api/found", _found)
    assert (await site.client.get("/api/found?word=a")).json() == {"word": "a"}
    document = the_problem(await site.client.get("/api/found?wrod=a&word=b"), 422, "invalid_request")
    (error,) = document["errors"]
    assert (error["pointer"], error["code"]) == ("?wrod", "unknown_field")


async def _found(word: str) -> dict[str, str]:
    return {"word": word}


@pytest.mark.parametrize("status", [412, 428])
async def test_a_missing_or_old_if_match_is_named_with_its_mend(site: Site, status: int) -> None:
    async def refuse() -> None:
        raise problems.Problem(status)

    site.app.add_api_route("/api/changed", refuse)
    document = the_problem(await site.client.get("/api/changed"), status, problems.TITLES[status][0])
    (error,) = document["errors"]
    assert (error["pointer"], error["message"]) == ("?if-match", document["detail"])
    assert "ETag" in error["message_sv"]


async def test_the_input_is_never_repeated_in_the_answer(site: Site) -> None:
    secret = "eva@kalmar.example and much more of it"
    answer = await site.client.post("/notes", json={"text": secret, "parent": secret})
    assert "eva@" not in answer.text
    the_problem(answer, 422, "invalid_request")


@pytest.mark.parametrize("path", ["/notes", "/nowhere", "/crash", "/r", "/notes?limit=x", "/api/tests/openapi.json"])
async def test_every_answer_has_the_security_headers(site: Site, path: str) -> None:
    answer = await site.client.get(path, headers={"X-Correlation-Id": "click-1"})
    policy = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["style-src"] == policy["font-src"] == policy["form-action"] == "'self'"
    assert set(policy) == {
        "default-src",
        "base-uri",
        "frame-ancestors",
        "style-src",
        "font-src",
        "form-action",
        "img-src",
    }
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["x-correlation-id"] == "click-1"
    assert answer.headers.get("cache-control") == ("no-store" if path.startswith("/api/") else None)


async def test_a_correlation_id_that_is_somebodys_text_is_replaced(site: Site) -> None:
    answer = await site.client.get("/notes", headers={"X-Correlation-Id": "x' OR 1=1 --"})
    assert UUID(answer.headers["x-correlation-id"])


async def test_a_crash_tells_nothing_of_itself(site: Site) -> None:
    answer = await site.client.get("/crash")
    the_problem(answer, 500, "internal_error")
    assert "secret detail" not in answer.text


async def test_a_database_that_is_away_is_a_503_that_says_when_to_return(site: Site) -> None:
    @site.app.get("/away")
    async def away() -> None:
        raise OperationalError("select 1", {}, sqlite3.OperationalError("database is locked"))

    answer = await site.client.get("/away")
    the_problem(answer, 503, "database_unavailable")
    assert answer.headers["retry-after"] == "5"


async def test_b15_a_key_opens_what_its_scopes_say_and_admin_opens_all(site: Site) -> None:
    for scope, opens in (
        (Scope.READ, {"/r"}), (Scope.WRITE, {"/w"}), (Scope.PUBLISH, {"/p"}), (Scope.ADMIN, {"/r", "/w", "/p", "/a"}),
    ):  # fmt: skip
        headers = {"Authorization": f"Bearer {await site.key(scope)}"}
        statuses = {
            path: (await site.client.get(path, headers=headers)).status_code for path in ("/r", "/w", "/p", "/a")
        }
        assert statuses == {path: 200 if path in opens else 403 for path in statuses}


async def test_b15_what_is_no_key_is_refused_and_told_how(site: Site) -> None:
    good = await site.key(Scope.READ)
    wrong = [
        None, "", "Bearer", "Bearer ", f"Basic {good}", f"Bearer {good}x", f"Bearer {good[:-1]}", f"Bearer x{good}",
        "Bearer bk__", "Bearer bk_å_å", f"Bearer bk_{'0' * 12}_{good.split('_', 2)[2]}", "Bearer " + "x" * 10_000,
        f"Bearer {await site.key(Scope.READ, revoked_at=AT)}",
        f"Bearer {await site.key(Scope.READ, expires_at=AT)}",
    ]  # fmt: skip
    for value in wrong:
        headers = [] if value is None else [(b"Authorization", value.encode())]
        answer = await site.client.get("/r", headers=headers)
        the_problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert (await site.client.get("/r", headers={"Authorization": f"Bearer {good}"})).status_code == 200
    admin = await site.client.get("/a", headers={"Authorization": f"Bearer {ADMIN_KEY}"})
    assert admin.json() == {"caller": "admin"}


async def test_only_the_hash_of_a_key_is_stored(site: Site) -> None:
    key = await site.key(Scope.READ)
    async with site.database.reading() as session:
        (row,) = (await session.execute(select(keys.api_keys))).all()
    assert key.split("_", 2)[2] not in str(row)


async def test_a_form_has_its_problems_too(site: Site) -> None:
    document = the_problem(await site.client.post("/forms", data={"word": "too long"}), 422, "invalid_request")
    assert [error["pointer"] for error in document["errors"]] == ["/word"]
