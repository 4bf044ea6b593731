"""The endpoints' API on both databases, as an operator meets it."""

import asyncio
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey
from sqlalchemy import text
from standardwebhooks.webhooks import Webhook
from tests.integration.distributor.conftest import snapshot
from tests.servers.receiver import HANG, Answer, HttpReceiver, redirect

from distributor.app import build
from distributor.settings import DistributorSettings
from distributor.webhooks.endpoints import disable, matching
from distributor.webhooks.models import DisabledReason
from shared import keys
from shared.clock import SystemClock
from shared.contracts.news import Audience
from shared.database import Database
from shared.keys import Scope

ADMIN = "a" * 40
URL = "/api/distributor/v1/endpoints"
WANTED = {
    "name": "Insidan",
    "organisation": "Nybro kommun",
    "url": "https://intranat.nybro.example/budkavle",
    "contact_email": "webb@nybro.example",
}
CLOCK = SystemClock()


@pytest.fixture
def settings(database_url: str) -> DistributorSettings:
    return DistributorSettings(
        database_url=database_url,
        broker_url="embedded:x",
        secret_keys="k" * 40,
        admin_key=ADMIN,
        public_url="http://localhost:8080",
        webhook_allow_loopback=True,
        webhook_timeout_s=0.5,
    )


@pytest.fixture
async def database(settings: DistributorSettings) -> AsyncIterator[Database]:
    opened = Database(settings.database_url)
    yield opened
    await opened.dispose()


