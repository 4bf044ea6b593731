"""Collaboration groups: a contact person invites and removes, everybody is told, and everything has a way back."""

import re
from datetime import timedelta
from typing import Any
from uuid import UUID

import html5lib
import pytest
from httpx2 import AsyncClient
from sqlalchemy import select
from tests.integration.subscriptions.conftest import Register, emitted
from tests.integration.subscriptions.test_subscriptions_stops import bring

from shared.clock import FixedClock
from shared.contracts.delivery import BounceKind, DeliveryBounced
from shared.database import Database
from shared.ids import new_id
from shared.messaging.outbox import outbox
from shared.service import Service
from subscriptions.desks.care import DeskCare
from subscriptions.groups.weeding import GroupWeeder
from subscriptions.limits import Counted, Limit
from subscriptions.models import Base
from subscriptions.settings import SubscriptionsSettings
from subscriptions.suppressions import standing

V1 = "/api/subscriptions/v1"
OWN = {"sec-fetch-site": "same-origin"}
GROUP = "Lokala samverkansgruppen Kalmar-Öland"
EVA, BO, NEW = "eva@kalmar.example", "bo@kalmar.example", "ny@kalmar.example"


class Team:
    """A group with a contact person and a member, and everybody's mail."""

    def __init__(self, office: AsyncClient, reader: AsyncClient, database: Database, group: str, eva: str, bo: str):
        self.office, self.reader, self.database = office, reader, database
        self.group, self.eva, self.bo = group, eva, bo
        self.page = ""

    async def mails(self, address: str) -> list[dict[str, Any]]:
        """What somebody has been mailed, in the order of the asking."""
        events = [event.data for event in await emitted(self.database, "mail.requested")]
        theirs = [data for data in events if data["recipients"][0]["address"] == address]
        return sorted(theirs, key=lambda data: data["subject_id"])

    async def newest(self, address: str) -> dict[str, str]:
        return dict((await self.mails(address))[-1]["request"])

    async def members(self) -> set[str]:
        found = (await self.office.get(f"{V1}/subscribers?audience=collaboration_group&limit=100")).json()["data"]
        return {row["address"] for row in found}

    async def post(self, url: str, **form: str) -> Any:
        return await self.reader.post(url, data=form, headers=OWN)

    async def invite(self, address: str = NEW, **form: str) -> Any:
        return await self.post(self.page, action="invite", email=address, **form)

    async def fresh(self) -> str:
        assert (await self.post(self.page, action="members")).status_code == 303
        return (await self.newest(EVA))["action_url"]


@pytest.fixture
async def team(office: AsyncClient, reader: AsyncClient, register: Register, database: Database) -> Team:
    group = await register.group(GROUP, "0880", "0885", "0840")
    role = {"audience": "collaboration_group", "group_id": group}
    eva = await register.person(EVA, role, name="Eva Ek")
    bo = await register.person(BO, role, name="Bo Alm", locale="en")
    team = Team(office, reader, database, group, eva, bo)
    assert (await office.get(f"{V1}/groups/{group}/contact")).status_code == 404
    assert (await office.put(f"{V1}/groups/{group}/contact", json={"subscriber_id": eva})).status_code == 200
    team.page = (await team.newest(EVA))["action_url"]
    return team


async def test_the_standing_page_names_nobody(team: Team) -> None:
    page = await team.reader.get(team.page)
    assert page.status_code == 200
    assert "Borgholm, Kalmar, Mörbylånga" in page.text
    for word in ("Bo Alm", "Eva Ek", "kalmar.example"):
        assert word not in page.text
    shown = html5lib.parse((await team.reader.get(await team.fresh())).text, namespaceHTMLElements=False)
    text = "".join(shown.itertext())
    assert all(word in text for word in ("Bo Alm", BO, EVA, "kontaktperson"))


