"""Has a deployment send every kind of mail that it can: what editors, readers, a group, two newsrooms and an intranet do.

`mail_kinds` says which there are; what is missing there is done here.
"""

import asyncio
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field

from httpx2 import AsyncClient
from tests.deployments import SENDER, Standalone
from tests.desk import DISTRIBUTOR, SUBSCRIPTIONS, Desk
from tests.eventually import eventually
from tests.inboxes import Inboxes, Mail
from tests.integration.subscriptions.scanner import OWN
from tests.servers.receiver import HttpReceiver

PRESS, SILENT, PUBLIC, DAILY, MOVER, GONE, CONTACT, MEMBER, STRANGER, MOVED, YES, NO, LATER, INTRANET, MISSPELT = (
    f"{name}@folk.example"
    for name in (
        "red", "tyst", "genast", "daglig", "flyttar", "studsar", "kontakt", "medlem", "ny", "flyttad", "ja", "nej",
        "senare", "webb", "wbeb",
    )
)  # fmt: skip
SUBSCRIBERS = (PRESS, SILENT, PUBLIC, DAILY, MOVER, GONE, CONTACT, MEMBER)
ENDPOINT = "Insidan"
TOLD = {"kind": "news", "lead": "Ingress.", "body": "Text.", "audiences": ["newsroom", "public", "agency_official"]}
DUE = "UPDATE desks SET due_at = 0, step = CASE subscriber_id WHEN ? THEN 'remind' ELSE 'ask' END"


