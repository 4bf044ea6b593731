"""Scheduled publication, on both databases: at its time, once, as it was seen; or not at all, and the editor is told.

The service's clock stands still in November 2026. On PostgreSQL that is not the database's clock, and what is due goes by
the database's alone.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import event, select, text, update
from structlog.testing import capture_logs
from tests.content_service import Content, running_content

from content.models import Item
from content.schedule import LATE, ScheduleWorker
from content.swedish_time import swedish_time

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture
def worker(content: Content) -> ScheduleWorker:
    return worker_of(content)


@pytest.fixture
async def replica(database_url: str) -> AsyncIterator[Content]:
    """A second process's content, on the same database."""
    async with running_content(database_url) as replica:
        yield replica


def worker_of(content: Content) -> ScheduleWorker:
    (worker,) = content.service.workers
    assert isinstance(worker, ScheduleWorker)
    return worker


async def passes(content: Content, time: timedelta) -> None:
    """So much time, as far as what is scheduled can tell."""
    async with content.service.database.transaction() as session:
        waiting = (await session.execute(select(Item.id, Item.publish_at).where(Item.publish_at.is_not(None)))).all()
        for item_id, publish_at in waiting:
            await session.execute(update(Item).where(Item.id == item_id).values(publish_at=publish_at - time))


async def ask(content: Content, item, at, **headers):
    body = {"publish_at": at if isinstance(at, str) else at.isoformat()}
    return await content.api.post(f"/items/{item['id']}/publish", json=body, headers=headers)


async def scheduled(content: Content, after: timedelta = HOUR, **fields):
    """A draft that is to be published after so long."""
    answer = await ask(content, await content.draft(**fields), await content.present() + after)
    assert answer.status_code == 202, answer.text
    return answer.json()


async def look(content: Content, item):
    answer = await content.api.get(f"/items/{item['id']}")
    assert answer.status_code == 200
    return answer.json()


def told(answer):
    assert answer.headers["content-type"] == "application/problem+json"
    return {error["pointer"]: error["code"] for error in answer.json()["errors"]}


