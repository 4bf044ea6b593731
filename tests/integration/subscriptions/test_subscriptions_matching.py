"""Who gets an item, against a table written by hand. The table knows nothing of the code that finds people."""

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession
from tests.integration.subscriptions.conftest import NOON, Register, emitted, make_item, run_dry
from tests.load import register as many
from tests.servers.postgres import plain

from shared.contracts.news import Audience, ItemSnapshot
from shared.database import Database
from subscriptions import matching
from subscriptions.audience import Target
from subscriptions.fanout import FanoutWorker, record
from subscriptions.matching import audience_page
from subscriptions.models import Subscriber

KALMAR, NYBRO, BORGHOLM = "0880", "0881", "0885"

# Everybody in the register. The day is 12 May 2026.
#   p = politician (council of Kalmar unless said), n = newsroom desk, g = group, a = official, u = public
PEOPLE = """
    n-kalmar          desk that covers Kalmar and Nybro
    n-county          desk that covers the county (no municipalities)
    n-borgholm        desk that covers Borgholm alone
    p-kalmar          Kalmar, mandate from today to today
    p-ended           Kalmar, mandate ended yesterday
    p-begins          Kalmar, mandate begins tomorrow
    p-nybro           Nybro: the neighbouring municipality
    p-region          a council without a municipality
    p-paused          Kalmar, paused until 1 June
    p-awake           Kalmar, pause ended at this very instant
    p-left            Kalmar, has left the audience
    p-left-public     Kalmar, has left politicians, is also in the public
    p-both            Kalmar, also in the public and in a group in Kalmar
    p-expired-public  mandate ended yesterday, also in the public
    p-topic           Kalmar, has chosen another topic
    g-kalmar          group that spans Kalmar and Borgholm
    g-nybro           group in Nybro
    a-county          official without municipalities
    a-nybro           official in Nybro
    u-all             public, no choices
    u-kalmar          public, chose Kalmar
    u-borgholm        public, chose Borgholm
    u-gone            public, has unsubscribed from everything
    u-topic           public, chose the item's topic among others
"""

ALL = ("newsroom", "politician", "collaboration_group", "agency_official", "public")

CASES = [
    pytest.param(
        {"audiences": ALL, "municipalities": (KALMAR,), "topics": ("results",)},
        {
            "newsroom": {"n-kalmar", "n-county"},
            "politician": {"p-kalmar", "p-region", "p-awake", "p-both"},
            "collaboration_group": {"g-kalmar"},
            "agency_official": {"a-county"},
            "public": {"p-left-public", "p-expired-public", "u-all", "u-kalmar", "u-topic"},
        },
        {
            ("p-paused", "politician", "paused", "pausad till 1 juni"),
            ("p-left", "politician", "unsubscribed", "har lämnat målgruppen"),
            ("p-topic", "politician", "topic_choice", "har valt andra ämnen"),
            ("u-borgholm", "public", "municipality_choice", "har valt andra kommuner"),
            ("u-gone", "public", "unsubscribed", "har avregistrerat sig"),
        },
        id="everybody, Kalmar, results",
    ),
    pytest.param(
        {"audiences": ("politician",), "municipalities": (NYBRO, BORGHOLM)},
        {"politician": {"p-nybro", "p-region"}},
        set(),
        id="politicians in Nybro and Borgholm, all topics",
    ),
    pytest.param(
        {"audiences": ("public", "newsroom"), "municipalities": (BORGHOLM,), "topics": ("young_adults",)},
        {
            "newsroom": {"n-county", "n-borgholm"},
            "public": {"p-left-public", "p-both", "p-expired-public", "u-all", "u-borgholm"},
        },
        {
            ("u-kalmar", "public", "municipality_choice", "har valt andra kommuner"),
            ("u-gone", "public", "unsubscribed", "har avregistrerat sig"),
            ("u-topic", "public", "topic_choice", "har valt andra ämnen"),
        },
        id="public and newsrooms in Borgholm",
    ),
    pytest.param(
        {"audiences": ("collaboration_group", "agency_official")},
        {
            "collaboration_group": {"g-kalmar", "g-nybro", "p-both"},
            "agency_official": {"a-county", "a-nybro"},
        },
        set(),
        id="groups and officials, the whole county",
    ),
    pytest.param(
        {"audiences": ("newsroom",), "municipalities": ("0834",)}, {"newsroom": {"n-county"}}, set(), id="Torsås"
    ),
]


