"""The office sends in lists on pages: nothing changes before a yes, every fault is told, and a file too many harms nothing."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import func, select
from tests.integration.subscriptions.conftest import Register
from tests.integration.subscriptions.office import FROM_HERE, Clerk, Seen
from tests.integration.subscriptions.test_subscriptions_imports import carrier, people
from tests.integration.subscriptions.test_subscriptions_rolls import ELECTED, SITTING

from shared.database import Database
from shared.service import Service
from subscriptions.imports.models import Import, ImportFile
from subscriptions.imports.worker import ImportWorker
from subscriptions.models import Subscriber

__all__ = ["carrier"]

IMPORTS = "/kansli/importer"


@pytest.fixture
async def clerk(service: Service) -> AsyncIterator[Clerk]:
    clerk = Clerk(service)
    assert (await clerk.sign_in()).status_code == 303
    yield clerk
    await clerk.browser.aclose()


async def send(clerk: Clerk, raw: bytes, kind: str = "public", name: str = "lista.csv") -> Any:
    files = {"fil": (name, raw, "text/csv")}
    return await clerk.browser.post(f"{IMPORTS}/ny", data={"lista": kind}, files=files, headers=FROM_HERE)


async def sent(clerk: Clerk, raw: bytes, kind: str = "public") -> str:
    answer = await send(clerk, raw, kind)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


async def count(database: Database, table: Any) -> int:
    async with database.reading() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


async def test_a_list_is_shown_before_it_is_taken_in(
    clerk: Clerk, carrier: ImportWorker, database: Database, register: Register
) -> None:
    await register.person("p1@kalmar.example", {"audience": "public"}, name="Person 1")
    await register.person("p2@kalmar.example", {"audience": "public"}, name="Någon annan")
    place = await sent(clerk, people(5).encode())
    page = await clerk.look(place)
    assert "Filen kontrolleras." in page.text
    answer = await clerk.browser.get(place)
    assert answer.headers["refresh"] == "3"
    assert "refresh" not in (await clerk.browser.get(f"{place}?stilla=ja")).headers
    assert await carrier.advance()
    answer = await clerk.browser.get(place)
    assert "refresh" not in answer.headers
    text = Seen(answer.text).text
    for words in ("Ingenting är ändrat än.", "Nya personer 3", "Rader som ändrar något 1", "redan stämmer 1"):
        assert words in text
    assert await count(database, Subscriber) == 2
    for _ in range(2):  # a double click
        assert (await clerk.post(f"{place}/las-in", version="")).status_code == 303
    assert "0 av 5 rader är inlästa." in (await clerk.look(place)).text
    assert await carrier.advance()
    assert not await carrier.advance()
    assert "Listan är inläst." in (await clerk.look(place)).text
    assert (await count(database, Subscriber), await count(database, ImportFile)) == (5, 0)
    assert (await clerk.look(IMPORTS)).entries() == ["lista.csv Inläst"]
    assert (await clerk.post(f"{place}/avbryt")).headers["location"] == place


async def test_a_roll_shows_who_joins_leaves_and_changes(
    clerk: Clerk, carrier: ImportWorker, register: Register
) -> None:
    place = await sent(clerk, SITTING.encode("cp1252"), "roll")
    assert await carrier.advance()
    page = await clerk.look(place)
    assert "Kommunfullmäktige, Kalmar" in page.text
    assert "Kommer in: 2 Anna Åberg anna@kalmar.example Bo Ek bo@kalmar.example" in page.text
    assert (await clerk.post(f"{place}/las-in", version="0" * 32)).status_code == 303
    assert "Läs in listan" in (await clerk.look(place)).text  # not what was shown: nothing is agreed to
    assert (await clerk.post(f"{place}/las-in", version=page.field("version"))).status_code == 303
    assert await carrier.advance()
    assert "Kommer in: 2" in (await clerk.look(place)).text
    shorter = SITTING.partition("bo@")[0].replace("Anna Åberg", "Anna Öberg")
    place = await sent(clerk, shorter.encode(), "roll")
    assert await carrier.advance()
    text = (await clerk.look(place)).text
    assert "Lämnar: 1 Bo Ek bo@kalmar.example" in text
    assert "namn: Anna Åberg → Anna Öberg" in text
    assert (await clerk.post(f"{place}/avbryt")).status_code == 303
    assert "Ingenting är inläst." in (await clerk.look(place)).text
    english = await clerk.look(f"{await sent(clerk, ELECTED.encode(), 'roll')}?lang=en")
    assert "The file is being checked." in english.text


FAULTS: list[tuple[bytes, str]] = [
    (b"PK\x03\x04\x14\x00\x06\x00", "Det här är en Excelfil."),
    ("email;namn\n".encode("utf-16"), "fel teckenkodning"),
    (b"", "Filen är tom."),
    (b"namn;kommun\n", "Kolumnen e-post saknas."),
    (b"email;skonummer\n", "Kolumnen ”skonummer” finns inte för målgruppen. Använd: e-post, namn, språk, kommun."),
    (b"email;namn\na@kalmar.example,Anna\n", "Raden har komma mellan värdena, men första raden har semikolon."),
    (b"email\na@kalmar.example\na@kalmar.example\n", "Adressen står redan på rad 2. Ta bort en av raderna."),
    (b"email;namn\n=HYPERLINK(1);x\n", "Adressen saknar @."),
    (b"email;namn\nx\r\ny@kalmar.example;y\n", "Raden har 1 värden men filen har 2 kolumner."),
]


async def test_every_bad_file_has_a_clear_answer_and_changes_nothing(
    clerk: Clerk, carrier: ImportWorker, database: Database
) -> None:
    for raw, words in FAULTS:
        place = await sent(clerk, raw)
        assert await carrier.advance()
        page = await clerk.look(place)
        assert "Ingenting är inläst. Rätta raderna" in page.text, raw
        assert words in page.text, page.text
    assert (await count(database, Subscriber), await count(database, ImportFile)) == (0, 0)


async def test_what_is_no_list_is_refused_beside_its_field(clerk: Clerk, database: Database) -> None:
    for raw, kind, name, words in (
        (b"email\n", "", "lista.csv", "Välj vilka listan gäller."),
        (b"email\n", "nonsense", "lista.csv", "Välj vilka listan gäller."),
        (b"", "public", "", "Välj en fil."),
        (b"x" * 20_000_001, "public", "lista.csv", "Filen är större än 20 MB."),
        (b"x" * 20_200_000, "public", "lista.csv", "Filen är större än 20 MB."),
    ):
        answer = await send(clerk, raw, kind, name)
        assert answer.status_code == 422, words
        assert words in Seen(answer.text).text
    assert (await clerk.post(f"{IMPORTS}/ny", lista="public")).status_code == 422
    foreign = {"Origin": "https://evil.example"}
    files = {"fil": ("lista.csv", b"email\n")}
    answer = await clerk.browser.post(f"{IMPORTS}/ny", data={"lista": "public"}, files=files, headers=foreign)
    assert answer.status_code == 403
    assert await count(database, Import) == 0
    await clerk.look(f"{IMPORTS}/00000000-0000-0000-0000-000000000000", 404)
    clerk.browser.cookies.clear()
    assert (await clerk.browser.get(IMPORTS)).headers["location"].startswith("/kansli/logga-in")