async def test_an_invitation_is_confirmed_once_and_everybody_is_told(team: Team) -> None:
    for _ in range(2):
        answer = await team.invite(name="Ny Person")
        assert answer.status_code == 303
    told = [mail["request"]["subject"] for mail in await team.mails(EVA)]
    assert told[1:] == ["Någon har bjudits in till din samverkansgrupp"]
    assert len(await team.mails(NEW)) == 2
    link = (await team.newest(NEW))["action_url"]
    for method in ("GET", "HEAD"):
        assert (await team.reader.request(method, link, follow_redirects=True)).status_code == 200
    assert (await team.post(link)).status_code == 400
    assert await team.members() == {EVA, BO}
    for _ in range(2):
        yes = await team.post(link, answer="yes")
        assert "Du är med i gruppen" in yes.text
    assert await team.members() == {EVA, BO, NEW}
    assert "Ny Person" in (await team.newest(EVA))["paragraphs"][0]
    assert "Du är med i gruppen" in (await team.reader.get(link)).text
    welcome = await team.newest(NEW)
    assert (await team.reader.get(welcome["action_url"])).status_code == 200
    assert len(await team.mails(NEW)) == 3
    known, unknown = await team.invite(BO), await team.invite("annan@kalmar.example")
    assert (known.status_code, known.headers["location"]) == (unknown.status_code, unknown.headers["location"])
    assert await team.mails(BO) == []


async def test_a_no_and_an_old_invitation_leave_no_address(
    team: Team, clock: FixedClock, service: Service, database: Database
) -> None:
    await team.invite()
    link = (await team.newest(NEW))["action_url"]
    assert "Du har tackat nej" in (await team.post(link, answer="no")).text
    assert (await team.reader.get(link)).status_code == 404
    assert (await team.post(link, answer="yes")).status_code == 404
    assert "fick ett nej" in (await team.newest(EVA))["subject"]
    await team.invite("sen@kalmar.example")
    late = (await team.newest("sen@kalmar.example"))["action_url"]
    clock.advance(timedelta(days=30))
    assert (await team.post(late, answer="yes")).status_code == 404
    weeder = next(worker for worker in service.workers if isinstance(worker, GroupWeeder))
    await weeder.weed()
    erased = {event.data["recipient_id"] for event in await emitted(database, "recipient.erased")}
    asked = {
        mail["recipients"][0]["recipient_id"] for who in (NEW, "sen@kalmar.example") for mail in await team.mails(who)
    }
    assert erased == asked
    assert await team.members() == {EVA, BO}


async def test_a_removal_is_told_to_both_and_has_a_way_back(team: Team) -> None:
    fresh = await team.fresh()
    assert (await team.post(fresh, remove=team.eva)).status_code == 303  # the contact person stays
    for _ in range(2):
        assert (await team.post(fresh, remove=team.bo)).status_code == 303
    assert await team.members() == {EVA}
    [farewell] = await team.mails(BO)
    assert farewell["request"]["subject"] == "You no longer belong to a collaboration group"
    told = await team.newest(EVA)
    assert "Bo Alm" in told["paragraphs"][0]
    back = farewell["request"]["action_url"]
    assert "Do you want to stay in the group?" in (await team.reader.get(back)).text
    before = len(await team.mails(EVA))
    for _ in range(2):
        assert "We have passed it on" in (await team.post(back)).text
    assert len(await team.mails(EVA)) == before + 1
    tasks = (await team.office.get(f"{V1}/tasks")).json()["data"]
    assert [(task["kind"], task["group_id"], task["subscriber_id"]) for task in tasks] == [
        ("group_return", team.group, team.bo)
    ]
    undo = (await team.newest(EVA))["action_url"]
    assert undo == told["action_url"]
    page = await team.reader.get(undo)
    assert "Bo Alm" not in page.text
    assert await team.members() == {EVA}
    for _ in range(2):
        assert "Ändringen är ångrad" in (await team.post(undo)).text
    assert await team.members() == {EVA, BO}
    assert len(await team.mails(BO)) == 2
    again = await team.newest(EVA)
    assert again["subject"] == "En medlem är tillbaka i din samverkansgrupp"
    assert "You belong to the group again" in (await team.reader.get(back)).text