@dataclass
class EveryMail:
    """A deployment, and what its people do. `ids` are the subscribers'."""

    deployment: Standalone
    desk: Desk
    inboxes: Inboxes
    reader: AsyncClient
    intranet: HttpReceiver
    ids: dict[str, str] = field(default_factory=dict)
    endpoint: str = ""

    async def send(self) -> None:
        await self._fill()
        await self._ask_the_desks()
        await self._tell()
        await self._sign_up_and_move()
        await self._keep_the_group()

    async def newest(self, to: str, subject: str) -> Mail:
        """The last such mail that came, or the first that comes."""

        def found() -> Mail | None:
            mails = [mail for mail in self.inboxes.mails if mail.to == to and mail.header("Subject") == subject]
            return mails[-1] if mails else None

        mail = await eventually(found, within=30, every=0.1)
        assert mail is not None
        return mail

    async def link(self, to: str, subject: str) -> str:
        """What such a mail asks to be opened: the first of its links."""
        found = re.search(r"https?://\S+", (await self.newest(to, subject)).part("plain"))
        assert found is not None
        return found[0]

    async def post(self, link: str, **form: str) -> None:
        answer = await self.reader.post(link, data=form, headers=OWN, follow_redirects=True)
        assert answer.status_code == 200, f"{link}: {answer.status_code}"

    async def _fill(self) -> None:
        papers = [await self.desk.add_place("newsroom", name) for name in ("Barometern", "Tidningen")]
        group = await self.desk.add_place("group", "Samverkan", ["0880"])
        member = {"audience": "collaboration_group", "group_id": group}
        roles = {
            PRESS: {"audience": "newsroom", "organisation_id": papers[0]},
            SILENT: {"audience": "newsroom", "organisation_id": papers[1]},
            CONTACT: member,
            MEMBER: member,
        }
        for address in SUBSCRIBERS:
            often = {"everything": "daily"} if address == DAILY else {}
            person = {"address": address, "roles": [roles.get(address, {"audience": "public"})], "frequencies": often}
            self.ids[address] = str((await self.desk.add_subscriber(person))["id"])
        for paper, address in zip(papers, (PRESS, SILENT), strict=True):
            named = {"subscriber_id": self.ids[address]}
            await self.desk.call("PUT", f"{SUBSCRIPTIONS}/organisations/{paper}/desk", json=named)
        contact = {"subscriber_id": self.ids[CONTACT]}
        await self.desk.call("PUT", f"{SUBSCRIPTIONS}/groups/{group}/contact", json=contact)
        about = {"name": ENDPOINT, "contact_email": INTRANET, "url": self.intranet.url("/hook")}
        self.endpoint = str((await self.desk.add_endpoint(about))["id"])

    async def _ask_the_desks(self) -> None:
        """Half a year has passed for one newsroom, three weeks without an answer for the other."""
        await asyncio.to_thread(self.deployment.end, "subscriptions")
        with closing(sqlite3.connect(self.deployment.database("subscriptions"))) as connection, connection:
            connection.execute(DUE, [self.ids[SILENT].replace("-", "")])
        await asyncio.to_thread(self.deployment.start, "subscriptions")
        await self.newest(PRESS, "Är det här fortfarande rätt redaktion och bevakning?")
        await self.newest(SILENT, "Påminnelse: är det här fortfarande rätt redaktion och bevakning?")

    async def _tell(self) -> None:
        """Two items, a correction, a withdrawal and a digest, while an intranet breaks, mends itself and goes, and its next
        contact cannot be reached."""
        self.intranet.by_default(500)
        kept, gone = [await self.desk.publish_new({**TOLD, "title": title}) for title in ("Öppet hus", "Nya siffror")]
        await self.newest(INTRANET, f"{ENDPOINT} tar inte emot våra nyheter")
        self.intranet.by_default(204)
        await self.newest(INTRANET, f"{ENDPOINT} tar emot våra nyheter igen")
        await self.desk.reached(kept)
        await self.desk.reached(gone)
        self.intranet.by_default(410)
        await self.desk.correct(kept, {"lead": "Rätt tid är 14."}, "Tiden var fel.")
        await self.desk.withdraw(gone, "Siffrorna var fel.")
        await self.desk.call("POST", f"{SUBSCRIPTIONS}/digest-runs", json={"weekly": False})
        await self.newest(INTRANET, f"Vi har slutat skicka nyheter till {ENDPOINT}")
        path = f"{DISTRIBUTOR}/endpoints/{self.endpoint}"
        known = {"If-Match": (await self.desk.api.get(path)).headers["etag"]}
        await self.desk.call("PATCH", path, json={"contact_email": MISSPELT}, headers=known)
        await self.newest(SENDER, f"Kontaktadressen för {ENDPOINT} fungerar inte")

        def everything_is_there() -> bool:
            forms = {(mail.to, mail.item, mail.revision) for mail in self.inboxes.mails}
            return {(to, item, n) for to in (PRESS, PUBLIC) for item in (kept, gone) for n in (1, 2)} <= forms

        await eventually(everything_is_there, within=30, every=0.1)

    async def _sign_up_and_move(self) -> None:
        """A stranger signs up, a reader does so again, one asks for a new link, one for a change of address."""
        for address in (STRANGER, PUBLIC):
            await self.post(f"{self.deployment.url}/prenumerera", email=address, frequency="weekly")
        await self.post(f"{self.deployment.url}/prenumeration", email=MOVER)
        page = await self.link(MOVER, "Länk till din prenumeration")
        await self.post(page, action="fresh_link")
        own = await self.link(MOVER, "Länk till dina uppgifter")
        await self.post(own, action="move", new_address=MOVED)
        await self.newest(MOVED, "Bekräfta din nya adress")

    async def _keep_the_group(self) -> None:
        """Three are invited: one says yes, one no, one is uninvited. A member is removed, wants back, and comes back."""
        page = await self.link(CONTACT, "Du är kontaktperson för en samverkansgrupp")
        invited, told = "Vill du vara med i en samverkansgrupp?", "Någon har bjudits in till din samverkansgrupp"
        await self.post(page, action="invite", email=LATER, name="Senare", locale="sv")
        await self.post(await self.link(CONTACT, told), action="undo")
        for address, answer in ((YES, "yes"), (NO, "no")):
            await self.post(page, action="invite", email=address, name=answer, locale="sv")
            await self.post(await self.link(address, invited), answer=answer)
        await self.post(page, action="members")
        await self.post(await self.link(CONTACT, "Länk till gruppens medlemmar"), remove=self.ids[MEMBER])
        await self.post(await self.link(MEMBER, "Du är inte längre med i en samverkansgrupp"))
        await self.newest(CONTACT, "En borttagen medlem vill vara kvar i din samverkansgrupp")
        await self.post(await self.link(CONTACT, "En medlem har tagits bort ur din samverkansgrupp"), action="undo")
        await self.newest(CONTACT, "En medlem är tillbaka i din samverkansgrupp")