@pytest.fixture
async def api(settings: DistributorSettings) -> AsyncIterator[httpx2.AsyncClient]:
    service = build(settings)
    transport = httpx2.ASGITransport(app=service.app)
    headers = {"Authorization": f"Bearer {ADMIN}"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://x", headers=headers) as client:
        yield client
    await service.database.dispose()


async def created(api: httpx2.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await api.post(URL, json={**WANTED, **changes})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def complaint(answer: httpx2.Response) -> tuple[int, str, str]:
    """Status, pointer and code of the first faulty field."""
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    field = problem["errors"][0] if problem["errors"] else {"pointer": "", "code": problem["code"]}
    return answer.status_code, field["pointer"], field["code"]


async def test_a_new_endpoint_shows_its_secret_once(api: httpx2.AsyncClient, database: Database) -> None:
    answer = await api.post(URL, json=WANTED)
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    endpoint = answer.json()
    assert endpoint["audiences"] == ["agency_official"]
    assert (endpoint["municipalities"], endpoint["topics"]) == ([], [])
    assert (endpoint["state"], endpoint["disabled_reason"], endpoint["version"]) == ("enabled", None, 1)
    secret = endpoint.pop("secret")
    assert Webhook(secret)
    read = await api.get(answer.headers["location"])
    assert read.json() == endpoint
    assert read.headers["etag"] == answer.headers["etag"] == '"1"'
    assert secret not in read.text + (await api.get(URL)).text
    async with database.reading() as session:
        stored = (await session.execute(text("SELECT sealed FROM endpoint_secrets"))).scalars().all()
    assert secret not in stored[0]


async def test_b34_a_secret_of_ones_own(api: httpx2.AsyncClient) -> None:
    secret = "whsec_" + b64encode(b"k" * 24).decode()
    assert (await created(api, secret=secret))["secret"] == secret
    assert await complaint(await api.post(URL, json={**WANTED, "secret": secret})) == (422, "/secret", "secret_reused")
    for wrong in ("whsec_" + b64encode(b"k" * 8).decode(), "whsec_" + b64encode(b"k" * 65).decode(), "whsec_!!", "abc"):
        assert (await complaint(await api.post(URL, json={**WANTED, "secret": wrong})))[:2] == (422, "/secret")
    assert len((await api.get(URL)).json()["data"]) == 1


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("url", "https://169.254.169.254/", "url_not_allowed"),
        ("url", "http://10.0.0.1/", "url_not_allowed"),
        ("url", "https://user@intranat.example/", "url_not_allowed"),
        ("url", "http://localhost:8080/", "url_not_allowed"),
        ("url", "", "string_too_short"),
        ("url", None, "string_type"),
        ("contact_email", "a@b", "invalid_email"),
        ("contact_email", "a@b.se\r\nBcc: x@y.se", "invalid_email"),
        ("contact_email", "inte en adress", "invalid_email"),
        ("name", "", "string_too_short"),
        ("name", "a\nb", "invalid_text"),
        ("name", "x" * 201, "string_too_long"),
        ("organisation", None, "string_type"),
        ("audiences", [], "too_short"),
        ("state", "paused", "enum"),
        ("headers", None, "dict_type"),
        ("headers", {f"X-{number}": "x" for number in range(6)}, "too_long"),
        ("version", 7, "unknown_field"),
    ],
)
async def test_b33_bad_fields_are_named(api: httpx2.AsyncClient, field: str, value: object, code: str) -> None:
    changed = await api.patch(f"{URL}/{(await created(api))['id']}", json={field: value}, headers={"If-Match": "*"})
    assert await complaint(changed) == (422, f"/{field}", code)
    if field != "state":
        assert await complaint(await api.post(URL, json={**WANTED, field: value})) == (422, f"/{field}", code)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("Host", "x", "header_not_allowed"),
        ("content-length", "0", "header_not_allowed"),
        ("Transfer_Encoding", "chunked", "header_not_allowed"),
        ("Webhook-Signature", "v1,x", "header_not_allowed"),
        ("Proxy-Authorization", "Basic x", "header_not_allowed"),
        ("USER-AGENT", "x", "header_not_allowed"),
        (":authority", "x", "invalid_header_name"),
        ("X-Key\r\nHost", "x", "invalid_header_name"),
        ("X-Key ", "x", "invalid_header_name"),
        ("X-Key", "a\r\nHost: x", "invalid_header_value"),
        ("X-Key", "a\n", "invalid_header_value"),
        ("X-Key", "a\0b", "invalid_text"),
        ("X-Key", "", "invalid_header_value"),
        ("X-Key", "nyckel-å", "invalid_header_value"),
        ("X-Key", 7, "string_type"),
        ("x-other", "x", "duplicate_header"),
    ],
)
async def test_b33_a_header_that_may_not_be_is_named(
    api: httpx2.AsyncClient, name: str, value: object, code: str
) -> None:
    endpoint = await created(api)
    wanted = {"headers": {"X-Other": "x", name: value}}
    refused = (422, f"/headers/{name}", code)
    assert await complaint(await api.post(URL, json={**WANTED, **wanted})) == refused
    answer = await api.patch(f"{URL}/{endpoint['id']}", json=wanted, headers={"If-Match": "*"})
    assert await complaint(answer) == refused
    (problem,) = answer.json()["errors"]
    assert all(len(problem[words]) > 10 for words in ("message", "message_sv"))
    assert len(str(value)) < 4 or str(value) not in problem["message"]
    assert (await api.get(f"{URL}/{endpoint['id']}")).json()["header_names"] == []


async def test_b33_own_headers_are_shown_by_name_alone_and_kept_sealed(
    api: httpx2.AsyncClient, database: Database, http_receiver: HttpReceiver
) -> None:
    secret, other = "Bearer h3mligt-4711", "k" * 32
    own = {"Authorization": secret, "X-Api-Key": other}
    once = {"Idempotency-Key": "h-1"}
    wanted = {**WANTED, "url": http_receiver.url("/hook"), "headers": own}
    answers = [await api.post(URL, json=wanted, headers=once) for _ in range(2)]
    url = answers[0].headers["location"]
    assert [answer.json()["header_names"] for answer in answers] == [["Authorization", "X-Api-Key"]] * 2
    answers += [await api.get(url), await api.get(URL), await api.post(f"{url}/test")]
    (request,) = http_receiver.requests
    assert {name: request.header(name) for name in own} == own
    assert [name.lower() for name, _ in request.headers].count("authorization") == 1
    answers.append(await api.patch(url, json={"name": "B"}, headers={"If-Match": "*"}))
    for answer in answers:
        assert answer.status_code in (200, 201)
        assert "h3mligt" not in answer.text
        assert other not in answer.text
    for table in ("endpoints", "idempotency_keys", "outbox"):
        async with database.reading() as session:
            rows = (await session.execute(text(f"SELECT * FROM {table}"))).all()
        assert "h3mligt" not in repr(rows)
        assert other not in repr(rows)