@pytest.fixture
async def names(register: Register) -> dict[str, str]:
    """The register, filled; ids by the names of the table."""
    desk = {
        "n-kalmar": await register.organisation("newsroom", "Barometern", KALMAR, NYBRO),
        "n-county": await register.organisation("newsroom", "P4 Kalmar"),
        "n-borgholm": await register.organisation("newsroom", "Ölandsbladet", BORGHOLM),
    }
    council = await register.organisation("council", "Kommunfullmäktige")
    region = await register.organisation("council", "Regionfullmäktige")
    agency = await register.organisation("agency", "Försäkringskassan")
    local = await register.group("Samverkansgruppen Kalmar-Öland", KALMAR, BORGHOLM)
    nybro = await register.group("Samverkansgruppen Nybro", NYBRO)

    def politician(
        *, municipality: str = KALMAR, begins: str = "2022-10-15", ends: str = "2026-10-14"
    ) -> dict[str, Any]:
        return {
            "audience": "politician",
            "organisation_id": council,
            "municipalities": [municipality],
            "mandate_from": begins,
            "mandate_until": ends,
        }

    public = {"audience": "public"}
    official = {"audience": "agency_official", "organisation_id": agency}
    ended = politician(ends="2026-05-11")
    member = {"audience": "collaboration_group", "group_id": local}
    table: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
        **{name: ([{"audience": "newsroom", "organisation_id": key}], {}) for name, key in desk.items()},
        "p-kalmar": ([politician(begins="2026-05-12", ends="2026-05-12")], {}),
        "p-ended": ([ended], {}),
        "p-begins": ([politician(begins="2026-05-13")], {}),
        "p-nybro": ([politician(municipality=NYBRO)], {}),
        "p-region": ([{"audience": "politician", "organisation_id": region}], {}),
        "p-paused": ([politician()], {"paused_until": "2026-06-01T00:00:00+02:00"}),
        "p-awake": ([politician()], {"paused_until": NOON.isoformat()}),
        "p-left": ([politician()], {}),
        "p-left-public": ([politician(), public], {}),
        "p-both": ([public, politician(), member], {}),
        "p-expired-public": ([ended, public], {}),
        "p-topic": ([politician()], {"topics": ["young_adults"]}),
        "g-kalmar": ([member], {}),
        "g-nybro": ([{"audience": "collaboration_group", "group_id": nybro}], {}),
        "a-county": ([official], {}),
        "a-nybro": ([{**official, "municipalities": [NYBRO]}], {}),
        "u-all": ([public], {}),
        "u-kalmar": ([public], {"municipalities": [KALMAR]}),
        "u-borgholm": ([public], {"municipalities": [BORGHOLM]}),
        "u-gone": ([public], {}),
        "u-topic": ([public], {"topics": ["results", "organisation"]}),
    }
    assert [line.split()[0] for line in PEOPLE.strip().splitlines()] == list(table)
    ids = {
        name: await register.person(f"{name}@kalmar.example", *roles, **more) for name, (roles, more) in table.items()
    }
    await register.change(ids["p-left"], left_audiences=["politician"])
    await register.change(ids["p-left-public"], left_audiences=["politician"])
    await register.change(ids["u-gone"], unsubscribed=True)
    return {subscriber_id: name for name, subscriber_id in ids.items()}


