"""Digests: one mail per person at their rhythm, of what still holds, however the workers fare."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from httpx2 import AsyncClient
from sqlalchemy import event, insert
from tests.integration.subscriptions.conftest import NOON, Register, confirm_all, emitted, make_item, run_dry
from tests.servers.postgres import plain

from shared.clock import Clock, FixedClock
from shared.contracts.mail import ExclusionReason, Form, Lane, MailRequested, SubjectKind
from shared.contracts.news import Audience, ItemSnapshot, ItemState, Locale
from shared.database import Database
from shared.ids import new_id
from shared.rows import put_rows
from shared.service import Service
from subscriptions import choosing, fanout, fanouts, people
from subscriptions.addresses import Address
from subscriptions.digest_worker import DigestWorker
from subscriptions.fanout import FanoutWorker
from subscriptions.frequencies import EVERYTHING, Frequency
from subscriptions.models import FrequencyRow
from subscriptions.subscribing import values_of

DAILY, WEEKLY = {EVERYTHING: Frequency.DAILY}, {EVERYTHING: Frequency.WEEKLY}
PUBLIC = {"audience": "public"}
TUESDAY = datetime(2026, 5, 12, 10, 0, tzinfo=UTC)
WEDNESDAYS_SLOT = datetime(2026, 5, 13, 6, 30, tzinfo=UTC)
BEFORE_ASCENSION = WEDNESDAYS_SLOT  # Thursday 14 May is Ascension Day; Friday the 15th is a working day
FRIDAYS_SLOT = datetime(2026, 5, 15, 6, 30, tzinfo=UTC)


FOLLOWING = """
CREATE SCHEMA told;
CREATE TABLE told.clock (at timestamptz NOT NULL);
INSERT INTO told.clock VALUES (now());
CREATE FUNCTION told.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT at FROM told.clock';
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = told, pg_catalog, public', current_database()); END $$
"""
"""PostgreSQL tells the time itself; a function of the same name, found first, says what the test says."""


class FollowedClock(FixedClock):
    """One that the database server goes by as well."""

    def __init__(self, database_url: str, instant: datetime) -> None:
        super().__init__(instant)
        self._server = psycopg.connect(plain(database_url), autocommit=True)
        self._server.execute(FOLLOWING)
        self.advance(timedelta(0))

    def advance(self, by: timedelta) -> None:
        super().advance(by)
        self._server.execute("UPDATE told.clock SET at = %s", [self.now()])

    def close(self) -> None:
        self._server.close()


class Off:
    """A machine's clock that is wrong."""

    def __init__(self, clock: Clock, by: timedelta) -> None:
        self._clock, self._by = clock, by

    def now(self) -> datetime:
        return self._clock.now() + self._by


@pytest.fixture
def clock(database_url: str) -> Iterator[FixedClock]:
    if database_url.startswith("sqlite"):
        yield FixedClock(NOON)
        return
    followed = FollowedClock(database_url, NOON)
    yield followed
    followed.close()


