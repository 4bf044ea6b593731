"""How endpoints fare, what their contacts are told and when, and sending again what was missed."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from standardwebhooks.webhooks import Webhook
from structlog.testing import capture_logs
from tests.integration.distributor.conftest import snapshot
from tests.integration.distributor.webhook_room import CLOCK, URL, HookRoom, care_worker, opened
from tests.servers.receiver import Answer, HttpReceiver

from distributor.channels import Outcome
from distributor.journal import Finished, Journal
from distributor.leases import Claimed
from shared.contracts.delivery import Channel, DeliveryState
from shared.contracts.news import Audience, ItemState, NewsCorrected, NewsPublished, NewsWithdrawn
from shared.database import Database

FAILS, WORKS, STOPPED, LOST = (
    "Insidan tar inte emot våra nyheter",
    "Insidan tar emot våra nyheter igen",
    "Vi har slutat skicka nyheter till Insidan",
    "Kontaktadressen för Insidan fungerar inte",
)


@pytest.fixture
async def hooks(database_url: str) -> AsyncIterator[HookRoom]:
    async with opened(database_url) as room:
        yield room


def ended(endpoint_id: UUID, code: int, *, counts: bool = True) -> Finished:
    """A webhook's end; of deliveries of no matter."""
    state = DeliveryState.SENT if code < 300 else DeliveryState.DEFERRED
    outcome = Outcome(state, code, phase="answer", counts=counts)
    blank = dict.fromkeys(Claimed._fields, "") | dict.fromkeys(("tries", "attempts", "repeats"), 0)
    known = {"id": uuid4(), "recipient_id": endpoint_id, "subject_id": uuid4(), "edition_id": None, "revision": 1}
    row = Claimed(**(blank | known | {"lease_owner": "me", "leased_from": "planned"}))
    return row, outcome


def journal(hooks: HookRoom, database: Database) -> Journal:
    return Journal(database, CLOCK, Channel.WEBHOOK, repeated_lanes=frozenset(range(4)), retry_scale=1)


async def noted(hooks: HookRoom, *answers: Finished) -> None:
    writing = journal(hooks, hooks.database)
    await writing.write(answers, 0)
    await writing.close()


async def test_failures_in_a_row_are_counted_over_all_deliveries(hooks: HookRoom) -> None:
    key, other = [await hooks.endpoint("http://127.0.0.1:8080/") for _ in range(2)]
    assert (await hooks.shown(key))["health"]["works"] is None
    await noted(hooks, ended(key, 500), ended(other, 200), ended(key, 404))
    await noted(hooks, ended(key, 503), ended(key, 500, counts=False))
    shown = (await hooks.shown(key))["health"]
    assert (shown["works"], shown["failures"], shown["last_status"]) == (False, 3, 503)
    assert shown["failing_since"] is not None
    assert shown["last_success_at"] is None
    await noted(hooks, ended(key, 500), ended(key, 204), ended(key, 502))
    shown = (await hooks.shown(key))["health"]
    assert (shown["failures"], shown["last_status"]) == (1, 502)
    assert shown["last_success_at"] is not None
    await noted(hooks, ended(key, 500), ended(key, 204))
    shown = (await hooks.shown(key))["health"]
    assert (shown["works"], shown["failures"], shown["failing_since"], shown["last_status"]) == (True, 0, None, 204)
    fares = (await hooks.shown(other))["health"]
    assert (fares["works"], fares["failures"], fares["last_status"]) == (True, 0, 200)
    assert (await hooks.shown(key))["version"] == 1
    listed = (await hooks.api.get(URL)).json()["data"]
    assert [endpoint["health"]["works"] for endpoint in listed] == [True, True]


async def test_two_senders_count_together(hooks: HookRoom) -> None:
    keys = [await hooks.endpoint("http://127.0.0.1:8080/") for _ in range(4)]
    second = Database(hooks.settings.database_url)

    async def record(database: Database, order: list[UUID]) -> None:
        writing = journal(hooks, database)
        for _ in range(25):
            await writing.write([ended(key, 500) for key in order], 0)
        await writing.close()

    await asyncio.gather(record(hooks.database, keys), record(second, keys[::-1]))
    await second.dispose()
    assert [(await hooks.shown(key))["health"]["failures"] for key in keys] == [50] * 4