async def test_own_headers_are_replaced_together_and_taken_away(
    api: httpx2.AsyncClient, database: Database, http_receiver: HttpReceiver
) -> None:
    endpoint = await created(api, url=http_receiver.url("/hook"), headers={"X-Old": "aaaaaaaa", "X-Kept": "bbbbbbbb"})
    url, any_version = f"{URL}/{endpoint['id']}", {"If-Match": "*"}

    async def arrives() -> list[str | None]:
        assert (await api.post(f"{url}/test")).json()["outcome"] == "sent"
        return [http_receiver.requests[-1].header(name) for name in ("X-Old", "X-Kept", "X-New")]

    assert await arrives() == ["aaaaaaaa", "bbbbbbbb", None]
    changed = await api.patch(url, json={"headers": {"X-New": "cccccccc"}}, headers=any_version)
    assert (changed.status_code, changed.json()["header_names"]) == (200, ["X-New"])
    assert await arrives() == [None, None, "cccccccc"]
    assert (await api.patch(url, json={"name": "B"}, headers=any_version)).json()["header_names"] == ["X-New"]
    assert await arrives() == [None, None, "cccccccc"]
    assert (await api.patch(url, json={"headers": {}}, headers=any_version)).json()["header_names"] == []
    assert await arrives() == [None, None, None]


async def test_own_headers_never_follow_to_another_server(api: httpx2.AsyncClient) -> None:
    """Or whoever may change an address could read a key that no answer shows."""
    url = f"{URL}/{(await created(api, headers={'X-Api-Key': 'hemligt-1'}))['id']}"
    any_version = {"If-Match": "*"}
    for elsewhere in (
        "https://annan.example/budkavle",
        "https://intranat.nybro.example:8443/budkavle",
        "http://intranat.nybro.example/budkavle",
    ):
        refused = await api.patch(url, json={"url": elsewhere}, headers=any_version)
        assert await complaint(refused) == (409, "/headers", "headers_needed")
    near = await api.patch(url, json={"url": "https://intranat.nybro.example/annat"}, headers=any_version)
    assert (near.status_code, near.json()["header_names"]) == (200, ["X-Api-Key"])
    moved = {"url": "https://annan.example/budkavle", "headers": {}}
    assert (await api.patch(url, json=moved, headers=any_version)).json()["header_names"] == []
    back = await api.patch(url, json={"url": WANTED["url"]}, headers=any_version)
    assert (back.status_code, back.json()["url"]) == (200, WANTED["url"])


async def test_unknown_words_in_filters_are_named(api: httpx2.AsyncClient) -> None:
    for field, value, wrong in (
        ("audiences", "everybody", "enum"),
        ("municipalities", "9999", "unknown_municipality"),
        ("topics", "cats", "unknown_topic"),
    ):
        status, pointer, code = await complaint(await api.post(URL, json={**WANTED, field: [value]}))
        assert (status, pointer.split("/")[1], code) == (422, field, wrong)


