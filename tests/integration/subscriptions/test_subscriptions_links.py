"""The links of a mail, as readers, mail providers, scanners and strangers use them."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import html5lib
import pytest
from httpx2 import ASGITransport, AsyncClient
from tests.integration.subscriptions.conftest import Register, emitted

import subscriptions.web
from shared.clock import FixedClock
from shared.contracts.news import Audience
from shared.database import Database
from shared.service import Service
from shared.tokens import TokenSigner
from subscriptions.links import Links

URLENCODED = {"content-type": "application/x-www-form-urlencoded"}
ONE_CLICK = {"List-Unsubscribe": "One-Click"}
OWN = {"sec-fetch-site": "same-origin", "origin": "null"}


@pytest.fixture
async def politician(register: Register) -> str:
    council = await register.organisation("council", "Kommunfullmäktige")
    role = {"audience": "politician", "organisation_id": council, "municipalities": ["0880"]}
    return await register.person("anna.andersson@kalmar.example", role)


@pytest.fixture
def out(service: Service, politician: str) -> str:
    return link(service, politician)


@pytest.fixture
def page(service: Service, politician: str) -> str:
    url: str = service.app.state.links.preferences(UUID(politician), 1)
    return url


def link(service: Service, subscriber_id: str, audience: Audience = Audience.POLITICIAN) -> str:
    url: str = service.app.state.links.unsubscribe(UUID(subscriber_id), 1, audience)
    return url


async def shown(office: AsyncClient, subscriber_id: str) -> dict[str, Any]:
    return dict((await office.get(f"/api/subscriptions/v1/subscribers/{subscriber_id}")).json())


def check_page(html: str) -> None:
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    tree = parser.parse(html)
    assert len(tree.findall(".//h1")) == 1
    ids = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert "anna.andersson" not in html


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param({"data": ONE_CLICK}, 200, id="urlencoded"),
        pytest.param({"files": {"List-Unsubscribe": (None, "One-Click")}}, 200, id="multipart"),
        pytest.param({"data": ONE_CLICK, "headers": {"cookie": "session=abc; a=b"}}, 200, id="cookies"),
        pytest.param({"data": ONE_CLICK, "headers": {"origin": "https://mail.example", "sec-fetch-site": "cross-site"}}, 200, id="from anywhere"),
        pytest.param({"content": b""}, 400, id="empty"),
        pytest.param({"content": b"", "headers": URLENCODED}, 400, id="empty form"),
        pytest.param({"data": {"List-Unsubscribe": "Two-Click"}}, 400, id="wrong value"),
        pytest.param({"content": b"\xff\xfe{", "headers": URLENCODED}, 400, id="junk"),
        pytest.param({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, id="no boundary"),
        pytest.param({"content": b"a" * 70_000, "headers": URLENCODED}, 413, id="too large"),
    ],
)  # fmt: skip
async def test_b21_one_click(
    body: dict[str, Any], status: int, out: str, politician: str, reader: AsyncClient, office: AsyncClient
) -> None:
    answer = await reader.post(out, **body)
    assert answer.status_code == status
    check_page(answer.text)
    left = (await shown(office, politician))["left_audiences"]
    assert left == (["politician"] if status == 200 else [])


async def test_b21_one_click_twice_and_after_erasure(
    out: str, politician: str, reader: AsyncClient, office: AsyncClient, database: Database
) -> None:
    for _ in range(2):
        assert (await reader.post(out, data=ONE_CLICK)).status_code == 200
    stops = await emitted(database, "recipient.stopped")
    assert [(stop.data["scope"], stop.data["audience"]) for stop in stops] == [("audience", "politician")]
    assert (await office.delete(f"/api/subscriptions/v1/subscribers/{politician}")).status_code == 204
    before = len(await emitted(database))
    assert (await reader.post(out, data=ONE_CLICK)).status_code == 200
    assert (await reader.get(out)).status_code == 200
    assert len(await emitted(database)) == before


async def test_b20_scanners_change_nothing(
    out: str, page: str, politician: str, reader: AsyncClient, office: AsyncClient, database: Database
) -> None:
    before = await shown(office, politician)
    for url in (out, page):
        for agent in ("Mozilla/5.0", "SafeLinks", "Barracuda Sentinel", "Googlebot/2.1"):
            for method in ("GET", "HEAD"):
                headers = {"user-agent": agent, "purpose": "prefetch"}
                answer = await reader.request(method, url, headers=headers, follow_redirects=True)
                assert answer.status_code == 200
                assert answer.headers["cache-control"] == "no-store"
                assert answer.headers["referrer-policy"] == "no-referrer"
                assert "noindex" in answer.headers["x-robots-tag"]
    assert await shown(office, politician) == before
    assert await emitted(database) == []


async def test_the_button_and_the_way_back(out: str, politician: str, reader: AsyncClient, office: AsyncClient) -> None:
    asked = await reader.get(out)
    check_page(asked.text)
    assert "ledamot i kommunfullmäktige i Kalmar" in asked.text
    left = await reader.post(out, data={"action": "leave"}, headers=OWN)
    assert left.status_code == 200
    check_page(left.text)
    assert (await shown(office, politician))["left_audiences"] == ["politician"]
    back = await reader.post(out, data={"action": "come_back"}, headers=OWN)
    check_page(back.text)
    assert (await shown(office, politician))["left_audiences"] == []


async def test_who_had_ended_everything_gets_back_what_they_ask_for_and_no_more(
    register: Register, service: Service, reader: AsyncClient, office: AsyncClient
) -> None:
    group = await register.group("Samverkan", "0880")
    seat = {"audience": "collaboration_group", "group_id": group}
    cia = await register.person("cia@kalmar.example", seat, {"audience": "public"})
    links = service.app.state.links
    await reader.post(links.preferences(UUID(cia), 1), data={"action": "leave_all"}, headers=OWN)
    out = links.unsubscribe(UUID(cia), 1, Audience.PUBLIC)
    await reader.post(out, data={"action": "leave"}, headers=OWN)
    back = await reader.post(out, data={"action": "come_back"}, headers=OWN)
    assert "Du får de här mejlen igen" in back.text
    stands = await shown(office, cia)
    assert (stands["state"], stands["left_audiences"]) == ("active", ["collaboration_group"])


async def test_who_is_stopped_by_something_else_is_not_told_that_mail_comes_again(
    out: str, politician: str, reader: AsyncClient, office: AsyncClient
) -> None:
    await office.post(f"/api/subscriptions/v1/subscribers/{politician}/suppressions", json={"note": "Bad om det"})
    await reader.post(out, data={"action": "leave"}, headers=OWN)
    back = await reader.post(out, data={"action": "come_back"}, headers=OWN)
    check_page(back.text)
    assert "Du får de här mejlen igen" not in back.text
    assert "Mejlen till dig är pausade eller stoppade" in back.text
    (page,) = re.findall(r'href="(/prenumeration/[^"]+)"', back.text)
    assert (await reader.get(page)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "https://nyheter.example.evil.example", "sec-fetch-site": "same-origin"},
    ],
)
async def test_b22_another_site_cannot_post(
    headers: dict[str, str], out: str, page: str, politician: str, reader: AsyncClient, office: AsyncClient
) -> None:
    before = await shown(office, politician)
    for url, data in ((out, {"action": "leave"}), (page, {"action": "leave_all"}), (page, {})):
        assert (await reader.post(url, data=data, headers=headers)).status_code == 403
    assert await shown(office, politician) == before


async def test_b19_every_dead_link_gets_the_same_page(
    out: str, page: str, politician: str, register: Register, reader: AsyncClient, office: AsyncClient
) -> None:
    token, stranger = page.rpartition("/")[2], Links("", TokenSigner(["x" * 40]))
    kid, payload, mac = token.split(".")
    gone = await register.person("gone@kalmar.example")
    gone_page = Links("", TokenSigner(["k" * 40])).preferences(UUID(gone), 1)
    await office.delete(f"/api/subscriptions/v1/subscribers/{gone}")
    dead = [
        token[:-1],
        token[:10],
        f"{kid}.{payload}.{mac[:-1]}{'A' if mac[-1] != 'A' else 'B'}",
        f"{kid}.{payload}=.{mac}",
        f"{kid}..{mac}",
        "none." + payload + ".",
        out.rpartition("/")[2],
        stranger.preferences(UUID(politician), 1).rpartition("/")[2],
        gone_page.rpartition("/")[2],
        Links("", TokenSigner(["k" * 40])).preferences(UUID(politician), 2).rpartition("/")[2],
        "a" * 10_000,
    ]
    answers = [await reader.get(f"/prenumeration/{one}") for one in dead]
    assert {answer.status_code for answer in answers} == {404}
    pages = {answer.text.replace(one, "TOKEN") for one, answer in zip(dead, answers, strict=True)}
    assert len(pages) == 1
    assert "Länken gäller inte längre" in pages.pop()
    for one in (token, token[:-1], "a" * 10_000):
        assert (await reader.get(f"/avregistrera/{one}")).status_code == 404
        assert (await reader.post(f"/avregistrera/{one}", data=ONE_CLICK)).status_code == 404
        assert (await reader.post(f"/prenumeration/{one[:-2]}", data={})).status_code == 404


async def test_choices_are_saved_and_told(
    page: str, politician: str, reader: AsyncClient, office: AsyncClient, database: Database
) -> None:
    form = {
        "action": "save",
        "audiences": ["public"],
        "topics": ["results", "young_adults"],
        "municipalities": ["0880"],
        "paused_until": "2026-06-01",
    }
    answer = await reader.post(page, data=form, headers=OWN)
    assert answer.status_code == 303
    saved = await reader.get(answer.headers["location"])
    check_page(saved.text)
    assert "Dina val är sparade" in saved.text
    person = await shown(office, politician)
    assert person["left_audiences"] == ["politician"]
    assert [role["audience"] for role in person["roles"]] == ["politician", "public"]
    assert person["topics"] == ["results", "young_adults"]
    assert person["municipalities"] == ["0880"]
    assert person["paused_until"] == "2026-05-31T22:00:00Z"  # midnight in Kalmar
    stops = [
        (stop.data["scope"], stop.data["audience"], stop.data["until"]) for stop in await emitted(database, "recipient")
    ]
    assert sorted(stops, key=str) == [("all", None, "2026-05-31T22:00:00Z"), ("audience", "politician", None)]
    again = await reader.post(page, data=form, headers=OWN)
    assert again.status_code == 303
    assert (await shown(office, politician))["version"] == person["version"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"paused_until": "31/12"}, "Skriv datumet så här"),
        ({"paused_until": "2026-02-30"}, "Skriv datumet så här"),
        ({"paused_until": "2026-05-12"}, "Välj ett datum som inte har varit än"),
        ({"paused_until": "9999-12-31"}, "Välj ett datum inom fem år"),
        ({"topics": ["results", "football"]}, "Ett av valen finns inte längre"),
        ({"municipalities": ["0180"]}, "Ett av valen finns inte längre"),
        ({"audiences": ["newsroom"]}, "Ett av valen finns inte längre"),
        ({"audiences": ["<script>alert(1)</script>"]}, "Ett av valen finns inte längre"),
    ],
)
async def test_b27_bad_input_loses_nothing_typed(
    fields: dict[str, Any], message: str, page: str, politician: str, reader: AsyncClient, office: AsyncClient
) -> None:
    before = await shown(office, politician)
    form = {
        "action": "save",
        "audiences": ["politician"],
        "topics": ["mental_health"],
        "paused_until": "2026-07-01",
        **fields,
    }
    answer = await reader.post(page, data=form, headers=OWN)
    assert answer.status_code == 422
    check_page(answer.text)
    assert message in answer.text
    assert "<script>alert" not in answer.text
    assert f'value="{form["paused_until"]}"' in answer.text
    if "topics" not in fields:
        assert 'id="topics-mental_health" name="topics" value="mental_health" type="checkbox" checked' in answer.text
    assert await shown(office, politician) == before


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/x-www-form-urlencoded", b""),
        ("application/x-www-form-urlencoded", b"action=spara&topics=results"),
        ("application/x-www-form-urlencoded", b"topics[]=results"),
        ("application/json", b'{"action": "save", "topics": ["results"]}'),
        ("multipart/form-data", b"action=save"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="action"\r\n\r\nsave'),
    ],
)
async def test_b27_a_form_that_is_not_whole_changes_nothing(
    kind: str, body: bytes, page: str, politician: str, reader: AsyncClient, office: AsyncClient
) -> None:
    before = await shown(office, politician)
    answer = await reader.post(page, content=body, headers={**OWN, "Content-Type": kind})
    assert answer.status_code == 422
    check_page(answer.text)
    assert "så ingenting är ändrat" in answer.text
    assert await shown(office, politician) == before


async def test_leaving_it_all_and_beginning_again(
    page: str, politician: str, reader: AsyncClient, office: AsyncClient, database: Database
) -> None:
    for action, state in (("leave_all", "unsubscribed"), ("begin_again", "active")):
        answer = await reader.post(page, data={"action": action}, headers=OWN)
        assert answer.status_code == 303
        assert (await shown(office, politician))["state"] == state
        check_page((await reader.get(answer.headers["location"])).text)
    events = [envelope.type.split(".")[3] for envelope in await emitted(database, "recipient")]
    assert sorted(events) == ["resumed", "stopped"]


async def test_the_page_speaks_the_subscribers_language(
    register: Register, service: Service, reader: AsyncClient
) -> None:
    who = await register.person("eve@kalmar.example", {"audience": "public"}, locale="en")
    url = service.app.state.links.preferences(UUID(who), 1)
    english = await reader.get(url, headers={"accept-language": "sv"})
    assert '<html lang="en">' in english.text
    assert "Your subscription" in english.text
    swedish = await reader.get(url + "?lang=sv", headers={"accept-language": "en"})
    assert "Din prenumeration" in swedish.text
    for text in ("Du ", "Välj", "Spara"):
        assert text not in english.text


async def test_b24_a_new_link_is_mailed_and_tells_strangers_nothing(
    politician: str, reader: AsyncClient, database: Database, clock: FixedClock
) -> None:
    known = await reader.post("/prenumeration", data={"email": "Anna.Andersson@KALMAR.example"}, headers=OWN)
    unknown = await reader.post("/prenumeration", data={"email": "nobody@kalmar.example"}, headers=OWN)
    assert (known.status_code, known.text) == (unknown.status_code, unknown.text)
    await reader.post("/prenumeration", data={"email": "anna.andersson@kalmar.example"}, headers=OWN)
    [mail] = await emitted(database, "mail.requested")
    assert (mail.data["form"], mail.data["lane"], mail.data["subject_kind"]) == (
        "preferences",
        "transactional",
        "request",
    )
    assert (await reader.get(mail.data["request"]["action_url"])).status_code == 200
    clock.advance(timedelta(minutes=10))
    await reader.post("/prenumeration", data={"email": "anna.andersson@kalmar.example"}, headers=OWN)
    assert len(await emitted(database, "mail.requested")) == 2
    faulty = await reader.post("/prenumeration", data={"email": "anna.andersson@"}, headers=OWN)
    assert faulty.status_code == 422
    assert 'value="anna.andersson@"' in faulty.text


TOKEN_PATHS = [
    "/prenumeration/{}",
    "/prenumeration/uppgifter/{}",
    "/prenumeration/angra/{}",
    "/prenumeration/adress/{}",
    "/prenumeration/adress-tillbaka/{}",
    "/prenumeration/redaktion/{}",
    "/prenumeration/grupp/{}",
    "/prenumeration/grupp/medlemmar/{}",
    "/prenumeration/grupp/angra/{}",
    "/prenumeration/grupp/kvar/{}",
    "/prenumeration/inbjudan/{}",
    "/prenumerera/bekrafta/{}",
    "/avregistrera/{}",
]


@pytest.mark.parametrize("path", TOKEN_PATHS)
async def test_b19_every_bad_token_gets_one_page_on_every_path(path: str, page: str, reader: AsyncClient) -> None:
    """The token of a page that this path does not open, and what is made of it, by GET and by POST."""
    token = page.rpartition("/")[2]
    kid, payload, mac = token.split(".")
    if path == "/prenumeration/{}":
        token = payload = kid  # its own would open it
    header = "eyJhbGciOiJub25lIn0"  # {"alg":"none"}
    bad = [
        token,
        token[:-1],
        f"{kid}.{payload}.",
        f"{kid}.{payload}.{mac}=",
        f"{header}.{payload}.",
        "a" * 10_000,
        "%00",
    ]
    for send in (reader.get, reader.post):
        answers = [await send(path.format(one)) for one in bad]
        assert {answer.status_code for answer in answers} == {404}
        pages = {
            answer.text.replace(one, "TOKEN").replace("\0", "TOKEN") for one, answer in zip(bad, answers, strict=True)
        }
        assert len(pages) == 1
        assert 'href="/prenumer' in pages.pop(), "the way to a new one"
        assert {answer.headers["cache-control"] for answer in answers} == {"no-store"}


def test_b19_the_paths_are_all_that_take_a_token() -> None:
    sources = (Path(subscriptions.web.__file__).parent).rglob("*.py")
    found = [re.findall(r'router\.\w+\("(/[^"]*\{token\}[^"]*)"', source.read_text()) for source in sources]
    taken = {path.replace("{token}", "{}") for paths in found for path in paths}
    assert taken - {"/prenumeration/uppgifter/{}/export.json"} == set(TOKEN_PATHS)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_b27_ten_thousand_choices_are_too_many_and_none_is_saved(
    page: str, politician: str, reader: AsyncClient, office: AsyncClient
) -> None:
    before = await shown(office, politician)
    answer = await reader.post(page, data={"action": "save", "topics": ["results"] * 10_000}, headers=OWN)
    assert answer.status_code == 413
    check_page(answer.text)
    assert await shown(office, politician) == before


@pytest.mark.parametrize(
    "path", ["/prenumerera", "/prenumeration", "/prenumeration/x", "/avregistrera/x", "/kansli", "/nowhere"]
)
async def test_b30_every_page_has_the_strict_policy(path: str, reader: AsyncClient) -> None:
    answer = await reader.get(path, follow_redirects=True)
    policy = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert "script-src" not in policy and "'unsafe-inline'" not in str(policy)
    assert policy["form-action"] == "'self'"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("onward", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"])
async def test_b30_nobody_is_led_to_another_site(onward: str, page: str, reader: AsyncClient) -> None:
    for name in ("next", "vidare", "url", "return", "lang"):
        answer = await reader.post(page, params={name: onward}, data={"action": "leave_all"}, headers=OWN)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/prenumeration/")


async def test_a_link_is_exchanged_for_a_cookie_and_a_clean_address(
    page: str, politician: str, service: Service, reader: AsyncClient, office: AsyncClient, clock: FixedClock
) -> None:
    token = page.rpartition("/")[2]
    shown_page = await reader.get(f"{page}?lang=en")
    assert str(shown_page.url) == "https://nyheter.example/prenumeration/min-sida?lang=en"
    assert token not in shown_page.text
    given = shown_page.history[0]
    assert (given.status_code, given.headers["cache-control"]) == (303, "no-store")
    assert given.headers["referrer-policy"] == "no-referrer"
    name, *attributes = given.headers["set-cookie"].split("; ")
    assert name.startswith("__Host-budkavle-preferences=")
    assert {"HttpOnly", "Path=/", "SameSite=lax", "Secure"} == set(attributes)
    saved = await reader.post("/prenumeration/min-sida", data={"action": "leave_all"}, headers=OWN)
    assert saved.headers["location"] == "/prenumeration/min-sida?sparat=avslutat"
    assert (await reader.get(saved.headers["location"])).status_code == 200
    clock.advance(timedelta(hours=12))
    assert (await reader.get("/prenumeration/min-sida")).status_code == 404
    assert (await reader.get(page)).status_code == 200, "the link itself begins anew, for ever"
    await office.delete(f"/api/subscriptions/v1/subscribers/{politician}")
    assert (await reader.get("/prenumeration/min-sida")).status_code == 404


async def test_whoever_keeps_no_cookies_gets_the_page_under_its_own_address(
    page: str, service: Service, office: AsyncClient, politician: str
) -> None:
    async def forget(request: Any) -> None:
        request.headers.pop("cookie", None)

    hooks: dict[str, list[Any]] = {"request": [forget]}
    transport = ASGITransport(service.app)
    async with AsyncClient(transport=transport, base_url="https://nyheter.example", event_hooks=hooks) as strict:
        shown_page = await strict.get(page, follow_redirects=True)
        assert (shown_page.status_code, len(shown_page.history)) == (200, 1)
        assert f'action="{page.removeprefix("https://nyheter.example")}"' in shown_page.text
        assert (await strict.post(page, data={"action": "leave_all"}, headers=OWN)).status_code == 303
    assert (await shown(office, politician))["state"] == "unsubscribed"


@pytest.mark.parametrize(
    "headers", [{}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}]
)
async def test_b22_a_cookie_is_no_authority_for_another_site_or_for_silence(
    headers: dict[str, str], page: str, politician: str, reader: AsyncClient, office: AsyncClient
) -> None:
    await reader.get(page)
    answer = await reader.post("/prenumeration/min-sida", data={"action": "leave_all"}, headers=headers)
    assert answer.status_code == 403
    assert (await shown(office, politician))["state"] == "active"


async def test_b30_a_planted_cookie_opens_nothing(page: str, out: str, reader: AsyncClient) -> None:
    """The link's own token, another purpose's, another name's: only what we gave for this page counts."""
    for planted in (page.rpartition("/")[2], out.rpartition("/")[2], "x", ""):
        for name in ("__Host-budkavle-preferences", "budkavle-preferences"):
            answer = await reader.get("/prenumeration/min-sida", headers={"cookie": f"{name}={planted}"})
            assert answer.status_code == 404
    await reader.get(page)
    given = reader.cookies["__Host-budkavle-preferences"]
    for path in (
        "/prenumeration/grupp/min-sida",
        "/prenumeration/redaktion/min-sida",
        "/prenumeration/uppgifter/min-sida",
    ):
        assert (await reader.get(path)).status_code == 404
    assert (await reader.get(f"/prenumeration/{given}")).status_code == 404, "a visit is no link"
