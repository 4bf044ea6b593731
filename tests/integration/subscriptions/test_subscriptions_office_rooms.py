"""The office's other rooms: organisations, groups, tasks, stops, coverage, and the page that says what needs attention."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import AsyncSession
from tests.integration.subscriptions.conftest import NOON, Register, emitted
from tests.integration.subscriptions.office import Clerk, Seen
from tests.integration.subscriptions.test_subscriptions_imports import stored

from shared.database import Database
from shared.ids import new_id
from shared.service import Service
from subscriptions.history import Source
from subscriptions.models import OrganisationKind, Suppression
from subscriptions.office import places
from subscriptions.people import insert_group, insert_organisation
from subscriptions.tasks.models import Task
from subscriptions.tasks.tasks import About, TaskKind, raise_task
from subscriptions.web.office import groups, organisations, stops, tasks
from subscriptions.web.office.wording import TASKS

NEWSROOM = {"audience": "newsroom"}
MEMBER = {"audience": "collaboration_group"}


@pytest.fixture
async def clerk(service: Service) -> AsyncIterator[Clerk]:
    clerk = Clerk(service)
    assert (await clerk.sign_in()).status_code == 303
    yield clerk
    await clerk.browser.aclose()


async def raised(database: Database, kind: TaskKind, about: About, **details: Any) -> str:
    async with database.transaction() as session:
        await raise_task(session, kind, about, NOON, details)
        return str(await session.scalar(select(Task.id).where(Task.kind == kind).order_by(Task.id.desc())))


async def stop(clerk: Clerk, person: str, note: str = "") -> None:
    assert (await clerk.post(f"/kansli/personer/{person}/stoppa", note=note)).status_code == 303


async def all_entries(clerk: Clerk, path: str) -> list[str]:
    """Page by page, as somebody who presses "Visa fler"."""
    found: list[str] = []
    following: str | None = path
    while following:
        page = await clerk.look(following)
        found += page.entries()
        nexts = [e.get("href") for e in page.tree.iter("a") if e.get("rel") == "next"]
        following = nexts[0] if nexts else None
    return found


async def test_a_newsroom_is_added_changed_and_given_its_desk(clerk: Clerk, register: Register) -> None:
    answer = await clerk.post("/kansli/organisationer/ny", slag="newsroom", name="Barometern", municipalities=["0880"])
    place = answer.headers["location"].partition("?")[0]
    assert "Redaktion, Kalmar" in (await clerk.look(answer.headers["location"])).text
    for form, words in (
        ({"name": "Östran"}, "Välj vad det är."),
        ({"slag": "newsroom", "name": " "}, "Något behöver rättas"),
        ({"slag": "newsroom", "name": "BAROMETERN"}, "Det finns redan en organisation med det namnet."),
        ({"slag": "newsroom", "name": "Östran", "municipalities": ["9999"]}, "Något behöver rättas"),
    ):
        answer = await clerk.post("/kansli/organisationer/ny", **form)
        assert answer.status_code == 422, form
        assert words in Seen(answer.text).text
        assert Seen(answer.text).field("name") == form["name"].strip()
    organisation_id = place.rpartition("/")[2]
    role = {**NEWSROOM, "organisation_id": organisation_id}
    desk = await register.person("desk@barometern.example", role)
    await register.person("eva@barometern.example", role, name="Eva Ek")
    await register.organisation("newsroom", "Östran")
    answer = await clerk.post(f"{place}/andra", name="Östran", municipalities=["0881"])
    assert (answer.status_code, "Det finns redan en organisation" in answer.text) == (422, True)
    answer = await clerk.post(f"{place}/andra", name="Barometern OT", municipalities=["0881"])
    assert answer.status_code == 303
    answer = await clerk.post(f"{place}/redaktionsadress", adress=str(new_id()))
    assert (answer.status_code, "Välj en av redaktionens adresser." in answer.text) == (422, True)
    answer = await clerk.post(f"{place}/redaktionsadress", adress=desk)
    page = await clerk.look(answer.headers["location"])
    assert page.entries() == ["Eva Ek", "desk@barometern.example Redaktionsadress"]
    for words in ("Redaktionsadressen är vald.", "Redaktion, Nybro", "Senaste svaret Inget än", "10 november 2026"):
        assert words in page.text
    await clerk.look(f"/kansli/organisationer/{new_id()}", 404)
    assert (await clerk.post(f"/kansli/organisationer/{new_id()}/andra", name="x")).status_code == 404


async def test_organisations_are_found_page_by_page(
    clerk: Clerk, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(organisations, "SHOWN", 2)
    for kind, name, area in (
        ("newsroom", "Östran", ("0880",)),
        ("newsroom", "Barometern", ("0880", "0881")),
        ("agency", "Kalmar kommun", ()),
        ("council", "Kommunfullmäktige", ()),
        ("agency", "Arbetsförmedlingen", ()),
    ):
        await register.organisation(kind, name, *area)
    everything = ["Arbetsförmedlingen", "Kalmar kommun", "Kommunfullmäktige", "Barometern", "Östran"]
    assert await all_entries(clerk, "/kansli/organisationer") == everything
    assert await all_entries(clerk, "/kansli/organisationer?slag=newsroom") == ["Barometern", "Östran"]
    assert await all_entries(clerk, "/kansli/organisationer?sok=KOMMUN") == ["Kalmar kommun", "Kommunfullmäktige"]
    assert await all_entries(clerk, "/kansli/organisationer?kommun=0881") == ["Barometern"]
    assert "Ingen passar" in (await clerk.look("/kansli/organisationer?sok=%25")).text


async def test_a_list_of_places_ends_early_where_little_fits_and_goes_on(
    clerk: Clerk, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "STEPS", (1, 2))
    for number in range(7):
        await register.organisation("council", f"Nämnd {number}", *(("0881",) if number == 4 else ()))
        await register.group(f"Grupp {number}", *(("0881",) if number == 4 else ()))
    for path, name in (("/kansli/organisationer", "Nämnd"), ("/kansli/grupper", "Grupp")):
        early = await clerk.look(f"{path}?kommun=0881")
        assert (early.entries(), "Ingen av dem vi har gått igenom hittills passar." in early.text) == ([], True)
        assert await all_entries(clerk, f"{path}?kommun=0881") == [f"{name} 4"]
        assert await all_entries(clerk, f"{path}?sok={name.lower()}") == [f"{name} {number}" for number in range(7)]
        assert await all_entries(clerk, f"{path}?sok=zzz") == []
        assert await all_entries(clerk, path) == [f"{name} {number}" for number in range(7)]


async def test_a_list_of_places_reads_a_stretch_of_the_index_at_a_time(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is asked, and however many there are, they are neither read whole nor sorted."""
    monkeypatch.setattr(places, "STEPS", (3, 10))
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    async with service.database.transaction() as session:
        for number in range(20):
            await insert_organisation(session, OrganisationKind.COUNCIL, f"Nämnd {number}", ["0880"], NOON)
            await insert_group(session, f"Grupp {number}", ["0880"], NOON)
        event.listen(service.database.engine.sync_engine, "before_cursor_execute", note)
        for after in (None, "b"):
            for kind in (None, OrganisationKind.COUNCIL):
                place = ("council", after) if after else None
                assert (await places.organisations(session, kind, "zzz", "0881", place, 2)).after
            assert (await places.groups(session, "zzz", "0881", (after,) if after else None, 2)).after
        event.remove(service.database.engine.sync_engine, "before_cursor_execute", note)
        asked = [(statement, parameters) for statement, parameters in asked if "name_key" in statement]
        assert len(asked) == 2 * 3 * 4
        for statement, parameters in asked:
            plan = await explained(session, statement, parameters)
            # What fits is sorted once more, on SQLite and where the kind is given; the stretch that it is of is not.
            stretch = plan.rpartition("Subquery Scan")[2].partition("SCAN anon_1")[0]
            assert [step for step in ("Seq Scan", "Sort", "B-TREE") if step in stretch] == [], plan
            assert "index" in stretch.lower(), plan