async def test_an_invitation_can_be_undone_before_and_after_the_answer(team: Team) -> None:
    await team.invite()
    undo = (await team.newest(EVA))["action_url"]
    link = (await team.newest(NEW))["action_url"]
    assert (await team.post(link, answer="yes")).status_code == 200
    assert (await team.post(undo)).status_code == 200
    assert await team.members() == {EVA, BO}
    await team.invite("annan@kalmar.example")
    undo = (await team.newest(EVA))["action_url"]
    assert (await team.post(undo)).status_code == 200
    other = (await team.newest("annan@kalmar.example"))["action_url"]
    assert (await team.reader.get(other)).status_code == 404
    await team.invite("tredje@kalmar.example")
    fresh = await team.fresh()
    page = (await team.reader.get(fresh)).text
    [invitation] = re.findall(r'name="withdraw" value="([^"]+)"', page)
    assert (await team.post(fresh, withdraw=invitation)).status_code == 303
    assert "tredje@" not in (await team.reader.get(fresh)).text
    assert "tillbakatagen" in (await team.newest(EVA))["subject"]


async def test_links_end_with_time_and_with_the_contact_person(
    team: Team, clock: FixedClock, reader: AsyncClient
) -> None:
    fresh = await team.fresh()
    clock.advance(timedelta(minutes=30))
    ended = await reader.get(fresh)
    assert (ended.status_code, "30 minuter" in ended.text) == (404, True)
    assert (await team.post(fresh, remove=team.bo)).status_code == 404
    token, standing = fresh.rpartition("/")[2], team.page.rpartition("/")[2]
    for crossed in (f"/prenumeration/grupp/{token}", f"/prenumeration/grupp/medlemmar/{standing}"):
        assert (await reader.get(crossed)).status_code == 404
    stranger = {"sec-fetch-site": "cross-site"}
    assert (await reader.post(team.page, data={"action": "members"}, headers=stranger)).status_code == 403
    path = f"{V1}/groups/{team.group}/contact"
    assert (await team.office.put(path, json={"subscriber_id": str(new_id())})).status_code == 422
    assert (await reader.get(team.page)).status_code == 200
    assert (await team.office.put(path, json={"subscriber_id": team.bo})).status_code == 200
    assert (await reader.get(team.page)).status_code == 404
    assert (await team.office.get(path)).json()["subscriber_id"] == team.bo


async def test_bad_input_and_too_much_of_it(team: Team) -> None:
    faulty = await team.invite("ny@", name="Ny Person", locale="en")
    assert faulty.status_code == 422
    assert 'value="ny@"' in faulty.text
    assert 'value="Ny Person"' in faulty.text
    assert (await team.invite(NEW, name="a\u202eb")).status_code == 422
    assert (await team.post(team.page, action="dance")).status_code == 422
    answers = [(await team.invite()).status_code for _ in range(6)]
    assert answers == [303] * 5 + [429]
    assert len(await team.mails(NEW)) == 5


async def test_undoing_in_the_group_waits_for_nobody(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    await team.invite()
    undo = (await team.newest(EVA))["action_url"]
    monkeypatch.setattr(SubscriptionsSettings, "person_limit", Limit(Counted.PERSON, 0))
    refused = await team.post(undo)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) <= 3_600
    assert "Skriv ordet ångra" in refused.text
    assert "renumerationen har ändrats" not in refused.text
    assert (await team.post(undo, ord="ångra")).status_code == 200
    assert (await team.newest(EVA))["subject"] == "En inbjudan till din samverkansgrupp är tillbakatagen"