async def test_a_success_writes_only_what_is_new(hooks: HookRoom) -> None:
    key = await hooks.endpoint("http://127.0.0.1:8080/")
    await noted(hooks, ended(key, 200))
    first = (await hooks.shown(key))["health"]
    await noted(hooks, ended(key, 200))
    assert (await hooks.shown(key))["health"] == first


async def test_the_contact_hears_of_failures_once_and_of_the_end(hooks: HookRoom) -> None:
    key = await hooks.endpoint("http://127.0.0.1:8080/hook")
    await noted(hooks, *[ended(key, 404)] * 3)
    await hooks.care()
    assert await hooks.mails() == []
    await noted(hooks, ended(key, 404))
    second = Database(hooks.settings.database_url)
    await asyncio.gather(care_worker(hooks.settings, hooks.database).step(), care_worker(hooks.settings, second).step())
    await second.dispose()
    await noted(hooks, ended(key, 404))
    await hooks.care()
    ((address, subject, words),) = await hooks.mails()
    assert (address, subject) == ("webb@nybro.example", FAILS)
    for told in ("http://127.0.0.1:8080/hook", "Servern svarade 404", "Vi försöker igen", "skicka ett prov"):
        assert told in words
    assert (await hooks.shown(key))["health"]["told"] == "failing"
    await noted(hooks, ended(key, 200))
    await hooks.care()
    assert await hooks.subjects() == [FAILS, WORKS]
    await noted(hooks, *[ended(key, 500)] * 4)
    await hooks.care()
    assert await hooks.subjects() == [FAILS, WORKS, FAILS]


async def test_where_no_mail_reaches_the_contact_the_office_hears_of_it_once(hooks: HookRoom) -> None:
    key = await hooks.endpoint("http://127.0.0.1:8080/hook")
    await noted(hooks, *[ended(key, 404)] * 4)
    await hooks.care()
    assert (await hooks.shown(key))["health"]["contact_bounced_at"] is None
    await hooks.all_mails_become("bounced")
    with capture_logs() as logs:
        await hooks.care()
        await hooks.all_mails_become("bounced")  # the office's as well: it is told once
        await hooks.care()
    assert [(line["log_level"], line["endpoint_id"]) for line in logs] == [("warning", str(key))]
    _, (address, subject, words) = await hooks.mails()
    assert (address, subject) == (hooks.settings.sender, LOST)
    assert "webb@nybro.example" in words
    assert (await hooks.shown(key))["health"]["contact_bounced_at"] is not None
    moved = {"contact_email": "ny@nybro.example"}
    await hooks.api.patch(f"{URL}/{key}", json=moved, headers={"If-Match": "*"})
    await hooks.care()
    assert [(address, subject) for address, subject, _ in await hooks.mails()][2:] == [("ny@nybro.example", FAILS)]
    assert (await hooks.shown(key))["health"]["contact_bounced_at"] is None
    await hooks.api.patch(f"{URL}/{key}", json=moved, headers={"If-Match": "*"})
    await hooks.care()
    assert len(await hooks.mails()) == 3, "the same contact again has heard of it"
    await hooks.all_mails_become("failed")
    await hooks.care()
    assert [address for address, *_ in await hooks.mails()][3:] == [hooks.settings.sender]


async def test_what_recovered_before_the_mail_is_not_told(hooks: HookRoom) -> None:
    key = await hooks.endpoint("http://127.0.0.1:8080/hook")
    await noted(hooks, *[ended(key, 404)] * 4, ended(key, 200))
    await hooks.care()
    assert await hooks.mails() == []


async def test_five_days_of_failures_disable_and_a_person_enables(hooks: HookRoom) -> None:
    key, well = [await hooks.endpoint("http://127.0.0.1:8080/hook") for _ in range(2)]
    await noted(hooks, *[ended(key, 500)] * 4, *[ended(well, 500)] * 4)
    await hooks.care()
    await noted(hooks, ended(well, 200))
    await hooks.care(later=timedelta(days=4, hours=23))
    assert (await hooks.shown(key))["state"] == "enabled"
    await hooks.care(later=timedelta(days=5, minutes=1))
    shown = await hooks.shown(key)
    assert (shown["state"], shown["disabled_reason"], shown["health"]["told"]) == ("disabled", "failing", "disabled")
    assert (await hooks.shown(well))["state"] == "enabled"
    assert sorted(await hooks.subjects()) == sorted([FAILS, FAILS, WORKS, STOPPED])
    await hooks.enable(key)
    await hooks.care(later=timedelta(days=6))
    shown = await hooks.shown(key)
    assert (shown["state"], shown["health"]["failures"], shown["health"]["failing_since"]) == ("enabled", 0, None)
    await noted(hooks, ended(key, 200))
    await hooks.care()
    assert list(await hooks.subjects()).count(WORKS) == 2


