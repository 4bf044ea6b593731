"""A digest, from publication to the inbox and back: each reader's own, corrected before it goes, taken back after."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import mailparser
import pytest
from tests.deployments import Deployment, Distributed, Standalone
from tests.desk import SUBSCRIPTIONS, Desk
from tests.eventually import eventually
from tests.inboxes import Inboxes, Mail
from tests.servers.rabbitmq import shared_amqp_url

AT_ONCE, DAILY, WEEKLY, SEVERAL = (f"{name}@folk.example" for name in ("genast", "daglig", "vecka", "flera"))
GONE, KEPT, TAKEN_BACK = "Borta före utskicket", "Öppet hus i Nybro", "Nya siffror för Språnget"


@pytest.fixture(params=[Distributed.kind, Standalone.kind])
def deployment(request: pytest.FixtureRequest, inboxes: Inboxes) -> Iterator[Deployment]:
    made = Distributed(shared_amqp_url()) if request.param == Distributed.kind else Standalone()
    with made.opened(inboxes.port):
        yield made


@pytest.fixture
async def desk(deployment: Deployment) -> AsyncIterator[Desk]:
    async with deployment.client() as api:
        desk = Desk(api)
        public = {"audience": "public"}
        agency = await desk.add_place("agency", "Försäkringskassan")
        official = {"audience": "agency_official", "organisation_id": agency}
        for address, often, roles in (
            (AT_ONCE, {}, [public]),
            (DAILY, {"everything": "daily"}, [public]),
            (WEEKLY, {"everything": "weekly"}, [public]),
            (SEVERAL, {"everything": "daily"}, [public, official]),
        ):
            await desk.add_subscriber({"address": address, "roles": roles, "frequencies": often})
        yield desk


def fields(title: str, *audiences: str, **more: str) -> dict[str, Any]:
    return {
        "kind": "news",
        "title": title,
        "lead": f"{title}: ingress.",
        "body": "Text.",
        "audiences": audiences,
        **more,
    }


async def run(desk: Desk, *, weekly: bool) -> dict[str, Any]:
    """A digest run at once, until it has come to everybody."""
    begun = await desk.call("POST", f"{SUBSCRIPTIONS}/digest-runs", json={"weekly": weekly})

    async def completed() -> dict[str, Any]:
        runs = (await desk.call("GET", f"{SUBSCRIPTIONS}/digest-runs"))["data"]
        (mine,) = [one for one in runs if one["id"] == begun["id"]]
        assert mine["state"] == "completed"
        return dict(mine)

    return await eventually(completed, within=30, every=0.1)


def digests(inboxes: Inboxes) -> dict[str, Mail]:
    return {mail.to: mail for mail in inboxes.mails if mail.header("X-Budkavle-Digest-Run")}


async def arrived(inboxes: Inboxes, *addresses: str) -> dict[str, Mail]:
    async def there() -> dict[str, Mail]:
        found = digests(inboxes)
        assert set(found) == set(addresses)
        return found

    return await eventually(there, within=30, every=0.1)


def read(mail: Mail) -> Any:
    """As another's parser reads it."""
    return mailparser.parse_from_bytes(mail.content)


async def test_a_digest_reaches_its_readers_and_what_is_taken_back_reaches_them_too(
    desk: Desk, inboxes: Inboxes
) -> None:
    gone = await desk.publish_new(fields(GONE, "public"))
    kept = await desk.publish_new(fields(KEPT, "public", "agency_official"))
    faulty = await desk.publish_new(fields(TAKEN_BACK, "public"))
    urgent = await desk.publish_new(fields("Inställt i kväll", "public", urgent_reason="Mötet skulle ha börjat 18."))
    for item in (gone, kept, faulty, urgent):
        await desk.reached(item)
    assert {mail.to for mail in inboxes.of(urgent)} == {AT_ONCE, DAILY, WEEKLY, SEVERAL}
    through = next(mail for mail in inboxes.of(urgent) if mail.to == DAILY)
    assert "Du har valt att få nyheter samlade, men den här är brådskande" in " ".join(
        read(through).text_plain[0].split()
    )
    assert {mail.to for item in (gone, kept, faulty) for mail in inboxes.of(item)} == {AT_ONCE}
    left_out = {out["detail"] for out in await desk.exclusions(kept)}
    assert left_out == {"får dagligt sammandrag", "får veckosammandrag"}

    await desk.withdraw(gone, "Det stämde inte.")
    await desk.correct(kept, {"lead": "Rätt tid är 14."}, "Tiden var fel.")
    await asyncio.gather(desk.reached(gone), desk.reached(kept))
    assert (await run(desk, weekly=False))["mails"] == 2
    found = await arrived(inboxes, DAILY, SEVERAL)
    for mail in found.values():
        letter = read(mail)
        (text,), (html,) = letter.text_plain, letter.text_html
        for part in (text, html):
            assert KEPT in part and TAKEN_BACK in part and "Rätt tid är 14." in part
            assert GONE not in part and "Inställt i kväll" not in part
        assert letter.subject.startswith("Sammandrag: ")
        assert letter.headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        assert "samlat en gång om dagen" in " ".join(text.split())
    assert "Försäkringskassan" in read(found[SEVERAL]).text_plain[0]

    await desk.withdraw(faulty, "Siffrorna var fel.")

    async def told() -> dict[str, Mail]:
        after = {mail.to: mail for mail in inboxes.of(faulty) if mail.revision == 2}
        assert set(after) == {AT_ONCE, DAILY, SEVERAL}
        return after

    followed = await eventually(told, within=30, every=0.1)
    for reader in (DAILY, SEVERAL):
        assert followed[reader].header("In-Reply-To") == found[reader].message_id
        assert "Siffrorna var fel." in read(followed[reader]).text_plain[0]

    async def counted() -> bool:
        reach = await desk.reached(faulty)
        return sum(row["sent"] for row in reach["digests"]) == 2

    await eventually(counted, within=30, every=0.2)

    assert (await run(desk, weekly=True))["mails"] == 1
    weekly = (await arrived(inboxes, DAILY, SEVERAL, WEEKLY))[WEEKLY]
    assert TAKEN_BACK not in read(weekly).text_plain[0] and KEPT in read(weekly).text_plain[0]
    assert len([mail for mail in inboxes.mails if mail.header("X-Budkavle-Digest-Run")]) == 3
