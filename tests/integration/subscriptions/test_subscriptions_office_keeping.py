"""The office adds, changes, stops and erases people on pages: faults beside their fields, nothing typed is lost."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import func, select
from tests.integration.subscriptions.conftest import Register, emitted
from tests.integration.subscriptions.office import FROM_HERE, Clerk, Seen

from shared.database import Database
from shared.ids import new_id
from shared.service import Service
from subscriptions.models import HistoryRow, Role, Subscriber

PEOPLE = "/kansli/personer"


@pytest.fixture
async def clerk(service: Service) -> AsyncIterator[Clerk]:
    clerk = Clerk(service)
    assert (await clerk.sign_in()).status_code == 303
    yield clerk
    await clerk.browser.aclose()


async def count(database: Database, table: type) -> int:
    async with database.reading() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


async def test_a_person_is_added_and_found_at_once(clerk: Clerk, register: Register) -> None:
    await register.organisation("council", "Kommunfullmäktige")
    seat = {"malgrupp": "politician", "plats": " kommunfullmäktige", "omraden": ["0881"], "fran": "2026-10-15"}
    form = {"email": "Eva.Ek@nybro.example", "name": "Eva Ek", "locale": "en", "topics": ["results"], **seat}
    answer = await clerk.post(f"{PEOPLE}/ny", **form)
    assert answer.status_code == 303
    page = await clerk.look(answer.headers["location"])
    for words in ("Personen är tillagd.", "Förtroendevald, Kommunfullmäktige, Nybro, 2026-10-15–", "English"):
        assert words in page.text
    found = (await clerk.look(f"{PEOPLE}?sok=eva")).entries()
    assert found == ["Eva Ek Får inga mejl än"], "the mandate begins in October"
    answer = await clerk.post(f"{PEOPLE}/ny", **form)
    assert answer.status_code == 422
    assert "Adressen finns redan i registret." in Seen(answer.text).text


SEAT = {"malgrupp": "politician", "plats": "Kommunfullmäktige"}
FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"email": "eva@"}, "Det saknas en punkt i delen efter @."),
    ({"email": ""}, "Skriv en e-postadress."),
    ({"name": "x" * 201}, "Texten är för lång."),
    ({"malgrupp": ""}, "Välj en målgrupp."),
    ({"malgrupp": "politician", "plats": "Okänd"}, "Det finns ingen redaktion, nämnd, myndighet eller grupp"),
    ({**SEAT, "malgrupp": "collaboration_group"}, "Det finns ingen redaktion, nämnd"),
    ({**SEAT, "fran": "i höst"}, "Skriv datumet så här"),
    ({**SEAT, "fran": "2026-10-15", "till": "2026-10-14"}, "Sista dagen är före den första."),
    ({"municipalities": ["9999"]}, "Något behöver rättas"),
    ({"topics": ["nonsense"]}, "Något behöver rättas"),
    ({"locale": "de"}, "Något behöver rättas"),
]


async def test_a_fault_stands_beside_its_field(clerk: Clerk, register: Register, database: Database) -> None:
    await register.organisation("council", "Kommunfullmäktige")
    for fields, fault in FAULTS:
        form = {"email": "eva@nybro.example", "name": "Eva Ek", "locale": "sv", "malgrupp": "public", **fields}
        answer = await clerk.post(f"{PEOPLE}/ny", **form)
        assert answer.status_code == 422, fields
        page = Seen(answer.text)
        assert fault in page.text, fields
        assert (page.field("email"), page.field("name")) == (form["email"], form["name"])
    assert await count(database, Subscriber) == 0


async def test_a_change_is_saved_and_a_second_hand_is_told(clerk: Clerk, register: Register) -> None:
    eva = await register.person("eva@nybro.example", {"audience": "public"}, name="Eva", topics=["results"])
    await register.person("bo@nybro.example", {"audience": "public"})
    path = f"{PEOPLE}/{eva}/andra"
    page = await clerk.look(path)
    version = page.field("version")
    form = {"email": "eva@nybro.example", "name": "Eva Ek", "locale": "sv", "version": version}
    answer = await clerk.post(path, **form)
    assert "Ändringarna är sparade." in (await clerk.look(answer.headers["location"])).text
    assert (await clerk.look(f"{PEOPLE}?sok=ek")).entries() == ["Eva Ek"]
    answer = await clerk.post(path, **{**form, "name": "Eva Alm"})
    assert answer.status_code == 422
    page = Seen(answer.text)
    assert "Någon har ändrat uppgifterna sedan du öppnade sidan." in page.text
    assert page.field("name") == "Eva Alm"
    again = {**form, "name": "Eva Alm", "version": page.field("version")}
    assert (await clerk.post(path, **again)).status_code == 303
    now = (await clerk.look(path)).field("version")
    answer = await clerk.post(path, **{**form, "version": now, "email": "bo@nybro.example"})
    assert "Adressen finns redan i registret." in Seen(answer.text).text
    assert (await clerk.look(f"{PEOPLE}?sok=alm")).entries() == ["Eva Alm"]


async def test_roles_come_and_go_one_by_one(clerk: Clerk, register: Register, database: Database) -> None:
    council = await register.organisation("council", "Kommunfullmäktige")
    await register.group("Samverkan Kust", "0885")
    old = {"audience": "politician", "organisation_id": council, "mandate_until": "2026-10-14"}
    eva = await register.person("eva@nybro.example", old, {"audience": "public"}, name="Eva")
    path = f"{PEOPLE}/{eva}"
    await clerk.look(f"{path}/roller")
    group = {"malgrupp": "collaboration_group", "plats": "samverkan kust"}
    assert (await clerk.post(f"{path}/roller", **group)).status_code == 303
    answer = await clerk.post(f"{path}/roller", **group)
    assert (answer.status_code, "Personen har redan den rollen." in Seen(answer.text).text) == (422, True)
    page = await clerk.look(path)
    assert [entry for entry in page.entries() if "Kom med" not in entry] == [
        "Förtroendevald, Kommunfullmäktige, –2026-10-14",
        "Samverkansgrupp, Samverkan Kust",
        "Allmänheten",
    ]
    dropped = page.button("roll", "Ta bort rollen Samverkansgrupp, Samverkan Kust")
    for _ in range(2):  # a double click
        assert (await clerk.post(f"{path}/roller/bort", roll=dropped)).status_code == 303
    assert await count(database, Role) == 2


async def test_the_office_stops_and_lifts(clerk: Clerk, register: Register, database: Database) -> None:
    eva = await register.person("eva@nybro.example", {"audience": "public"}, name="Eva")
    path = f"{PEOPLE}/{eva}"
    await clerk.look(f"{path}/stoppa")
    assert (await clerk.post(f"{path}/stoppa", note="x" * 201)).status_code == 422
    answer = await clerk.post(f"{path}/stoppa", note="Bad per telefon")
    page = await clerk.look(answer.headers["location"])
    for words in ("Personen får inga fler mejl.", "Stoppad av kansliet Gäller", "Bad per telefon", "Upphäv stoppet"):
        assert words in page.text
    answer = await clerk.post(f"{path}/upphav")
    assert "Stoppet är upphävt." in (await clerk.look(answer.headers["location"])).text
    assert [e.data["version"] for e in await emitted(database, "recipient.")] == [2, 3]


async def test_erasing_asks_first_and_happens_once(clerk: Clerk, register: Register, database: Database) -> None:
    eva = await register.person("eva@nybro.example", {"audience": "public"}, name="Eva")
    path = f"{PEOPLE}/{eva}/radera"
    assert "Det går inte att ångra." in (await clerk.look(path)).text
    assert await count(database, Subscriber) == 1
    answer = await clerk.post(path)
    assert "Personen är raderad." in (await clerk.look(answer.headers["location"])).text
    assert await count(database, Subscriber) == 0
    assert (await clerk.post(path)).status_code == 404
    assert len(await emitted(database, "recipient.erased")) == 1
    for page in ("", "/andra", "/roller", "/stoppa", "/radera"):
        await clerk.look(f"{PEOPLE}/{new_id()}{page}", status=404)
    for act in ("andra", "roller", "roller/bort", "stoppa", "upphav"):
        answer = await clerk.post(f"{PEOPLE}/{eva}/{act}", email="a@b.example", malgrupp="public", locale="sv")
        assert answer.status_code == 404, act


async def test_the_history_goes_on_page_by_page(clerk: Clerk, register: Register, database: Database) -> None:
    eva = await register.person("eva@nybro.example", {"audience": "public"})
    for turn in range(22):
        await register.change(eva, topics=["results"] if turn % 2 else [])
    page = await clerk.look(f"{PEOPLE}/{eva}")
    assert page.text.count("Ändrat av kansliet") == 20
    page = await clerk.look(page.link("Äldre ändringar"))
    older = page.text.count("Ändrat av kansliet") + page.text.count("Kom med av kansliet")
    assert older == await count(database, HistoryRow) - 20


async def test_a_form_that_comes_too_late_tells_how_to_keep_what_was_typed(
    service: Service, database: Database
) -> None:
    stranger = Clerk(service)
    answer = await stranger.post(f"{PEOPLE}/ny", email="anna@kalmar.example", malgrupp="public", locale="sv")
    assert answer.status_code == 401
    assert "Logga in i en ny flik" in Seen(answer.text).text
    await stranger.sign_in()
    foreign = {**FROM_HERE, "Sec-Fetch-Site": "cross-site"}
    answer = await stranger.post(f"{PEOPLE}/ny", foreign, email="anna@kalmar.example", malgrupp="public", locale="sv")
    assert answer.status_code == 403
    assert await count(database, Subscriber) == 0
    await stranger.browser.aclose()