async def test_the_mails_link_opens_the_endpoints_page(hooks: HookRoom, http_receiver: HttpReceiver) -> None:
    key = await hooks.endpoint(http_receiver.url("/hook"))
    await noted(hooks, *[ended(key, 500)] * 4)
    await hooks.care()
    ((_, _, words),) = await hooks.mails()
    link = re.findall(r"https://forbundet\.example(/intranat/[\w.-]+)", words)[0]
    before = await hooks.shown(key)
    page = await hooks.api.get(link, headers={"Authorization": ""}, follow_redirects=True)
    assert page.status_code == 200
    assert "kommer inte fram" in page.text
    assert "script" not in page.text
    assert (page.headers["cache-control"], page.headers["referrer-policy"]) == ("no-store", "no-referrer")
    assert await hooks.shown(key) == before
    sample = await hooks.api.post(f"{link}/prov")
    assert "Provet kom fram" in sample.text
    assert len(http_receiver.requests) == 1
    assert (await hooks.shown(key))["health"]["works"] is True
    rotated = await hooks.api.post(f"{link}/hemlighet")
    secret = re.findall(r"whsec_[\w+/=]+", rotated.text)[0]
    assert secret not in (await hooks.api.get(link, follow_redirects=True)).text
    assert len((await hooks.shown(key))["secrets"]) == 2
    assert (await hooks.api.post(f"{link}/prov", headers={"Sec-Fetch-Site": "cross-site"})).status_code == 403
    english = await hooks.api.get(link, params={"lang": "en"}, follow_redirects=True)
    assert "Send a sample" in english.text
    for dead in (f"{link}x", "/intranat/a.b.c"):
        assert (await hooks.api.get(dead)).status_code == 404
        assert (await hooks.api.post(f"{dead}/prov")).status_code == 404
    moved = {"contact_email": "ny@nybro.example"}
    await hooks.api.patch(f"{URL}/{key}", json=moved, headers={"If-Match": "*"})
    assert (await hooks.api.get(link)).status_code == 404


async def test_recovering_sends_what_was_missed_once(hooks: HookRoom, http_receiver: HttpReceiver) -> None:
    key = await hooks.endpoint(http_receiver.url("/hook"))
    http_receiver.by_default(500)
    before = CLOCK.now()
    items = await hooks.publish(3)
    async with hooks.sending():
        await hooks.settled()
    assert await hooks.states() == {"failed": 3}
    corrected = snapshot(items[0].item_id, 2, ItemState.PUBLISHED)
    http_receiver.by_default(200)
    await hooks.room.hear(NewsCorrected(item=corrected, note="Rättat"))
    url, since = f"{URL}/{key}/recover", {"since": before.isoformat()}
    later = {"since": (CLOCK.now() + timedelta(hours=1)).isoformat()}
    assert (await hooks.api.post(url, json=later)).json() == {"replanned": 0}
    answer = await hooks.api.post(url, json=since)
    assert (answer.status_code, answer.json()) == (202, {"replanned": 3})  # one of them in its newer revision
    assert (await hooks.api.post(url, json=since)).json() == {"replanned": 0}
    async with hooks.sending():
        await hooks.settled()
    bodies = [json.loads(request.body)["data"] for request in http_receiver.requests[-3:]]
    told = [(body["item_id"], body["revision"]) for body in bodies]
    assert sorted(told) == sorted((str(item.item_id), 2 if item is items[0] else 1) for item in items)
    for body in ({}, {"since": "igår"}, {"since": "2026-11-22T10:00:00"}):
        assert (await hooks.api.post(url, json=body)).status_code == 422
    assert (await hooks.api.post(f"{URL}/{uuid4()}/recover", json=since)).status_code == 404
    await hooks.api.patch(f"{URL}/{key}", json={"state": "disabled"}, headers={"If-Match": "*"})
    refused = await hooks.api.post(url, json=since)
    assert (refused.status_code, refused.json()["code"]) == (409, "endpoint_disabled")