class Hand:
    """Turns the service's wheels."""

    def __init__(self, service: Service, database: Database, clock: FixedClock, register: Register) -> None:
        self._service, self._database, self.clock, self.register = service, database, clock, register
        self.fanouts, self.digests = service.workers[:2]

    async def person(self, name: str, frequencies: dict[str, Frequency], *roles: dict[str, Any], **more: Any) -> str:
        chosen = {topic or "everything": str(often) for topic, often in frequencies.items()}
        return await self.register.person(f"{name}@kalmar.example", *(roles or (PUBLIC,)), frequencies=chosen, **more)

    async def publish(self, *audiences: str, **fields: Any) -> ItemSnapshot:
        item = make_item(*(audiences or ("public",)), **fields)
        async with self._database.transaction() as session:
            await fanout.record(session, item, self.clock.now())
        assert isinstance(self.fanouts, FanoutWorker)
        await run_dry(self.fanouts, self._database)
        return item

    async def change(self, item: ItemSnapshot, state: str, **fields: Any) -> None:
        newer = item.model_copy(update={"revision": item.revision + 1, "state": ItemState(state), **fields})
        async with self._database.transaction() as session:
            await fanouts.keep_newest(session, newer)

    def worker(self, batch_size: int = 2, *, off: timedelta = timedelta(0)) -> DigestWorker:
        timetable = self._service.settings.timetable  # type: ignore[attr-defined]
        links = self._service.app.state.links
        return DigestWorker(self._database, Off(self.clock, off), links, timetable, batch_size=batch_size)

    async def at(self, instant: datetime, worker: DigestWorker | None = None) -> None:
        self.clock.advance(instant - self.clock.now())
        await self.run(worker or self.worker())

    async def run(self, worker: DigestWorker) -> None:
        await worker.begin_due()
        while await worker.advance():
            await confirm_all(self._database)

    async def batches(self) -> list[MailRequested]:
        events = [MailRequested.model_validate(each.data) for each in await emitted(self._database, "mail.requested")]
        return [event for event in events if event.form is Form.DIGEST]

    async def mails(self) -> list[tuple[str, set[str]]]:
        """Who gets what: address and headlines of each digest."""
        found = []
        for batch in await self.batches():
            titles = {item.item_id: item.title for item in batch.digest}
            for one in batch.recipients:
                found.append((one.address.partition("@")[0], {titles[each.item_id] for each in one.carries}))
        return found

    async def left_out(self) -> list[tuple[UUID, ExclusionReason]]:
        return [(out.recipient_id, out.reason) for batch in await self.batches() for out in batch.exclusions]


@pytest.fixture
def hand(service: Service, database: Database, clock: FixedClock, register: Register) -> Hand:
    return Hand(service, database, clock, register)


async def test_a_page_of_many_is_asked_for_and_taken_in_few_values(hand: Hand, database: Database) -> None:
    people_rows, roles, chosen = [], [], []
    for number in range(60):
        key, name = new_id(), f"lasare{number}@kalmar.example"
        people_rows.append({"id": key, **values_of(Address(name, name), "", Locale.SV, TUESDAY)})
        roles.append(people.role_values(key, Audience.PUBLIC, None))
        chosen.append({"subscriber_id": key, "topic": EVERYTHING, "frequency": "daily"})
    async with database.transaction() as session:
        await people.put_subscribers(session, people_rows)
        await people.put_roles(session, roles)
        await put_rows(session, insert(FrequencyRow.__table__), chosen)  # type: ignore[arg-type]
    await hand.at(TUESDAY)
    given: list[int] = []
    event.listen(database.engine.sync_engine, "before_cursor_execute", lambda *call: given.append(len(call[3])))
    for _ in range(2):
        await hand.publish()
    await hand.at(WEDNESDAYS_SLOT, hand.worker(batch_size=500))
    assert [len(carried) for _, carried in await hand.mails()] == [1] * 60  # two items of one headline
    assert max(given) < 25


async def test_each_gets_one_mail_at_their_rhythm(hand: Hand, database: Database) -> None:
    """Daily on the working day after, weekly on Friday, at once never; nothing is sent twice, and no mail is empty."""
    await hand.person("daglig", DAILY)
    await hand.person("vecka", WEEKLY)
    await hand.person("genast", {})
    await hand.at(TUESDAY)
    await hand.publish(title="Ett")
    await hand.publish(title="Två")
    at_once = [MailRequested.model_validate(each.data) for each in await emitted(database, "mail.requested")]
    assert [(len(batch.recipients), {out.detail for out in batch.exclusions}) for batch in at_once] == [
        (1, {"får dagligt sammandrag", "får veckosammandrag"})
    ] * 2
    await hand.at(WEDNESDAYS_SLOT - timedelta(seconds=1))
    assert await hand.mails() == []
    await hand.at(WEDNESDAYS_SLOT)
    assert await hand.mails() == [("daglig", {"Ett", "Två"})]
    await hand.at(FRIDAYS_SLOT - timedelta(hours=1))
    await hand.publish(title="Tre")
    await hand.at(FRIDAYS_SLOT)
    await hand.at(FRIDAYS_SLOT + timedelta(days=4))
    assert sorted((await hand.mails())[1:]) == [("daglig", {"Tre"}), ("vecka", {"Ett", "Två", "Tre"})]
    batch = (await hand.batches())[0]
    assert (batch.subject_kind, batch.lane, batch.revision) == (SubjectKind.DIGEST_RUN, Lane.DIGEST, 0)