async def test_nobody_is_lost_in_silence(team: Team, service: Service, register: Register) -> None:
    """A contact person who bounces is a task; whoever had ended everything gets the group's news alone."""
    hard = DeliveryBounced(delivery_id=new_id(), recipient_id=UUID(team.eva), kind=BounceKind.HARD, status="5.1.1")
    await bring(service, hard)
    tasks = (await team.office.get(f"{V1}/tasks")).json()["data"]
    assert [task["kind"] for task in tasks] == ["group_contact_bounced"]
    cia = await register.person("cia@kalmar.example", {"audience": "public"})
    await register.change(cia, unsubscribed=True)
    await team.invite("cia@kalmar.example")
    await team.post((await team.newest("cia@kalmar.example"))["action_url"], answer="yes")
    shown = (await team.office.get(f"{V1}/subscribers/{cia}")).json()
    assert (shown["state"], shown["left_audiences"]) == ("active", ["public"])
    assert (await team.office.delete(f"{V1}/subscribers/{cia}")).status_code == 204
    assert await team.members() == {EVA, BO}


async def test_a_yes_ends_what_the_mailbox_caused_and_a_contact_person_ends_nothing(
    team: Team, service: Service, register: Register, office: AsyncClient
) -> None:
    dan = await register.person("dan@kalmar.example")
    hard = DeliveryBounced(delivery_id=new_id(), recipient_id=UUID(dan), kind=BounceKind.HARD, status="5.1.1")
    await bring(service, hard)
    await team.invite("dan@kalmar.example")
    yes = (await team.newest("dan@kalmar.example"))["action_url"]
    for reasons in ([], ["hard_bounce"]):
        await team.post(yes, answer="yes")
        async with service.database.reading() as session:
            assert await standing(session, UUID(dan)) == set(reasons)
        assert (await office.get(f"{V1}/subscribers/{dan}")).json()["state"] == ("suppressed" if reasons else "active")
        await bring(service, hard.model_copy(update={"delivery_id": new_id()}))
    await register.change(team.bo, unsubscribed=True)
    await team.post(await team.fresh(), remove=team.bo)
    await team.post((await team.newest(EVA))["action_url"])
    assert BO in await team.members()
    assert (await office.get(f"{V1}/subscribers/{team.bo}")).json()["state"] == "unsubscribed"


async def everything(database: Database) -> dict[str, list[Any]]:
    """Every row of every table, and of the outbox."""
    async with database.reading() as session:
        tables = [*Base.metadata.sorted_tables, outbox]
        return {table.name: sorted(map(str, await session.execute(select(table)))) for table in tables}


async def test_b20_a_scanner_that_follows_every_link_changes_nothing(
    team: Team, database: Database, register: Register, clock: FixedClock, service: Service
) -> None:
    paper = await register.organisation("newsroom", "Barometern")
    await register.person("red@barometern.example", {"audience": "newsroom", "organisation_id": paper})
    care = next(worker for worker in service.workers if isinstance(worker, DeskCare))
    for wait in (timedelta(), timedelta(days=182)):
        clock.advance(wait)
        while await care.advance():
            pass
    await team.invite()
    await team.invite("annan@kalmar.example")
    await team.post((await team.newest(NEW))["action_url"], answer="yes")
    await team.post(await team.fresh(), remove=team.bo)
    before = await everything(database)
    mails = [event.data for event in await emitted(database, "mail.requested")]
    links = {mail["request"]["action_url"] for mail in mails}
    links |= {mail["recipients"][0]["preferences_url"] for mail in mails} - {""}
    assert len({link.rpartition("/")[0] for link in links}) == 7
    for link in links:
        for method in ("GET", "HEAD"):
            answer = await team.reader.request(method, link, follow_redirects=True)
            assert answer.status_code == 200, link
    assert await everything(database) == before


async def test_erasing_forgets_an_open_invitation(team: Team, register: Register, office: AsyncClient) -> None:
    dan = await register.person("dan@kalmar.example")
    await team.invite("dan@kalmar.example", name="Dan")
    link = (await team.newest("dan@kalmar.example"))["action_url"]
    await office.delete(f"{V1}/subscribers/{dan}")
    assert (await team.reader.get(link)).status_code == 404
    assert await team.mails("dan@kalmar.example") == []