async def explained(session: AsyncSession, statement: str, parameters: Any) -> str:
    how = "EXPLAIN QUERY PLAN" if session.get_bind().dialect.name == "sqlite" else "EXPLAIN"
    lines = await (await session.connection()).exec_driver_sql(f"{how} {statement}", parameters)
    return "\n".join(str(line[-1]) for line in lines)


async def test_a_council_shows_its_terms(clerk: Clerk, register: Register) -> None:
    council = await register.organisation("council", "Kommunfullmäktige")
    seat = {"audience": "politician", "organisation_id": council, "municipalities": ["0880"]}
    for number, first in enumerate(("2022-10-15", "2022-10-15", "2026-10-15")):
        await register.person(f"p{number}@kalmar.example", {**seat, "mandate_from": first})
    page = await clerk.look(f"/kansli/organisationer/{council}")
    assert "Kalmar2026-10-15–1 Kalmar2022-10-15–2" in page.text


async def test_a_group_is_kept(clerk: Clerk, register: Register, database: Database) -> None:
    answer = await clerk.post("/kansli/grupper/ny", name="Samverkan Nybro", municipalities=["0881"])
    place = answer.headers["location"].partition("?")[0]
    role = {**MEMBER, "group_id": place.rpartition("/")[2]}
    eva = await register.person("eva@nybro.example", role, name="Eva Ek")
    bo = await register.person("bo@nybro.example", role, name="Bo Alm")
    assert (await clerk.post(f"{place}/kontaktperson", kontakt="x")).status_code == 422
    answer = await clerk.post(f"{place}/kontaktperson", kontakt=eva)
    page = await clerk.look(answer.headers["location"])
    assert page.entries() == ["Bo Alm", "Eva Ek Kontaktperson"]
    [mail] = await emitted(database, "mail.requested")
    assert mail.data["recipients"][0]["address"] == "eva@nybro.example"
    assert (await clerk.post(f"{place}/bort", medlem=eva)).status_code == 303  # the contact person is not removed
    assert (await clerk.post(f"{place}/bort", medlem=bo)).status_code == 303
    assert (await clerk.look(place)).entries() == ["Eva Ek Kontaktperson"]
    subjects = [mail.data["request"]["subject"] for mail in await emitted(database, "mail.requested")][1:]
    assert sorted(subjects) == [
        "Du är inte längre med i en samverkansgrupp",
        "En medlem har tagits bort ur din samverkansgrupp",
    ]
    assert "av kansliet" in (await clerk.look(f"/kansli/personer/{bo}")).text
    answer = await clerk.post(f"{place}/bjud-in", email="cia@", name="Cia", locale="sv")
    assert answer.status_code == 422
    assert (Seen(answer.text).field("email"), Seen(answer.text).field("name")) == ("cia@", "Cia")
    assert (await clerk.post(f"{place}/bjud-in", email="cia@nybro.example", name="Cia", locale="sv")).status_code == 303
    page = await clerk.look(place)
    assert page.entries() == ["Eva Ek Kontaktperson", "Cia"]
    invitation = page.button("inbjudan", "Ta tillbaka inbjudan Cia")
    assert (await clerk.post(f"{place}/ta-tillbaka", inbjudan=invitation)).status_code == 303
    assert "Ingen inbjudan väntar på svar." in (await clerk.look(place)).text
    assert (await clerk.post(f"{place}/andra", name="Samverkan i Nybro", municipalities=[])).status_code == 303
    assert "Hela länet" in (await clerk.look(place)).text
    taken = await clerk.post("/kansli/grupper/ny", name="samverkan i nybro")
    assert (taken.status_code, "Det finns redan en grupp" in taken.text) == (422, True)