async def test_the_same_request_twice_is_one_endpoint(api: httpx2.AsyncClient, database: Database) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = await api.post(URL, json=WANTED, headers=headers)
    again = await api.post(URL, json=WANTED, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert len((await api.get(URL)).json()["data"]) == 1
    async with database.reading() as session:
        kept = (await session.execute(text("SELECT body FROM idempotency_keys"))).scalar_one()
    assert first.json()["secret"].encode() not in bytes(kept)
    other = await api.post(URL, json={**WANTED, "name": "Annan"}, headers=headers)
    assert await complaint(other) == (422, "?idempotency-key", "idempotency_mismatch")


async def test_ten_at_once_with_one_key_are_one_endpoint(api: httpx2.AsyncClient) -> None:
    posts = (api.post(URL, json=WANTED, headers={"Idempotency-Key": "k-1"}) for _ in range(10))
    answers = await asyncio.gather(*posts)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len({answer.json()["secret"] for answer in answers}) == 1


async def test_pages_hold_every_endpoint_once(api: httpx2.AsyncClient) -> None:
    made = [(await created(api, name=f"Nr {number}"))["id"] for number in range(5)]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await api.get(URL, params={"limit": "2", **({"cursor": cursor} if cursor else {})})).json()
        seen += [row["id"] for row in page["data"]]
        cursor = page["next_cursor"]
    assert seen == made
    assert await complaint(await api.get(URL, params={"cursor": "junk"})) == (422, "?cursor", "invalid_cursor")