async def test_recovering_sends_what_was_published_while_the_endpoint_was_disabled(
    hooks: HookRoom, http_receiver: HttpReceiver
) -> None:
    before = CLOCK.now()
    await hooks.publish()  # older than the endpoint
    key = await hooks.endpoint(http_receiver.url("/hook"))
    await hooks.api.patch(f"{URL}/{key}", json={"state": "disabled"}, headers={"If-Match": "*"})
    kept, gone, other = await hooks.publish(3)
    withdrawn = snapshot(gone.item_id, 2, ItemState.WITHDRAWN)
    await hooks.room.hear(NewsWithdrawn(item=withdrawn, reason="Fel"))
    elsewhere = other.model_copy(update={"item_id": uuid4(), "audiences": (Audience.NEWSROOM,)})
    await hooks.room.hear(NewsPublished(item=elsewhere))
    corrected = snapshot(other.item_id, 2, ItemState.PUBLISHED)
    await hooks.room.hear(NewsCorrected(item=corrected, note="Rättat"))
    await hooks.enable(key)
    since = {"since": before.isoformat()}
    answers = [(await hooks.api.post(f"{URL}/{key}/recover", json=since)).json() for _ in range(2)]
    assert answers == [{"replanned": 2}, {"replanned": 0}]
    async with hooks.sending():
        await hooks.settled()
    told = [json.loads(request.body) for request in http_receiver.requests]
    assert {(one["data"]["item_id"], one["data"]["revision"]) for one in told} == {
        (str(kept.item_id), 1),
        (str(other.item_id), 2),
    }
    assert {one["type"] for one in told} == {"se.budkavle.news.published.v1"}


async def test_own_headers_go_with_every_try_and_stand_in_none(
    hooks: HookRoom, http_receiver: HttpReceiver, capfd: pytest.CaptureFixture[str]
) -> None:
    """With the first, the repeated, the one sent again by hand, and samples; though the answer repeats what was said."""
    own = {"Authorization": "Bearer h3mligt-4711", "X-Tenant": "nybro kommun"}
    key = await hooks.endpoint(http_receiver.url("/hook"), headers=own)
    echo = Answer(401, {}, b"<p>Authorization: Bearer h3mligt-4711 (h3mligt-4711), X-Tenant: nybro kommun</p>")
    http_receiver.script("/hook", echo, 410, echo, 200, echo, 200)
    await hooks.publish()
    async with hooks.sending():
        await hooks.settled()
        (delivery_id,) = {attempt.delivery_id for attempt in await hooks.tried()}
        await hooks.enable(key)
        assert (await hooks.api.post(f"/api/distributor/v1/deliveries/{delivery_id}/retry")).status_code == 202
        await hooks.settled()
    samples = [(await hooks.api.post(f"{URL}/{key}/test")).json() for _ in range(2)]
    assert [request.status for request in http_receiver.requests] == [401, 410, 401, 200, 401, 200]
    for request in http_receiver.requests:
        assert {name: request.header(name) for name in own} == own
        Webhook(hooks.secrets[key]).verify(request.body, request.header_map)
    replies = [attempt.reply for attempt in await hooks.tried()] + [samples[0]["reply"]]
    blotted = "<p>Authorization: [own header] ([own header]), X-Tenant: [own header]</p>"
    assert replies == [blotted, "", blotted, "", blotted]
    assert "h3mligt" not in "".join(capfd.readouterr())


async def test_attempts_are_shown_newest_first(hooks: HookRoom, http_receiver: HttpReceiver) -> None:
    key = await hooks.endpoint(http_receiver.url("/hook"))
    http_receiver.script("/hook", 500, 404, 503, 200)
    (item,) = await hooks.publish()
    async with hooks.sending():
        await hooks.settled()
    seen: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "3", **({"cursor": cursor} if cursor else {})}
        page = (await hooks.api.get(f"{URL}/{key}/attempts", params=query)).json()
        seen += page["data"]
        cursor = page["next_cursor"]
    assert [(one["code"], one["number"], one["state"]) for one in seen] == [
        (200, 4, "sent"),
        (503, 3, "deferred"),
        (404, 2, "deferred"),
        (500, 1, "deferred"),
    ]
    assert {one["item_id"] for one in seen} == {str(item.item_id)}
    for junk in ("x", "x.1", "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAA.x", "AAAAAAAAAAAAAAAAAAAAAA.²"):
        assert (await hooks.api.get(f"{URL}/{key}/attempts", params={"cursor": junk})).status_code == 422
    assert (await hooks.api.get(f"{URL}/{uuid4()}/attempts")).status_code == 404