@pytest.mark.parametrize(("wanted", "expected", "left_out"), CASES)
async def test_everybody_who_should_get_it_and_nobody_else(
    wanted: dict[str, Any],
    expected: dict[str, set[str]],
    left_out: set[tuple[str, str, str, str]],
    names: dict[str, str],
    worker: FanoutWorker,
    database: Database,
    office: Any,
) -> None:
    item = make_item(*wanted["audiences"], **{key: value for key, value in wanted.items() if key != "audiences"})
    async with database.transaction() as session:
        await record(session, item, NOON)
    await run_dry(worker, database)

    got: dict[str, set[str]] = {}
    excluded: set[tuple[str, str, str, str]] = set()
    for envelope in await emitted(database, "mail.requested"):
        for recipient in envelope.data["recipients"]:
            assert envelope.data["form"] == ("press" if recipient["audience"] == "newsroom" else "news")
            assert envelope.data["lane"] == ("press" if recipient["audience"] == "newsroom" else "news")
            got.setdefault(recipient["audience"], set()).add(names[recipient["recipient_id"]])
        for row in envelope.data["exclusions"]:
            excluded.add((names[row["recipient_id"]], row["audience"], row["reason"], row["detail"]))
    assert got == expected
    assert excluded == left_out

    [completed] = await emitted(database, "fanout.completed")
    totals = {total["audience"]: (total["planned"], total["excluded"]) for total in completed.data["totals"]}
    assert totals == {
        audience: (len(expected.get(audience, ())), sum(row[1] == audience for row in left_out))
        for audience in wanted["audiences"]
    }
    await _assert_preview_agrees(office, wanted, expected, left_out)
    everybody = [(audience, name) for audience, got_it in expected.items() for name in got_it]
    everybody += [(audience, name) for name, audience, *_ in left_out]
    assert sorted(await _found_one_by_one(database, item, names)) == sorted(everybody)


async def _found_one_by_one(database: Database, item: ItemSnapshot, names: dict[str, str]) -> list[tuple[str, str]]:
    """By pages of a single role: some of them find nobody, and the walk goes on."""
    target, found = Target.of(item, NOON), []
    async with database.reading() as session:
        for audience in target.audiences:
            after, began = None, False
            while after is not None or not began:
                page, after = await audience_page(session, target, audience, after=after, limit=1)
                found += [(str(audience), names[str(match.subscriber_id)]) for match in page]
                began = True
    return found


async def _assert_preview_agrees(office: Any, wanted: dict[str, Any], expected: Any, left_out: Any) -> None:
    answer = await office.post("/api/subscriptions/v1/audience-preview", json={k: list(v) for k, v in wanted.items()})
    assert answer.status_code == 200
    shown = {row["audience"]: (row["planned"], row["excluded"]) for row in answer.json()["audiences"]}
    assert shown == {
        audience: (len(expected.get(audience, ())), sum(row[1] == audience for row in left_out))
        for audience in wanted["audiences"]
    }


async def test_the_preview_tells_who_is_in_several_audiences(names: dict[str, str], office: Any) -> None:
    body = {"audiences": list(ALL), "municipalities": [KALMAR]}
    answer = (await office.post("/api/subscriptions/v1/audience-preview", json=body)).json()
    overlaps = {tuple(row["audiences"]): row["count"] for row in answer["overlaps"]}
    assert overlaps == {("politician", "public"): 1, ("politician", "collaboration_group", "public"): 1}


async def test_reasons_are_in_the_recipients_language(
    register: Register, worker: FanoutWorker, database: Database
) -> None:
    council = await register.organisation("council", "Kommunfullmäktige")
    paper = await register.organisation("newsroom", "Barometern", KALMAR)
    role = {"audience": "politician", "organisation_id": council, "municipalities": [KALMAR]}
    await register.person("sv@kalmar.example", role)
    await register.person("en@kalmar.example", role, locale="en")
    await register.person("desk@barometern.example", {"audience": "newsroom", "organisation_id": paper})
    async with database.transaction() as session:
        await record(session, make_item("politician", "newsroom"), NOON)
    await run_dry(worker, database)
    reasons = {
        recipient["address"]: recipient["reason"]
        for envelope in await emitted(database, "mail.requested")
        for recipient in envelope.data["recipients"]
    }
    assert reasons == {
        "sv@kalmar.example": "Du får det här eftersom du är ledamot i kommunfullmäktige i Kalmar.",
        "en@kalmar.example": "You get this because you are a member of kommunfullmäktige in Kalmar.",
        "desk@barometern.example": "Du får det här eftersom Barometerns redaktion bevakar Kalmar.",
    }


