"""The office finds people, and reads one: everything that the database knows, in words."""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import event, insert
from tests.integration.subscriptions.conftest import NOON, Register
from tests.integration.subscriptions.office import Clerk

from shared.contracts.news import Audience, Locale
from shared.ids import new_id
from shared.service import Service
from subscriptions.addresses import Address
from subscriptions.models import Role, Subscriber
from subscriptions.office import finding
from subscriptions.office.finding import Place, Wanted
from subscriptions.office.indexing import Indexer
from subscriptions.people import role_values
from subscriptions.states import SubscriberState
from subscriptions.subscribing import values_of

PEOPLE = "/kansli/personer"


@pytest.fixture
async def clerk(service: Service) -> AsyncIterator[Clerk]:
    clerk = Clerk(service)
    assert (await clerk.sign_in()).status_code == 303
    yield clerk
    await clerk.browser.aclose()


async def test_people_are_found_by_audience_municipality_and_state(clerk: Clerk, register: Register) -> None:
    paper = await register.organisation("newsroom", "Barometern", "0880", "0881")
    council = await register.organisation("council", "Kommunfullmäktige")
    group = await register.group("Samverkan Kust", "0885")
    seat = {"audience": "politician", "organisation_id": council, "municipalities": ["0881"]}
    desk = {"audience": "newsroom", "organisation_id": paper}
    await register.person("red@barometern.example", desk)
    eva = await register.person("eva@nybro.example", seat, desk, name="Eva Ek")
    bo = await register.person("bo@borgholm.example", {"audience": "collaboration_group", "group_id": group}, name="Bo")
    await register.person("li@kalmar.example", {"audience": "public"}, name="Li", municipalities=["0880"])
    await register.change(eva, paused_until=(NOON + timedelta(days=9)).isoformat())
    await register.change(bo, unsubscribed=True)
    for query, found in {
        "": ["Li", "Bo Har avslutat", "Eva Ek Har pausat", "red@barometern.example"],
        "malgrupp=newsroom": ["Eva Ek Har pausat", "red@barometern.example"],
        "malgrupp=politician&kommun=0881": ["Eva Ek Har pausat"],
        "kommun=0880": ["Li", "Eva Ek Har pausat", "red@barometern.example"],
        "kommun=0885": ["Bo Har avslutat"],
        "lage=paused": ["Eva Ek Har pausat"],
        "lage=unsubscribed": ["Bo Har avslutat"],
        "lage=active": ["Li", "red@barometern.example"],
        "lage=suppressed": [],
        "lage=unsubscribed&malgrupp=collaboration_group&kommun=0885": ["Bo Har avslutat"],
        "malgrupp=nonsense": ["Li", "Bo Har avslutat", "Eva Ek Har pausat", "red@barometern.example"],
    }.items():
        page = await clerk.look(f"{PEOPLE}?{query}")
        assert page.entries() == found, query
    assert "Ingen passar det du sökte efter." in (await clerk.look(f"{PEOPLE}?lage=suppressed")).text
    assert "Redaktion: Barometern" in (await clerk.look(f"{PEOPLE}?malgrupp=newsroom")).text


async def indexed(service: Service) -> None:
    [indexer] = [worker for worker in service.workers if isinstance(worker, Indexer)]
    while await indexer.advance():
        pass