async def test_groups_are_found_page_by_page(clerk: Clerk, register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "SHOWN", 1)
    for name, area in (("Nybro", "0881"), ("Kalmar", "0880"), ("Emmaboda", "0862")):
        await register.group(name, area)
    assert await all_entries(clerk, "/kansli/grupper") == ["Emmaboda", "Kalmar", "Nybro"]
    assert await all_entries(clerk, "/kansli/grupper?kommun=0881") == ["Nybro"]
    assert await all_entries(clerk, "/kansli/grupper?sok=mma") == ["Emmaboda"]


async def test_a_task_says_what_to_do_and_is_closed_once(
    clerk: Clerk, register: Register, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "SHOWN", 1)
    paper = await register.organisation("newsroom", "Barometern")
    desk = await register.person("desk@barometern.example", {**NEWSROOM, "organisation_id": paper})
    about = About(organisation_id=UUID(paper), subscriber_id=UUID(desk))
    wish = await raised(
        database, TaskKind.DESK_WISH, about, address="ny@b.example", municipalities=["0881"], message="Hej"
    )
    bounced = await raised(database, TaskKind.NEWSROOM_BOUNCED, about, status="5.1.1")
    names = ["En redaktion vill ändra något: Barometern", "Mejl till en redaktion kommer tillbaka: Barometern"]
    assert await all_entries(clerk, "/kansli/uppgifter") == names
    assert await all_entries(clerk, "/kansli/uppgifter?slag=newsroom_bounced") == names[1:]
    page = await clerk.look(f"/kansli/uppgifter/{wish}")
    for words in ("Önskad adress ny@b.example", "Önskade kommuner Nybro", "Meddelande Hej", "Ändra det du håller med"):
        assert words in page.text
    assert page.link("Barometern") == f"/kansli/organisationer/{paper}"
    assert page.link("desk@barometern.example") == f"/kansli/personer/{desk}"
    for reason, words in (("  ", "Skriv hur uppgiften löstes."), ("x" * 501, "Skriv högst 500 tecken.")):
        answer = await clerk.post(f"/kansli/uppgifter/{wish}/stang", hur=reason)
        assert (answer.status_code, words in answer.text) == (422, True)
    assert (await clerk.post(f"/kansli/uppgifter/{wish}/stang", hur="Ringde")).status_code == 303
    answer = await clerk.post(f"/kansli/uppgifter/{wish}/stang", hur="Ringde igen")
    assert (answer.status_code, "Någon annan har stängt uppgiften." in answer.text) == (422, True)
    page = await clerk.look(f"/kansli/uppgifter/{wish}")
    assert "Så löstes den Ringde" in page.text
    assert "ny@b.example" not in page.text
    assert await all_entries(clerk, "/kansli/uppgifter") == names[1:]
    assert await all_entries(clerk, "/kansli/uppgifter?lage=closed") == names[:1]
    assert "5.1.1" in (await clerk.look(f"/kansli/uppgifter/{bounced}")).text
    await clerk.look(f"/kansli/uppgifter/{new_id()}", 404)