async def test_the_swedish_day_decides_a_mandate(register: Register, worker: FanoutWorker, database: Database) -> None:
    """22:30 UTC on the 12th is the 13th in Kalmar: yesterday's last day is over."""
    council = await register.organisation("council", "Kommunfullmäktige")
    role = {"audience": "politician", "organisation_id": council}
    await register.person("over@kalmar.example", {**role, "mandate_until": "2026-05-12"})
    begun = await register.person("begun@kalmar.example", {**role, "mandate_from": "2026-05-13"})
    async with database.transaction() as session:
        await record(session, make_item("politician"), datetime(2026, 5, 12, 22, 30, tzinfo=UTC))
    await run_dry(worker, database)
    [envelope] = await emitted(database, "mail.requested")
    assert [recipient["recipient_id"] for recipient in envelope.data["recipients"]] == [begun]


@pytest.mark.parametrize("known", [True, False], ids=["known", "just filled"])
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_page_in_the_middle_reads_the_page_and_no_table_from_its_beginning(
    database: Database, database_url: str, *, known: bool
) -> None:
    """What a page costs must not grow with the register: a million people are two thousand pages. That must hold when
    the database does not know yet how many they are.
    """
    await asyncio.to_thread(partial(many.fill, plain(database_url), 60_000, known=known))
    most = 500
    async with database.reading() as session:
        middle = await session.scalar(select(Subscriber.id).order_by(Subscriber.id).offset(30_000).limit(1))
        for audiences in (("public",), ("politician", "public")):
            target = Target.of(make_item(*audiences, municipalities=("0880",)), NOON)
            found, _ = await audience_page(session, target, Audience.PUBLIC, after=middle, limit=most)
            assert most - 5 < len(found) <= most  # some of the elected are in the public too
            plan = await explained(session, matching._page(target, Audience.PUBLIC), {"after": middle, "most": most})
            assert max(rows_read(plan)) < 3 * most, plan


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_where_else_a_person_is_is_asked_once_and_of_the_page_alone(
    database: Database, database_url: str
) -> None:
    """Asked as a condition it was asked twice of everybody; near the end, where PostgreSQL sorts whoever is left, it
    was asked of all of them.
    """
    await asyncio.to_thread(many.fill, plain(database_url), 20_000)
    most, target = 500, Target.of(make_item("politician", "public", municipalities=("0880",)), NOON)
    question = matching._page(target, Audience.PUBLIC)
    async with database.reading() as session:
        for reached in (10_000, 18_000):
            after = await session.scalar(select(Subscriber.id).order_by(Subscriber.id).offset(reached).limit(1))
            plan = await explained(session, question, {"after": after, "most": most})
            assert sum(lookups(plan, "ix_roles_subscriber_id")) == most, plan


async def explained(session: AsyncSession, question: Select[Any], values: dict[str, Any]) -> dict[str, Any]:
    at_hand = await session.connection()
    told = question.compile(at_hand.sync_connection).construct_expanded_state(values)
    answer = await at_hand.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {told.statement}", told.parameters)
    return dict(answer.scalar_one()[0]["Plan"])


def lookups(plan: dict[str, Any], index: str) -> list[float]:
    """How often each step of a plan looked up one key in this index."""
    single = plan.get("Index Name") == index and " = " in plan["Index Cond"]
    here = [plan["Actual Loops"]] if single else []
    return [*here, *(loops for step in plan.get("Plans", ()) for loops in lookups(step, index))]


def rows_read(plan: dict[str, Any]) -> list[float]:
    """By each step of a plan, with the rows that it threw away."""
    here = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return [here, *(rows for step in plan.get("Plans", ()) for rows in rows_read(step))]