async def test_people_are_found_by_words(clerk: Clerk, register: Register, service: Service) -> None:
    paper = await register.organisation("newsroom", "Barometern-OT", "0880")
    desk = {"audience": "newsroom", "organisation_id": paper}
    anna = await register.person("anna.andersson@barometern.example", desk, name="Anna-Karin Åström")
    await register.person("annika@kalmar.example", {"audience": "public"}, name="Annika Anna Berg")
    await register.person("red@blåbär.example", desk)
    await indexed(service)
    everybody = ["red@xn--blbr-noae.example", "Annika Anna Berg", "Anna-Karin Åström"]
    for typed, found in {
        "anna": ["Anna-Karin Åström", "Annika Anna Berg"],
        "ANN": ["Anna-Karin Åström", "Annika Anna Berg"],
        "anna berg": ["Annika Anna Berg"],
        "berg kalm": ["Annika Anna Berg"],
        "anna.andersson@barometern.example": ["Anna-Karin Åström"],
        "anna-karin": ["Anna-Karin Åström"],
        "åström": ["Anna-Karin Åström"],
        "a\u030astro\u0308m": ["Anna-Karin Åström"],
        "astrom": [],
        "blåbär": ["red@xn--blbr-noae.example"],
        "red@xn--blbr-noae.example": ["red@xn--blbr-noae.example"],
        "nna": [],
        "%": everybody,
        "_": everybody,
        "  ": everybody,
        "'; DROP TABLE subscribers; --": [],
        "\U0010ffff": everybody,
    }.items():
        page = await clerk.look(f"{PEOPLE}?{urlencode({'sok': typed})}")
        assert page.entries() == found, typed
        assert page.field("sok") == (typed.strip() if typed.isprintable() else "")
    assert (await clerk.look(f"{PEOPLE}?sok=anna&malgrupp=public")).entries() == ["Annika Anna Berg"]
    assert (await clerk.look(f"{PEOPLE}?sok=anna&kommun=0880")).entries() == ["Anna-Karin Åström"]
    page = await clerk.look((await clerk.look(f"{PEOPLE}?sok=meter")).link("Barometern-OT"))
    assert page.entries() == ["red@xn--blbr-noae.example", "Anna-Karin Åström"]
    assert "Bara de som hör till Barometern-OT." in page.text
    await register.change(anna, name="Anna Ny", address="nya@kalmar.example")
    await indexed(service)
    assert (await clerk.look(f"{PEOPLE}?sok=andersson")).entries() == []
    assert (await clerk.look(f"{PEOPLE}?sok=ny")).entries() == ["Anna Ny"]
    await register.office.delete(f"/api/subscriptions/v1/subscribers/{anna}")
    assert (await clerk.look(f"{PEOPLE}?sok=ny")).entries() == []


async def test_a_search_goes_on_where_it_ended(clerk: Clerk, service: Service) -> None:
    await fill(service, 60)
    await indexed(service)
    page = await clerk.look(f"{PEOPLE}?sok=person&malgrupp=public&lang=sv")
    seen = page.entries()
    page = await clerk.look(page.link("Visa fler"))
    assert sorted(seen + page.entries()) == sorted(f"Person {number}" for number in range(60))
    assert len((await clerk.look(page.link("Från början"))).entries()) == 50


async def test_a_person_is_shown_with_basis_stops_and_history(clerk: Clerk, register: Register) -> None:
    council = await register.organisation("council", "Kommunfullmäktige")
    seat = {"audience": "politician", "organisation_id": council, "municipalities": ["0881"]}
    eva = await register.person(
        "eva@nybro.example", {**seat, "mandate_until": "2026-10-14"}, name="Eva <Ek>", topics=["results"]
    )
    path = f"/api/subscriptions/v1/subscribers/{eva}/suppressions"
    assert (await register.office.post(path, json={"note": "Bad per telefon"})).status_code == 200
    page = await clerk.look((await clerk.look(PEOPLE)).link("Eva <Ek>"))
    for words in (
        "Eva <Ek> Stoppad",
        "eva@nybro.example",
        "Resultat och statistik",
        "Förtroendevald, Kommunfullmäktige, Nybro, –2026-10-14",
        "Rättslig grund: Uppgift av allmänt intresse sedan 12 maj 2026",
        "Stoppad av kansliet Gäller",
        "Bad per telefon",
        "Kom med av kansliet Får: Förtroendevald Ämnen: Resultat och statistik",
        "Ändrat av kansliet Mejlen är stoppade.",
    ):
        assert words in page.text, words
    english = await clerk.look(f"{PEOPLE}/{eva}?lang=en")
    assert "Legal basis: Public task since 12 May 2026" in english.text
    assert "Changed by the office The mails are stopped." in english.text
    await register.office.delete(path)
    lifted = await clerk.look(f"{PEOPLE}/{eva}")
    assert "Upphävt 12 maj 2026 kl. 12.00" in lifted.text
    assert "Eva <Ek> Får mejl" in lifted.text
    await register.change(eva, left_audiences=["politician"])
    assert "Eva <Ek> Får inga mejl" in (await clerk.look(f"{PEOPLE}/{eva}")).text
    assert "Finns inte längre" in (await clerk.look(f"{PEOPLE}/{new_id()}", status=404)).text