def test_every_task_has_its_words() -> None:
    assert set(TASKS) == set(TaskKind)


async def test_stops_are_found_by_reason_the_newest_first(
    clerk: Clerk, register: Register, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stops, "SHOWN", 2)
    people = [await register.person(f"p{number}@kalmar.example", {"audience": "public"}) for number in range(5)]
    for person in people[:3]:
        await stop(clerk, person, "Bad om det")
    async with database.transaction() as session:
        for person in people[3:]:
            session.add(
                Suppression(
                    id=new_id(),
                    subscriber_id=UUID(person),
                    reason="hard_bounce",
                    source=Source.BOUNCE,
                    suppressed_at=NOON,
                )
            )
    await clerk.post(f"/kansli/personer/{people[1]}/upphav")
    everybody = [f"p{number}@kalmar.example" for number in (4, 3, 2, 0)]
    assert await all_entries(clerk, "/kansli/stopp") == everybody
    assert await all_entries(clerk, "/kansli/stopp?orsak=manual") == everybody[2:]
    assert await all_entries(clerk, "/kansli/stopp?orsak=hard_bounce") == everybody[:2]
    assert await all_entries(clerk, "/kansli/stopp?orsak=complaint") == []


async def test_coverage_shows_the_holes_by_municipality(clerk: Clerk, register: Register) -> None:
    paper = await register.organisation("newsroom", "Barometern", "0880")
    await register.person("desk@barometern.example", {**NEWSROOM, "organisation_id": paper})
    page = await clerk.look("/kansli/tackning")
    assert "I 12 av 12 kommuner är det någon vi inte når." in page.text
    assert "Kalmar Nås Inget fullmäktige och ingen nämnd nås Ingen samverkansgrupp nås" in page.text
    assert "Nybro Ingen redaktion nås" in page.text
    [county] = [e for e in page.tree.iter("table") if e.get("class") == "map"]
    squares = [[" ".join("".join(square.itertext()).split()) for square in row] for row in county.iter("tr")]
    assert squares[3] == ["Nybro Ingen redaktion", "Kalmar Egna redaktioner: 1", "Mörbylånga Ingen redaktion"]
    assert len([square for row in squares for square in row if square]) == 12
    whole = await register.organisation("newsroom", "Radio Kalmar")
    await register.person("desk@radio.example", {**NEWSROOM, "organisation_id": whole})
    assert "Nybro Bara länets redaktioner" in (await clerk.look("/kansli/tackning")).text
    assert page.link("Barometern") == f"/kansli/organisationer/{paper}"
    assert "1 av 1 nås" in page.text


async def test_the_front_page_says_what_needs_attention(clerk: Clerk, register: Register, database: Database) -> None:
    page = await clerk.look("/kansli")
    for words in ("Det finns ingenting att göra.", "Ingen lista väntar.", "Alla adresser tar emot våra mejl."):
        assert words in page.text
    paper = await register.organisation("newsroom", "Barometern")
    await raised(database, TaskKind.DESK_MISSING, About(organisation_id=UUID(paper)))
    await stored(database, "email\n")
    page = await clerk.look("/kansli")
    assert page.entries() == ["En redaktion saknar redaktionsadress: Barometern", "lista.csv Kontrolleras"]
    assert "Kommuner där vi inte når alla: Borgholm" in page.text
    english = await clerk.look("/kansli?lang=en")
    assert "A newsroom has no desk address" in english.text
