"""The main job, end to end: published once, everybody who should know gets it, once, and nobody else does.

2,000 recipients and 20 endpoints; a truth table with near misses says who gets what (`county`, `truth`). The product is
seen from outside alone: events go in over HTTP, mails and webhooks come out.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx2
import pytest
from standardwebhooks import Webhook
from tests.deployments import Deployment
from tests.desk import SUBSCRIPTIONS, Desk, Json
from tests.eventually import eventually
from tests.files import png
from tests.inboxes import Inboxes, Mail
from tests.journeys import loading, reading
from tests.journeys.county import (
    BODY_MARK,
    ENDPOINTS,
    NEWS,
    RELEASE,
    Fate,
    Gets,
    Item,
    LeftOut,
    Person,
    everybody,
    places,
)
from tests.journeys.truth import fate
from tests.servers.receiver import HttpReceiver

CORRECTION = {"title": "Två av tre i arbete efter rehabilitering", "body": f"{BODY_MARK}. Kalmar: 62 %."}
PICTURE = {"alt": "En verkstad", "byline": "I. Ek", "rights": "Fri att använda"}
CORRECTION_NOTE = "Siffran för Kalmar var fel. Rätt är 62 procent."
WITHDRAWAL_REASON = "Underlaget visade sig vara från ett annat län."


@pytest.fixture
def from_empty() -> bool:
    return True


@dataclass
class Journey:
    """A deployment with the county in it."""

    deployment: Deployment
    desk: Desk
    inboxes: Inboxes
    intranets: HttpReceiver
    people: Sequence[Person] = field(default_factory=everybody)
    secrets: dict[str, str] = field(default_factory=dict)

    @property
    def site(self) -> str:
        return self.deployment.url

    def fates(self, item: Item) -> dict[str, Fate]:
        return {person.mailbox: fate(person, item, places()) for person in self.people}

    def expected(self, item: Item) -> dict[str, Gets]:
        return {mailbox: one for mailbox, one in self.fates(item).items() if isinstance(one, Gets)}

    def mails(self, item_id: str, revision: int) -> dict[str, Mail]:
        """By mailbox; exactly one each."""
        mails = [mail for mail in self.inboxes.of(item_id) if mail.revision == revision]
        twice = {mailbox for mailbox, copies in Counter(mail.to for mail in mails).items() if copies > 1}
        assert not twice
        return {mail.to: mail for mail in mails}


async def test_everybody_who_should_know_gets_it_once_and_is_told_when_it_was_wrong(
    deployment: Deployment, inboxes: Inboxes, intranets: HttpReceiver
) -> None:
    async with deployment.client() as api:
        journey = Journey(deployment, Desk(api), inboxes, intranets)
        await _load(journey)
        release, news = await _publish_both_at_once(journey)
        await _check_first_revision(journey, release, RELEASE, column=1)
        await _check_first_revision(journey, news, NEWS, column=2)
        await _check_correction(journey, release)
        await _check_withdrawal(journey, release)
        _check_total(journey, release, news)
        assert deployment.unfinished() == {}
        _check_logs(deployment)


async def _load(journey: Journey) -> None:
    await loading.load_people(journey.desk, journey.people, places())
    await loading.refuse_a_second_time(journey.desk, journey.people[0])
    journey.secrets = await loading.load_endpoints(journey.desk, journey.intranets, [row[0] for row in ENDPOINTS])
    for item in (RELEASE, NEWS):
        await loading.check_preview(journey.desk, item, journey.people, places())


async def _publish_both_at_once(journey: Journey) -> tuple[str, str]:
    """In the same second, and each of them by two editors: one of the two is told that it was done."""
    release, news = await journey.desk.draft(RELEASE.fields), await journey.desk.draft(NEWS.fields)
    await journey.desk.attach(release, png(), "verkstaden.png", **PICTURE)
    paths = [f"/api/content/v1/items/{item}/publish" for item in (release, release, news, news)]
    answers = await asyncio.gather(*(journey.desk.api.post(path) for path in paths))
    assert sorted(answer.status_code for answer in answers) == [202, 202, 409, 409]
    return release, news


async def _check_first_revision(journey: Journey, item_id: str, item: Item, *, column: int) -> None:
    reach = await journey.desk.reached(item_id, within=90)
    expected = journey.expected(item)
    mails = journey.mails(item_id, 1)
    assert set(mails) == set(expected)
    title = str(item.fields["title"])
    for mailbox, gets in expected.items():
        reading.check_envelope_and_headers(mails[mailbox], gets, item, journey.site)
        reading.check_words(mails[mailbox], gets, item, title=title, subject=title)
    for gets, mail in _one_of_each(expected, mails):
        reading.check_by_another_parser(mail, subject=title)
        links = reading.check_html(mail)
        assert await reading.check_links(links, journey.site) >= 3, gets
    assert len({mail.message_id for mail in mails.values()}) == len(mails)
    files = "/filer/" in (await _seen(journey, item_id)).text
    assert files == (item is RELEASE)
    assert all(("/verkstaden.png\n" in mail.part("plain")) == files for mail in mails.values())
    _check_reach(journey, reach, item, endpoints=len(loading.expected_endpoints(column)))
    await _check_ledger(journey, item_id, item)
    await _check_webhooks(journey, item_id, loading.expected_endpoints(column), "news.published", revision=1)


def _check_reach(journey: Journey, reach: Json, item: Item, *, endpoints: int) -> None:
    """It adds up to the last person, by audience and by reason."""
    by_mail = [row for row in reach["audiences"] if row["channel"] == "mail"]
    assert loading.counts_of(by_mail) == loading.expected_counts(item, journey.people, places())
    assert all(row["sent"] == row["planned"] for row in reach["audiences"])
    left_out = Counter((one.audience, one.reason) for one in journey.fates(item).values() if isinstance(one, LeftOut))
    told = {(row["audience"], why["reason"]): why["count"] for row in by_mail for why in row["exclusions"]}
    assert told == left_out
    webhooks = [row for row in reach["audiences"] if row["channel"] == "webhook"]
    assert sum(row["sent"] for row in webhooks) == endpoints
    assert reach["total"]["sent"] == len(journey.expected(item)) + endpoints


async def _check_ledger(journey: Journey, item_id: str, item: Item) -> None:
    """Every person by name: who got it under which audience, who was left out and why, who is no row at all."""
    subscribers = await journey.desk.all_pages(f"{SUBSCRIPTIONS}/subscribers")
    address_of = {subscriber["id"]: subscriber["address"] for subscriber in subscribers}
    rows = [row for row in await journey.desk.deliveries(item_id) if row["channel"] == "mail"]
    sent = {address_of[row["recipient_id"]]: (row["audience"], row["form"], row["state"]) for row in rows}
    assert sent == {box: (gets.audience, gets.form, "sent") for box, gets in journey.expected(item).items()}
    left_out = {
        address_of[row["recipient_id"]]: LeftOut(row["audience"], row["reason"])
        for row in await journey.desk.exclusions(item_id)
    }
    assert left_out == {box: one for box, one in journey.fates(item).items() if isinstance(one, LeftOut)}
    detail = await journey.desk.call("GET", f"/api/distributor/v1/deliveries/{rows[0]['id']}")
    assert "queued as" in detail["attempt_log"][0]["reply"]


async def _check_webhooks(journey: Journey, item_id: str, paths: set[str], name: str, *, revision: int) -> None:
    def all_there() -> dict[str, list[Json]]:
        seen = _verified(journey, item_id, f"se.budkavle.{name}.v1")
        assert {path: len(events) for path, events in seen.items()} == dict.fromkeys(paths, 1)
        return seen

    seen = await eventually(all_there, within=20)
    for (event,) in seen.values():
        assert event["specversion"] == "1.0"
        assert event["data"]["revision"] == revision


def _verified(journey: Journey, item_id: str, kind: str) -> dict[str, list[Json]]:
    """What each endpoint got of one kind about the item, its signature verified by the specification's own library."""
    found: dict[str, list[Json]] = {}
    for request in journey.intranets.requests:
        event = Webhook(journey.secrets[request.path]).verify(request.body, request.header_map)
        if event["type"] == kind and event["data"]["item_id"] == item_id:
            found.setdefault(request.path, []).append(event)
    return found