async def test_the_mail_says_why_and_how_to_leave(hand: Hand) -> None:
    council = await hand.register.organisation("council", "Kommunfullmäktige")
    seat = {"audience": "politician", "organisation_id": council, "municipalities": ["0880"]}
    await hand.person("en", DAILY)
    await hand.person("flera", DAILY, seat, PUBLIC, locale="en")
    await hand.publish("politician", "public", title="För båda")
    await hand.publish("public", title="För alla")
    await hand.at(WEDNESDAYS_SLOT)
    one, several = [one for batch in await hand.batches() for one in batch.recipients]
    assert one.reason == (
        "Du får det här eftersom du prenumererar på våra nyheter. Du har valt att få det samlat en gång om dagen."
    )
    assert (one.audience, several.audience) == (Audience.PUBLIC, None)
    assert "once a day" in several.reason and several.reason.count("because") == 2
    assert several.one_click_url == several.unsubscribe_url != several.preferences_url
    assert {each.audience for each in several.carries} == {Audience.POLITICIAN, Audience.PUBLIC}


async def test_one_click_in_a_digest_of_several_audiences_ends_them_all(hand: Hand, reader: AsyncClient) -> None:
    agency = await hand.register.organisation("agency", "Försäkringskassan")
    key = await hand.person("flera", DAILY, {"audience": "agency_official", "organisation_id": agency}, PUBLIC)
    await hand.publish("agency_official", title="Ett")
    await hand.publish("public", title="Två")
    await hand.at(WEDNESDAYS_SLOT)
    ((one,),) = [batch.recipients for batch in await hand.batches()]
    assert "Alla mejl från oss" in (await reader.get(one.unsubscribe_url)).text
    answer = await reader.post(one.one_click_url, data={"List-Unsubscribe": "One-Click"})
    assert answer.status_code == 200
    assert (await hand.register.change(key))["state"] == "unsubscribed"
    await reader.post(one.unsubscribe_url, data={"action": "come_back"})
    assert (await hand.register.change(key))["state"] == "active"


async def test_only_what_still_holds_is_carried(hand: Hand) -> None:
    await hand.person("daglig", DAILY)
    kept, gone = await hand.publish(title="Fel"), await hand.publish(title="Borta")
    await hand.change(kept, "corrected", title="Rätt")
    await hand.change(gone, "withdrawn")
    await hand.at(WEDNESDAYS_SLOT)
    assert await hand.mails() == [("daglig", {"Rätt"})]
    (item,) = (await hand.batches())[0].digest
    assert (item.revision, item.corrected_at is not None) == (2, True)


async def test_a_digest_of_withdrawn_items_is_no_mail(hand: Hand) -> None:
    await hand.person("daglig", DAILY)
    await hand.change(await hand.publish(title="Borta"), "withdrawn")
    await hand.at(WEDNESDAYS_SLOT)
    assert await hand.batches() == []