async def test_a_change_names_the_version_it_was_made_from(api: httpx2.AsyncClient) -> None:
    url = f"{URL}/{(await created(api))['id']}"
    assert (await api.patch(url, json={"name": "B"})).status_code == 428
    for stale in ('"2"', '"0"', 'W/"1"', "1", '"x"', '"' + "9" * 30 + '"'):
        assert (await api.patch(url, json={"name": "B"}, headers={"If-Match": stale})).status_code == 412
    changed = await api.patch(url, json={"name": "B", "topics": ["results"]}, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    assert (changed.json()["name"], changed.json()["topics"]) == ("B", ["results"])
    assert changed.json()["organisation"] == WANTED["organisation"]
    assert (await api.get(url)).json() == changed.json()


async def test_of_two_changes_at_once_one_wins(api: httpx2.AsyncClient) -> None:
    url = f"{URL}/{(await created(api))['id']}"
    changes = (api.patch(url, json={"name": name}, headers={"If-Match": '"1"'}) for name in "ABCD")
    assert sorted(answer.status_code for answer in await asyncio.gather(*changes)) == [200, 412, 412, 412]


async def test_disabling_by_hand_and_enabling_again(api: httpx2.AsyncClient, database: Database) -> None:
    endpoint_id = (await created(api))["id"]
    url, any_version = f"{URL}/{endpoint_id}", {"If-Match": "*"}
    off = (await api.patch(url, json={"state": "disabled"}, headers=any_version)).json()
    assert (off["state"], off["disabled_reason"]) == ("disabled", "by_hand")
    on = (await api.patch(url, json={"state": "enabled"}, headers=any_version)).json()
    assert (on["state"], on["disabled_reason"]) == ("enabled", None)
    async with database.transaction() as session:
        assert await disable(session, UUID(endpoint_id), DisabledReason.GONE, CLOCK.now())
        assert not await disable(session, UUID(endpoint_id), DisabledReason.GONE, CLOCK.now())
    gone = (await api.get(url)).json()
    assert (gone["state"], gone["disabled_reason"], gone["version"]) == ("disabled", "gone", 4)


async def test_deleting(api: httpx2.AsyncClient, database: Database) -> None:
    url = f"{URL}/{(await created(api))['id']}"
    assert (await api.delete(url, headers={"If-Match": '"7"'})).status_code == 412
    assert (await api.delete(url, headers={"If-Match": '"1"'})).status_code == 204
    for answer in (await api.get(url), await api.delete(url), await api.post(f"{url}/test")):
        assert await complaint(answer) == (404, "", "unknown_endpoint")
    assert (await api.patch(url, json={"name": "B"}, headers={"If-Match": "*"})).status_code == 404
    assert (await api.post(f"{url}/secrets", json={})).status_code == 404
    async with database.reading() as session:
        assert (await session.execute(text("SELECT count(*) FROM endpoint_secrets"))).scalar_one() == 0


async def test_who_may_do_what(api: httpx2.AsyncClient, database: Database) -> None:
    endpoint = await created(api)
    url = f"{URL}/{endpoint['id']}"
    async with database.transaction() as session:
        reader = await keys.create(session, name="läsare", scopes=[Scope.READ], at=CLOCK.now())
    calls = (
        ("GET", URL),
        ("GET", url),
        ("POST", URL),
        ("PATCH", url),
        ("DELETE", url),
        ("POST", f"{url}/test"),
        ("POST", f"{url}/secrets"),
        ("GET", f"{url}/attempts"),
        ("POST", f"{url}/recover"),
    )
    for method, path in calls:
        body = None if method == "GET" or path.endswith("/test") else {}
        nobody = await api.request(method, path, json=body, headers={"Authorization": ""})
        assert (nobody.status_code, nobody.headers["www-authenticate"]) == (401, 'Bearer realm="budkavle"')
        answer = await api.request(method, path, json=body, headers={"Authorization": f"Bearer {reader}"})
        assert answer.status_code == (200 if method == "GET" else 403)


async def test_rotating_with_an_overlap(api: httpx2.AsyncClient, http_receiver: HttpReceiver) -> None:
    endpoint = await created(api, url=http_receiver.url("/hook"))
    url = f"{URL}/{endpoint['id']}"
    headers = {"Idempotency-Key": "r-1"}
    rotated = await api.post(f"{url}/secrets", json={"overlap_h": 2}, headers=headers)
    assert rotated.status_code == 201
    assert (await api.post(f"{url}/secrets", json={"overlap_h": 2}, headers=headers)).json() == rotated.json()
    shown = (await api.get(url)).json()
    assert [secret["retires_at"] is None for secret in shown["secrets"]] == [True, False]
    assert shown["version"] == 2
    assert (await api.post(f"{url}/test")).json()["outcome"] == "sent"
    (request,) = http_receiver.requests
    for secret in (endpoint["secret"], rotated.json()["secret"]):
        assert Webhook(secret).verify(request.body, request.header_map)
    assert (await api.post(f"{url}/secrets", json={"overlap_h": 0})).status_code == 201
    assert len((await api.get(url)).json()["secrets"]) == 1


async def test_an_ed25519_key_signs_beside_the_secret(api: httpx2.AsyncClient, http_receiver: HttpReceiver) -> None:
    endpoint = await created(api, url=http_receiver.url("/hook"))
    url = f"{URL}/{endpoint['id']}"
    made = await api.post(f"{url}/secrets", json={"algorithm": "ed25519"})
    assert (made.status_code, made.json()["secret"]) == (201, None)
    shown = (await api.get(url)).json()["secrets"]
    assert [(one["algorithm"], one["retires_at"]) for one in shown] == [("ed25519", None), ("hmac", None)]
    assert shown[0]["public_key"] == made.json()["public_key"]
    assert "whsk_" not in made.text + (await api.get(url)).text
    assert (await api.post(f"{url}/test")).json()["outcome"] == "sent"
    (request,) = http_receiver.requests
    Webhook(endpoint["secret"]).verify(request.body, request.header_map)
    signatures = dict(part.split(",", 1) for part in (request.header("webhook-signature") or "").split())
    content = f"{request.header('webhook-id')}.{request.header('webhook-timestamp')}.".encode() + request.body
    public = b64decode(made.json()["public_key"].removeprefix("whpk_"))
    VerifyKey(public).verify(content, b64decode(signatures["v1a"]))  # libsodium; we sign with OpenSSL
    with pytest.raises(BadSignatureError):
        VerifyKey(public).verify(content + b" ", b64decode(signatures["v1a"]))
    own = {"algorithm": "ed25519", "secret": endpoint["secret"]}
    assert await complaint(await api.post(f"{url}/secrets", json=own)) == (422, "/secret", "invalid_secret")


async def test_secrets_do_not_pile_up(api: httpx2.AsyncClient) -> None:
    url = f"{URL}/{(await created(api))['id']}"
    statuses = [(await api.post(f"{url}/secrets", json={})).status_code for _ in range(6)]
    assert statuses == [201, 201, 201, 201, 409, 409]
    assert (await api.post(f"{url}/secrets", json={"overlap_h": 0})).status_code == 201
    for wrong in ({"overlap_h": -1}, {"overlap_h": 169}, {"overlap_h": "x"}, {"secret": "short"}):
        assert (await api.post(f"{url}/secrets", json=wrong)).status_code == 422


async def test_trying_an_endpoint_out(api: httpx2.AsyncClient, http_receiver: HttpReceiver, database: Database) -> None:
    endpoint = await created(api, url=http_receiver.url("/hook"))
    url = f"{URL}/{endpoint['id']}"
    http_receiver.script(
        "/hook", Answer(200, {}, b"v\xe4l\x1b[0m mottaget"), 500, 410, redirect("http://127.0.0.1:1/"), HANG
    )
    results = [(await api.post(f"{url}/test")).json() for _ in range(5)]
    assert [(result["outcome"], result["status"], result["failure"]) for result in results] == [
        ("sent", 200, None),
        ("deferred", 500, None),
        ("failed", 410, None),
        ("deferred", 302, None),
        ("deferred", None, "timeout"),
    ]
    assert results[0]["reply"] == "v\\xe4l\\x1b[0m mottaget"
    assert all(0 <= result["duration_ms"] < 3000 for result in results)
    told = Webhook(endpoint["secret"]).verify(http_receiver.requests[0].body, http_receiver.requests[0].header_map)
    assert (told["type"], told["data"]["endpoint_id"]) == ("se.budkavle.endpoint.tested.v1", endpoint["id"])
    assert len({request.header("webhook-id") for request in http_receiver.requests}) == 5
    assert (await api.get(url)).json()["state"] == "enabled"
    async with database.reading() as session:
        assert (await session.execute(text("SELECT count(*) FROM deliveries"))).scalar_one() == 0


async def test_matching(api: httpx2.AsyncClient, database: Database) -> None:
    """A hand-written truth table: an empty filter on either side means all."""
    wishes: dict[str, dict[str, Any]] = {
        "everything": {},
        "kalmar": {"municipalities": ["0880"]},
        "kalmar and nybro": {"municipalities": ["0880", "0881"]},
        "results": {"topics": ["results"]},
        "young in kalmar": {"municipalities": ["0880"], "topics": ["young_adults"]},
        "public": {"audiences": ["public"]},
        "public and politicians": {"audiences": ["public", "politician"]},
        "disabled": {},
    }
    ids = {UUID((await created(api, **wish))["id"]): name for name, wish in wishes.items()}
    disabled = next(endpoint_id for endpoint_id, name in ids.items() if name == "disabled")
    await api.patch(f"{URL}/{disabled}", json={"state": "disabled"}, headers={"If-Match": "*"})

    async def matched(
        *audiences: Audience, municipalities: tuple[str, ...] = (), topics: tuple[str, ...] = ()
    ) -> set[str]:
        item = snapshot(uuid4(), audiences=audiences, municipalities=municipalities, topics=topics)
        async with database.reading() as session:
            return {ids[endpoint_id] for endpoint_id in await matching(session, item)}

    officials = {"everything", "kalmar", "kalmar and nybro", "results", "young in kalmar"}
    official = Audience.AGENCY_OFFICIAL
    assert await matched(official) == officials
    assert await matched(official, municipalities=("0881",)) == {"everything", "kalmar and nybro", "results"}
    assert await matched(official, municipalities=("0821", "0880")) == officials
    assert await matched(official, municipalities=("0821",), topics=("results",)) == {"everything", "results"}
    assert await matched(official, topics=("young_adults",)) == {
        "everything",
        "kalmar",
        "kalmar and nybro",
        "young in kalmar",
    }
    assert await matched(official, topics=("mental_health",)) == {"everything", "kalmar", "kalmar and nybro"}
    assert await matched(Audience.PUBLIC) == {"public", "public and politicians"}
    assert await matched(Audience.POLITICIAN) == {"public and politicians"}
    assert await matched(Audience.NEWSROOM) == set()
    assert await matched(Audience.POLITICIAN, official) == officials | {"public and politicians"}
    assert await matched() == set()