async def fill(service: Service, count: int) -> None:
    rows = []
    for number in range(count):
        address = f"person{number}@kalmar.example"
        rows.append({"id": new_id(), **values_of(Address(address, address), f"Person {number}", Locale.SV, NOON)})
    async with service.database.transaction() as session:
        await session.execute(insert(Subscriber), rows)
        await session.execute(insert(Role), [role_values(row["id"], Audience.PUBLIC, None) for row in rows])
        await session.execute(insert(Role), [role_values(rows[0]["id"], Audience.NEWSROOM, None)])


async def test_pages_follow_one_another_and_name_everybody_once(clerk: Clerk, service: Service) -> None:
    await fill(service, 120)
    path, seen = f"{PEOPLE}?malgrupp=public&lang=sv", []
    for length in (50, 50, 20):
        page = await clerk.look(path)
        assert len(page.entries()) == length
        seen += page.entries()
        path = page.link("Visa fler") if length == 50 else ""
    assert seen == [f"Person {number}" for number in reversed(range(120))]
    assert "Visa fler" not in page.text
    assert (await clerk.browser.get(f"{PEOPLE}?efter=nonsense")).status_code == 422


async def walk(service: Service, wanted: Wanted) -> list[Sequence[str]]:
    """Every page of two, until the last."""
    pages, after = [], None
    async with service.database.reading() as session:
        while True:
            found = await finding.find(session, wanted, after, 2, NOON)
            pages.append([row.name for row in found.people])
            after = found.after
            if after is None:
                return pages


async def test_a_page_walks_only_so_far(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where little fits, it ends early and goes on from there."""
    monkeypatch.setattr(finding, "STEPS", (3, 4))
    monkeypatch.setattr(finding, "NARROW", 5)
    await fill(service, 20)
    pages = await walk(service, Wanted(state=SubscriberState.ACTIVE, municipality="0880"))
    assert [page for page in pages if page] == []
    assert len(pages) == 3
    assert await walk(service, Wanted(audience=Audience.NEWSROOM)) == [["Person 0"]]
    assert await walk(service, Wanted(audience=Audience.NEWSROOM, state=SubscriberState.PAUSED)) == [[]]
    everybody = [name for page in await walk(service, Wanted(audience=Audience.PUBLIC)) for name in page]
    assert everybody == [f"Person {n}" for n in reversed(range(20))]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_postgresql_walks_along_indexes(service: Service) -> None:
    """No statement of a search reads a table whole: each is explained as it was sent."""
    await fill(service, 10)
    await indexed(service)
    asked: list[tuple[str, Any]] = []
    engine = service.database.engine.sync_engine

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    await indexed(service)
    for wanted in (
        Wanted(municipality="0880"),
        Wanted(words=("per", "kalm"), state=SubscriberState.ACTIVE),
        Wanted(audience=Audience.PUBLIC, state=SubscriberState.ACTIVE),
        Wanted(organisation_id=new_id()),
        Wanted(group_id=new_id(), audience=Audience.COLLABORATION_GROUP),
        *(Wanted(state=state) for state in SubscriberState),
    ):
        for after in (None, Place(new_id(), "perso")):
            async with service.database.reading() as session:
                await finding.find(session, wanted, after, 2, NOON)
    event.remove(engine, "before_cursor_execute", note)
    assert len(asked) > 30
    async with service.database.engine.connect() as connection:
        await connection.exec_driver_sql("SET enable_seqscan = off")
        for statement, parameters in asked:
            lines = await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
            plan = "\n".join(line for (line,) in lines)
            assert "Seq Scan" not in plan, f"{statement}\n{plan}"
            assert "Index" in plan or "One-Time Filter: false" in plan, plan


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_former_representative_is_not_said_to_get_mail(clerk: Clerk, register: Register) -> None:
    council = await register.organisation("council", "Kommunfullmäktige")
    seat = {"audience": "politician", "organisation_id": council, "mandate_until": "2026-05-11"}
    bo = await register.person("bo@kalmar.example", seat, name="Bo Alm")
    assert (await clerk.look(PEOPLE)).entries() == ["Bo Alm Får inga mejl"]
    page = await clerk.look(f"{PEOPLE}/{bo}")
    assert "Bo Alm Får inga mejl" in page.text
    assert "–2026-05-11 Mandatet är slut" in page.text