async def test_whoever_changed_their_mind_in_the_meantime(hand: Hand) -> None:
    """Paused, left, unsubscribed: nothing, and no flood later. Now at once: what waits comes with the next run."""
    names = ("pausad", "slutat", "lämnat", "annat", "genast", "vecka")
    keys = {name: await hand.person(name, WEEKLY if name == "vecka" else DAILY) for name in names}
    await hand.publish(title="Ett", topics=("results",))
    await hand.register.change(keys["pausad"], paused_until=(WEDNESDAYS_SLOT + timedelta(hours=1)).isoformat())
    await hand.register.change(keys["slutat"], unsubscribed=True)
    await hand.register.change(keys["lämnat"], left_audiences=["public"])
    await hand.register.change(keys["annat"], topics=["organisation"])
    assert (await hand.register.change(keys["genast"], frequencies={}))["frequencies"] == {}
    changed = await hand.register.change(keys["vecka"], frequencies={"everything": "daily", "organisation": "weekly"})
    assert changed["frequencies"] == {"everything": "daily", "organisation": "weekly"}
    await hand.at(WEDNESDAYS_SLOT)
    assert sorted(await hand.mails()) == [("genast", {"Ett"}), ("vecka", {"Ett"})]
    assert {key: str(reason) for key, reason in await hand.left_out()} == {
        UUID(keys["pausad"]): "paused",
        UUID(keys["slutat"]): "unsubscribed",
        UUID(keys["lämnat"]): "unsubscribed",
        UUID(keys["annat"]): "topic_choice",
    }
    await hand.register.change(keys["slutat"], unsubscribed=False)
    await hand.at(FRIDAYS_SLOT)
    assert len(await hand.mails()) == 2


async def test_whoever_is_paused_when_it_is_published_gets_no_backlog(hand: Hand) -> None:
    key = await hand.person("pausad", DAILY, paused_until=(TUESDAY + timedelta(hours=2)).isoformat())
    await hand.publish(title="Ett")
    await hand.register.change(key, paused_until=None)
    await hand.at(WEDNESDAYS_SLOT)
    assert await hand.batches() == []


async def test_the_urgent_breaks_through_and_says_why(hand: Hand, database: Database) -> None:
    await hand.person("daglig", DAILY)
    await hand.publish(title="Brådskande", urgent_reason="Mötet i kväll är inställt.")
    (event,) = await emitted(database, "mail.requested")
    (recipient,) = MailRequested.model_validate(event.data).recipients
    assert recipient.reason.endswith("den här är brådskande: Mötet i kväll är inställt.")
    await hand.at(WEDNESDAYS_SLOT)
    assert await hand.batches() == []


async def test_a_worker_that_was_away_runs_late_and_once(hand: Hand) -> None:
    """Away from Wednesday to Monday: the week's slot passed as well, and what came after Monday's slot waits."""
    await hand.person("daglig", DAILY)
    await hand.person("vecka", WEEKLY)
    await hand.at(TUESDAY)
    await hand.publish(title="Ett")
    monday = datetime(2026, 5, 18, 6, 30, tzinfo=UTC)
    hand.clock.advance(monday + timedelta(hours=5) - hand.clock.now())
    await hand.publish(title="För sent")
    workers = [hand.worker(), hand.worker()]
    for worker in [*workers, *workers]:
        await hand.run(worker)
    assert sorted(await hand.mails()) == [("daglig", {"Ett"}), ("vecka", {"Ett"})]
    await hand.at(monday + timedelta(days=1))
    assert (await hand.mails())[2:] == [("daglig", {"För sent"})]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("minutes", [-10, 10])
async def test_f56_a_machine_s_wrong_clock_makes_no_digest_early_or_late(hand: Hand, minutes: int) -> None:
    await hand.person("daglig", DAILY)
    await hand.at(TUESDAY)
    await hand.publish(title="Ett")
    wrong = hand.worker(off=timedelta(minutes=minutes))
    await hand.at(WEDNESDAYS_SLOT - timedelta(seconds=1), wrong)
    assert await hand.mails() == []
    await hand.at(WEDNESDAYS_SLOT, wrong)
    assert await hand.mails() == [("daglig", {"Ett"})]
    assert {batch.planned_at for batch in await hand.batches()} == {WEDNESDAYS_SLOT}