async def _check_correction(journey: Journey, item_id: str) -> None:
    await journey.desk.correct(item_id, CORRECTION, CORRECTION_NOTE)
    mails = await _followed_up(journey, item_id, "correction", revision=2)
    first = journey.mails(item_id, 1)
    for mailbox, gets in journey.expected(RELEASE).items():
        subject = reading.CORRECTED[gets.locale] + CORRECTION["title"]
        reading.check_envelope_and_headers(mails[mailbox], gets, RELEASE, journey.site)
        assert mails[mailbox].header("In-Reply-To") == first[mailbox].message_id
        assert first[mailbox].message_id in mails[mailbox].header("References")
        assert mails[mailbox].header("Subject") == subject
        assert CORRECTION_NOTE in mails[mailbox].part("plain")
        assert (BODY_MARK in mails[mailbox].part("plain")) == (gets.form == "press")
    for gets, mail in _one_of_each(journey.expected(RELEASE), mails):
        reading.check_by_another_parser(mail, subject=reading.CORRECTED[gets.locale] + CORRECTION["title"])
        assert await reading.check_links(reading.check_html(mail), journey.site) >= 3
    await _check_webhooks(journey, item_id, loading.expected_endpoints(1), "news.corrected", revision=2)
    page = await _seen(journey, item_id)
    assert page.status_code == 200
    assert CORRECTION["title"] in page.text
    assert CORRECTION_NOTE in page.text


