"""A scanner presses everything in every mail that subscriptions sends, and in those that come of it: nobody is gone."""

import re
from datetime import timedelta
from uuid import UUID

import pytest
from httpx2 import AsyncClient
from tests.integration.subscriptions.conftest import Register, emitted
from tests.integration.subscriptions.scanner import OWN, press_everything

from shared.clock import FixedClock
from shared.database import Database
from shared.service import Service
from subscriptions.desks.care import DeskCare

V1 = "/api/subscriptions/v1"
MOST_MAILS = 200


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_whatever_it_presses_leaves_everybody_and_a_way_back(
    register: Register,
    reader: AsyncClient,
    office: AsyncClient,
    database: Database,
    clock: FixedClock,
    service: Service,
) -> None:
    links = service.app.state.links
    group, paper = await register.group("Samverkan", "0880"), await register.organisation("newsroom", "Barometern")
    seat = {"audience": "collaboration_group", "group_id": group}
    anna = await register.person("anna@kalmar.example", seat, {"audience": "public"})
    bo = await register.person("bo@kalmar.example", seat)
    red = await register.person("red@barometern.example", {"audience": "newsroom", "organisation_id": paper})
    care = next(worker for worker in service.workers if isinstance(worker, DeskCare))
    for wait in (timedelta(), timedelta(days=182)):
        clock.advance(wait)
        while await care.advance():
            pass
    assert (await office.put(f"{V1}/groups/{group}/contact", json={"subscriber_id": anna})).status_code == 200
    page, own_group = links.preferences(UUID(anna), 1), links.group(UUID(group), 1)
    for url, form in (
        (page, {"action": "fresh_link"}),
        (links.fresh(UUID(anna), 1, clock.now()), {"action": "move", "new_address": "anna.ny@kalmar.example"}),
        (own_group, {"action": "invite", "email": "ny@kalmar.example", "name": "Ny", "locale": "sv"}),
        (own_group, {"action": "members"}),
        ("/prenumerera", {"email": "okänd@kalmar.example", "frequency": "weekly"}),
    ):
        assert (await reader.post(url, data=form, headers=OWN)).status_code in (200, 303)
    pressed: set[str] = set()
    scanned = 0
    while scanned < len(mails := await emitted(database, "mail.requested")):
        assert scanned < MOST_MAILS, "it never ends"
        for url in re.findall(r"https://[^\s\"']+", str(mails[scanned].data)):
            await press_everything(reader, url, pressed)
        scanned += 1
    subjects = {mail.data["request"]["subject"] for mail in mails}
    assert {"Din adress hos oss har ändrats", "Din prenumeration har ändrats", "Bekräfta din prenumeration"} <= subjects
    assert len(pressed) > 20
    for person in (anna, bo, red):
        assert (await office.get(f"{V1}/subscribers/{person}")).status_code == 200, "nobody is erased"
        history = (await office.get(f"{V1}/subscribers/{person}/history")).json()["data"]
        told = [mail for mail in mails if mail.data["recipients"][0]["recipient_id"] == person]
        assert len(history) == 1 or told, "what changed is shown, and was mailed"
    desk = (await office.get(f"{V1}/organisations/{paper}/desk")).json()
    assert (desk["step"], desk["answered_at"]) == ("remind", None), "no scanner says that the desk is right"
    erased = {event.data["recipient_id"] for event in await emitted(database, "recipient.erased")}
    assert erased.isdisjoint({anna, bo, red})
    clock.advance(timedelta(hours=1))
    newest = (await office.get(f"{V1}/subscribers/{anna}")).json()
    assert newest["address"] in ("anna@kalmar.example", "anna.ny@kalmar.example")