async def test_two_items_in_the_second_of_the_slot_are_each_in_one_run(hand: Hand) -> None:
    await hand.person("daglig", DAILY)
    hand.clock.advance(WEDNESDAYS_SLOT - timedelta(microseconds=1) - hand.clock.now())
    await hand.publish(title="Strax före")
    hand.clock.advance(timedelta(microseconds=1))
    await hand.publish(title="På slaget")
    await hand.at(WEDNESDAYS_SLOT)
    assert await hand.mails() == [("daglig", {"Strax före"})]
    await hand.at(FRIDAYS_SLOT)
    assert (await hand.mails())[1:] == [("daglig", {"På slaget"})]


async def test_a_run_waits_a_while_for_what_was_published_before_it(hand: Hand, database: Database) -> None:
    await hand.person("daglig", DAILY)
    item = make_item("public", title="På väg")
    hand.clock.advance(WEDNESDAYS_SLOT - timedelta(seconds=2) - hand.clock.now())
    async with database.transaction() as session:
        await fanout.record(session, item, hand.clock.now())
    worker = hand.worker()
    await hand.at(WEDNESDAYS_SLOT, worker)
    assert await hand.mails() == []
    assert isinstance(hand.fanouts, FanoutWorker)
    await run_dry(hand.fanouts, database)
    await hand.run(worker)
    assert await hand.mails() == [("daglig", {"På väg"})]


async def test_workers_side_by_side_and_one_that_dies_mail_everybody_once(hand: Hand, database: Database) -> None:
    names = {f"p{number:02}" for number in range(11)}
    for name in sorted(names):
        await hand.person(name, DAILY)
    await hand.publish(title="Ett")
    hand.clock.advance(WEDNESDAYS_SLOT - hand.clock.now())
    dying, *others = hand.worker(), hand.worker(3), hand.worker(4)
    await dying.begin_due()
    await dying.advance()
    plan = dying._request

    async def dies(*told: Any) -> None:
        await plan(*told)
        raise ConnectionError("killed after the outbox row, before the commit")

    dying._request = dies  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        await dying.advance()
    await asyncio.gather(*(hand.run(worker) for worker in others))
    mailed = [name for name, _ in await hand.mails()]
    assert sorted(mailed) == sorted(names)
    assert len({(await_one.batch_id) for await_one in await hand.batches()}) == len(await hand.batches())


async def test_a_run_on_demand_takes_what_waits_and_the_regular_one_finds_nothing(
    hand: Hand, office: AsyncClient
) -> None:
    await hand.person("daglig", DAILY)
    await hand.person("vecka", WEEKLY)
    await hand.publish(title="Ett")
    hand.clock.advance(timedelta(seconds=1))
    for _ in range(2):
        answer = await office.post(
            "/api/subscriptions/v1/digest-runs", json={"weekly": True}, headers={"Idempotency-Key": "nu"}
        )
        assert answer.status_code == 202, answer.text
    worker = hand.worker()
    await hand.run(worker)
    assert sorted(await hand.mails()) == [("daglig", {"Ett"}), ("vecka", {"Ett"})]
    await hand.at(WEDNESDAYS_SLOT)
    await hand.at(FRIDAYS_SLOT)
    assert len(await hand.mails()) == 2
    shown = (await office.get("/api/subscriptions/v1/digest-runs")).json()["data"]
    assert [(run["weekly"], run["state"], run["mails"], run["excluded"]) for run in shown][-2:] == [
        (True, "completed", 2, 0),
        (False, "completed", 0, 0),
    ]


async def test_leaving_everything_takes_what_waits_along(hand: Hand, database: Database, service: Service) -> None:
    key = await hand.person("slutar", DAILY)
    await hand.publish(title="Ett")
    async with database.transaction() as session:
        await choosing.leave_all(session, service.app.state.links, UUID(key), hand.clock.now())
    await hand.at(WEDNESDAYS_SLOT)
    assert await hand.mails() == []
    assert [reason for _, reason in await hand.left_out()] == [ExclusionReason.UNSUBSCRIBED]