async def _check_withdrawal(journey: Journey, item_id: str) -> None:
    await journey.desk.withdraw(item_id, WITHDRAWAL_REASON)
    mails = await _followed_up(journey, item_id, "withdrawal", revision=3)
    first, second = journey.mails(item_id, 1), journey.mails(item_id, 2)
    for mailbox, gets in journey.expected(RELEASE).items():
        mail = mails[mailbox]
        reading.check_envelope_and_headers(mail, gets, RELEASE, journey.site)
        assert mail.header("In-Reply-To") == second[mailbox].message_id
        assert first[mailbox].message_id in mail.header("References")
        assert mail.header("Subject") == reading.WITHDRAWN[gets.locale] + CORRECTION["title"]
        assert WITHDRAWAL_REASON in mail.part("plain")
        assert BODY_MARK not in mail.part("plain") + mail.part("html")
    for gets, mail in _one_of_each(journey.expected(RELEASE), mails):
        reading.check_by_another_parser(mail, subject=reading.WITHDRAWN[gets.locale] + CORRECTION["title"])
        assert await reading.check_links(reading.check_html(mail), journey.site, page=410) >= 3
    await _check_webhooks(journey, item_id, loading.expected_endpoints(1), "news.withdrawn", revision=3)
    await _check_withdrawn_site(journey, item_id)


async def _check_withdrawn_site(journey: Journey, item_id: str) -> None:
    url = await _page_of(journey, item_id)
    async with httpx2.AsyncClient(timeout=30) as reader:
        page, front, feed = [await reader.get(path) for path in (url, f"{journey.site}/", f"{journey.site}/feed.atom")]
    assert page.status_code == 410
    assert WITHDRAWAL_REASON in page.text
    assert BODY_MARK not in page.text
    assert url.rpartition("/")[2] not in front.text
    assert CORRECTION["title"] not in feed.text
    assert str(NEWS.fields["title"]) in feed.text


async def _followed_up(journey: Journey, item_id: str, form: str, *, revision: int) -> dict[str, Mail]:
    """Exactly those who got the item have been told, once each; `reach` says so too."""
    expected = journey.expected(RELEASE)

    async def told() -> Json:
        reach = await journey.desk.reached(item_id)
        sent = sum(row["sent"] for row in reach["follow_ups"] if row["form"] == form and row["channel"] == "mail")
        assert sent == len(expected), (sent, len(expected))
        return reach

    await eventually(told, within=60, every=0.3)
    mails = journey.mails(item_id, revision)
    assert set(mails) == set(expected)
    return mails


async def _seen(journey: Journey, item_id: str) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=30) as reader:
        return await reader.get(await _page_of(journey, item_id))


async def _page_of(journey: Journey, item_id: str) -> str:
    return str((await journey.desk.call("GET", f"/api/content/v1/items/{item_id}"))["url"])


def _one_of_each(expected: dict[str, Gets], mails: dict[str, Mail]) -> list[tuple[Gets, Mail]]:
    """One mail of every audience, form and language."""
    return list({gets: mails[mailbox] for mailbox, gets in expected.items()}.items())


def _check_total(journey: Journey, release: str, news: str) -> None:
    """Nothing came that was not looked at, and nothing came twice."""
    everything = len(journey.expected(RELEASE)) * 3 + len(journey.expected(NEWS))
    assert journey.inboxes.count == everything
    assert {mail.item for mail in journey.inboxes.mails} == {release, news}
    hooks = len(loading.expected_endpoints(1)) * 3 + len(loading.expected_endpoints(2))
    assert len(journey.intranets.requests) == hooks


def _check_logs(deployment: Deployment) -> None:
    for name, log in deployment.logs().items():
        assert "@" not in log, f"an address in the log of {name}"
    levels = Counter(line.get("level") for line in deployment.log_lines())
    assert not levels["error"]