async def test_a_draft_is_published_at_its_time_in_the_name_and_under_the_id_of_who_asked(content, worker):
    draft, at = await content.draft(title="I morgon"), (await content.present()) + 2 * HOUR
    trail = {"X-Correlation-Id": "kalle-17", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    key = await content.key("publish")
    answer = await ask(content, draft, swedish_time(at), **trail, **key)
    item = answer.json()
    assert (answer.status_code, item["state"], item["revision"], item["url"]) == (202, "draft", 0, None)
    assert datetime.fromisoformat(item["publish_at"]) == at
    assert await look(content, draft) == item
    assert (await content.api.get("/items?schedule=waiting")).json()["data"] == [item]
    assert await worker.advance()
    assert await content.outbox() == []
    assert "I morgon" not in (await content.site.get("/")).text

    await passes(content, 2 * HOUR)
    assert await worker.advance()
    public = await look(content, draft)
    assert (public["state"], public["revision"], public["publish_at"]) == ("published", 1, None)
    assert "I morgon" in (await content.site.get("/")).text
    (published,) = await content.outbox()
    assert (published["type"], published["subject"]) == ("se.budkavle.news.published.v1", draft["id"])
    assert (published["correlationid"], published["traceparent"]) == ("kalle-17", trail["traceparent"])
    (revision,) = (await content.api.get(f"/items/{draft['id']}/revisions")).json()["data"]
    assert revision["made_by"] == key["Authorization"].split("_")[1]
    assert (await content.api.get("/items?schedule=waiting")).json()["data"] == []
    assert await worker.advance()
    assert len(await content.outbox()) == 1


async def test_it_can_be_given_another_time_and_be_published_at_once(content, worker):
    item = await scheduled(content)
    path = f"/items/{item['id']}"
    stale = (await content.api.get(path)).headers["etag"]
    later = await ask(content, item, await content.present() + 3 * HOUR, **{"If-Match": stale})
    assert later.status_code == 202
    assert later.headers["etag"] == (await content.api.get(path)).headers["etag"] != stale
    assert (await ask(content, item, await content.present() + HOUR, **{"If-Match": stale})).status_code == 412
    await passes(content, 2 * HOUR)
    assert await worker.advance()
    assert await content.outbox() == []
    assert (await content.api.post(f"{path}/publish")).json()["state"] == "published"
    await passes(content, 2 * HOUR)
    assert await worker.advance()
    assert len(await content.outbox()) == 1
    again = await ask(content, item, await content.present() + HOUR)
    assert (again.status_code, told(again)) == (409, {"/state": "published"})


async def test_unscheduling_is_said_as_often_as_one_likes_and_is_told_when_it_is_too_late(content, worker):
    item = await scheduled(content)
    unschedule = f"/items/{item['id']}/unschedule"
    answers = [await content.api.post(unschedule) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["publish_at"] for answer in answers} == {None}
    assert len({answer.headers["etag"] for answer in answers}) == 1
    await ask(content, item, await content.present() + HOUR)
    at_once = await asyncio.gather(*(content.api.post(unschedule) for _ in range(5)))
    assert {answer.status_code for answer in at_once} == {200}
    await passes(content, 2 * HOUR)
    assert await worker.advance()
    assert await content.outbox() == []
    await ask(content, item, await content.present() + HOUR)
    await passes(content, HOUR)
    assert await worker.advance()
    late = await content.api.post(unschedule)
    assert (late.status_code, told(late)) == (409, {"/state": "published"})


async def test_what_goes_out_is_what_was_seen(content, worker):
    """Who may write but not publish changes nothing of it, neither its text nor its time."""
    item = await scheduled(content, body="Som det sågs")
    path, writer = f"/items/{item['id']}", await content.key("read", "write")
    for headers in ({}, writer):
        edit = await content.api.patch(path, json={"body": "x"}, headers={"If-Match": "*", **headers})
        assert (edit.status_code, edit.json()["code"], told(edit)) == (409, "scheduled", {"/publish_at": "scheduled"})
        assert swedish_time(datetime.fromisoformat(item["publish_at"])) in edit.json()["detail"]
    assert (await content.api.post(f"{path}/unschedule", headers=writer)).status_code == 403
    assert (await ask(content, item, await content.present() + MINUTE, **writer)).status_code == 403
    assert await look(content, item) == item
    await content.api.post(f"{path}/unschedule")
    assert (await content.edited(item["id"], body="Ändrat"))["body"] == "Ändrat"


async def test_what_publication_needs_is_asked_for_when_it_is_scheduled(content):
    draft = await content.draft(kind="press_release")
    answer = await ask(content, draft, await content.present() + HOUR)
    assert (answer.status_code, told(answer)) == (422, {"/contacts": "needed_to_publish"})
    assert await look(content, draft) == draft
    nowhere = {"id": "01890c5e-8a2b-7c3d-9e4f-5a6b7c8d9e0f"}
    assert (await ask(content, nowhere, await content.present() + HOUR)).status_code == 404
    assert (await content.api.post(f"/items/{nowhere['id']}/unschedule")).status_code == 404


async def test_b11_a_retry_under_the_same_key_is_the_same_act(content, worker):
    draft, at, key = await content.draft(), await content.present() + HOUR, {"Idempotency-Key": "i-morgon"}
    answers = await asyncio.gather(*(ask(content, draft, at, **key) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.headers["etag"] for answer in answers}) == 1
    other = await ask(content, draft, at + HOUR, **key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    await passes(content, HOUR)
    assert await worker.advance()
    again = await ask(content, draft, at, **key)
    assert (again.status_code, again.json()) == (202, answers[0].json())
    assert len(await content.outbox()) == 1


OTHER_TIMES = [
    ("2020-01-01T08:30:00+01:00", "time_has_passed", "such as 20"),
    ("0001-01-01T00:00:00+23:59", "time_has_passed", "such as 20"),
    ("9999-12-31T23:59:59+01:00", "time_too_far", "until 20"),
    ("2027-03-28T02:30:00+01:00", "no_such_time", "2027-03-28T03:30:00+02:00"),
    ("2027-03-28T02:30", "no_such_time", "2027-03-28T01:30:00+01:00"),
    ("2027-10-31T02:30", "timezone_aware", "2027-10-31T02:30:00+02:00 or 2027-10-31T02:30:00+01:00"),
    ("2026-12-01T08:30:00", "timezone_aware", "2026-12-01T08:30:00+01:00"),
    ("2026-02-30T08:30:00+01:00", "datetime_parsing", "2026-12-01T08:30:00+01:00"),
    ("i morgon", "datetime_parsing", "2026-12-01T08:30:00+01:00"),
    ("1796112000", "datetime_parsing", "2026-12-01T08:30:00+01:00"),
    (1796112000, "datetime_parsing", "2026-12-01T08:30:00+01:00"),
    (None, "datetime_parsing", "2026-12-01T08:30:00+01:00"),
    (["2026-12-01T08:30:00+01:00"], "datetime_parsing", "2026-12-01T08:30:00+01:00"),
]


async def test_b10_a_time_that_is_none_is_refused_with_one_that_is(content):
    draft = await content.draft()
    for written, code, example in OTHER_TIMES:
        answer = await content.api.post(f"/items/{draft['id']}/publish", json={"publish_at": written})
        assert (answer.status_code, told(answer)) == (422, {"/publish_at": code}), written
        (error,) = answer.json()["errors"]
        assert example in error["message"]
        assert error["message_sv"]
    assert await look(content, draft) == draft
    assert await content.outbox() == []


async def test_b10_the_first_and_the_last_time_that_may_be(content):
    """What a refusal names is taken."""
    draft, present = await content.draft(), await content.present()
    for refused in (present - MINUTE, present + timedelta(days=367)):
        answer = await ask(content, draft, refused)
        assert answer.status_code == 422
        named = [word.strip(",.") for word in answer.json()["errors"][0]["message"].split() if word.startswith("20")]
        assert (await ask(content, draft, named[0])).status_code == 202, named


async def test_b10_a_body_that_is_no_time_publishes_nothing(content):
    """Nothing is sent at once because somebody's program sent the time in a form that is not read."""
    draft, later = await content.draft(), b'{"publish_at": "2027-01-01T08:30:00+01:00"}'
    path = f"/items/{draft['id']}/publish"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    wrong = [
        (415, await content.api.post(path, content=later)),
        (415, await content.api.post(path, content=later, headers=form)),
        (415, await content.api.post(path, content=later, headers={"Content-Type": "text/plain"})),
        (422, await content.api.post(path, json={"publishAt": "2027-01-01T08:30:00+01:00"})),
        (422, await content.api.post(path, json=[])),
        (422, await content.api.post(path, json="2027-01-01T08:30:00+01:00")),
        (422, await content.api.post(f"{path}?publish_at=2027-01-01T08:30:00%2B01:00")),
        (400, await content.api.post(path, content=later[:-1], headers={"Content-Type": "application/json"})),
    ]
    assert [answer.status_code for _, answer in wrong] == [status for status, _ in wrong]
    assert await look(content, draft) == draft
    at_once = await content.api.post(path, json={})
    assert (at_once.status_code, at_once.json()["state"]) == (202, "published")


async def test_f35_what_is_over_an_hour_late_is_missed_and_its_editor_told(content, worker):
    """A backup that was put back, a machine that slept: the morning's news does not go out in the evening."""
    late, too_late = await scheduled(content, 3 * MINUTE), await scheduled(content, MINUTE)
    await passes(content, LATE + 2 * MINUTE)
    with capture_logs() as logs:
        assert await worker.advance()
    assert (await look(content, late))["state"] == "published"
    missed = await look(content, too_late)
    assert (missed["state"], missed["publish_at"]) == ("draft", None)
    assert missed["missed_at"] is not None
    assert [(line["event"], line["log_level"]) for line in logs if line.get("item_id") == too_late["id"]] == [
        ("schedule_missed", "error")
    ]
    assert [row["id"] for row in (await content.api.get("/items?schedule=missed")).json()["data"]] == [too_late["id"]]
    assert len(await content.outbox()) == 1
    anew = await ask(content, too_late, await content.present() + HOUR)
    assert (anew.status_code, anew.json()["missed_at"]) == (202, None)
    await passes(content, HOUR)
    assert await worker.advance()
    assert (await look(content, too_late))["state"] == "published"


async def test_a_missed_time_is_put_aside_by_who_has_seen_it(content, worker):
    item = await scheduled(content)
    await passes(content, 3 * HOUR)
    assert await worker.advance()
    assert (await content.edited(item["id"], title="Dagen efter"))["missed_at"] is not None
    answer = await content.api.post(f"/items/{item['id']}/unschedule")
    assert (answer.status_code, answer.json()["missed_at"]) == (200, None)


async def test_what_cannot_be_published_holds_up_nobody_and_is_missed_in_the_end(content, worker):
    """A rule that became stricter in an upgrade, say."""
    broken, sound = await scheduled(content, title="Trasig"), await scheduled(content, HOUR + MINUTE)
    async with content.service.database.transaction() as session:
        copy = (await session.scalars(select(Item.working_copy).where(Item.id == UUID(broken["id"])))).one()
        spoilt = update(Item).where(Item.id == UUID(broken["id"])).values(working_copy={**copy, "audiences": []})
        await session.execute(spoilt)
    await passes(content, HOUR + MINUTE)
    with capture_logs() as logs:
        assert not await worker.advance()
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["scheduled_item_failed"]
    assert (await look(content, broken))["publish_at"] is not None
    assert (await look(content, sound))["state"] == "published"
    await passes(content, LATE)
    assert await worker.advance()
    assert (await look(content, broken))["missed_at"] is not None


async def test_f55_two_workers_publish_each_scheduled_item_once(content, replica):
    items = [await scheduled(content, title=f"Nummer {number}") for number in range(12)]
    await passes(content, HOUR)
    with capture_logs() as logs:
        assert all(await asyncio.gather(*(worker_of(each).advance() for each in (content, replica) * 2)))
    assert [line for line in logs if line["log_level"] != "info"] == []
    assert sorted(event["subject"] for event in await content.outbox()) == sorted(item["id"] for item in items)
    for item in items:
        (revision,) = (await content.api.get(f"/items/{item['id']}/revisions")).json()["data"]
        assert revision["revision"] == 1


@pytest.mark.parametrize("act", ["unschedule", "publish", "schedule"])
async def test_an_editor_and_a_worker_at_once_agree_on_what_became_of_it(content, replica, act):
    items = [await scheduled(content, title=f"Nummer {number}") for number in range(5)]
    await passes(content, HOUR)
    later = (await content.present() + HOUR).isoformat()

    async def editor(item):
        if act == "schedule":
            return await ask(content, item, later)
        return await content.api.post(f"/items/{item['id']}/{act}")

    answers, _ = await asyncio.gather(asyncio.gather(*map(editor, items)), worker_of(replica).advance())
    events = await content.outbox()
    told_of = {event["subject"] for event in events}
    assert len(events) == len(told_of)
    for item, answer in zip(items, answers, strict=True):
        assert answer.status_code in (200, 202, 409, 412), answer.text
        published = (await look(content, item))["state"] == "published"
        assert published == (item["id"] in told_of)
        assert published == (act == "publish" or not answer.is_success)


class Died(BaseException):
    """What a SIGKILL leaves behind: a connection that hung up amid its transaction."""


@contextmanager
def dying_at(content: Content, statement: int) -> Iterator[list[str]]:
    """The so-manieth statement from now on is never heard, nor is anything after it; gives those that were."""
    heard: list[str] = []
    engine = content.service.database.engine.sync_engine

    def strike(connection, cursor, said, *more) -> None:
        heard.append(said)
        if len(heard) >= statement:
            raise Died

    def at_commit(connection) -> None:
        strike(connection, None, "COMMIT")

    event.listen(engine, "before_cursor_execute", strike)
    event.listen(engine, "commit", at_commit)
    try:
        yield heard
    finally:
        event.remove(engine, "before_cursor_execute", strike)
        event.remove(engine, "commit", at_commit)


async def test_f1_a_worker_that_dies_at_any_statement_has_changed_nothing(content, replica):
    """Each in turn is its last, to the commit; then another worker comes, and publishes once."""
    item = await scheduled(content)
    before = await look(content, item)
    await passes(content, HOUR)
    for statement in range(1, 100):
        with dying_at(content, statement) as heard:
            try:
                await worker_of(content).advance()
                break
            except Died:
                assert len(heard) == statement
        assert await replica_outbox(replica) == []
        assert {**await look(replica, item), "publish_at": before["publish_at"]} == before
    assert heard[-1] == "COMMIT"
    assert statement > 6, heard
    assert await worker_of(replica).advance()
    assert len(await replica_outbox(replica)) == 1


async def replica_outbox(replica: Content):
    async with replica.service.database.reading() as session:
        return (await session.execute(text("SELECT id FROM outbox"))).all()


async def test_times_are_kept_in_utc(content):
    draft, at = await content.draft(), (await content.present() + HOUR).replace(microsecond=0)
    answer = await ask(content, draft, swedish_time(at))
    assert answer.json()["publish_at"] == at.astimezone(UTC).isoformat().replace("+00:00", "Z")
