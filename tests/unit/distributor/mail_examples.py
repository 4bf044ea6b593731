"""Items, requests and dispatches for the tests of mail, and a reader of what becomes of them."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import mailparser

from distributor.channels import Content, Dispatch
from distributor.settings import DistributorSettings
from shared.contracts.delivery import Channel
from shared.contracts.mail import DigestItem, Form, Lane, RequestContent, SubjectKind
from shared.contracts.news import (
    Attachment,
    Audience,
    ContactPerson,
    Image,
    ItemSnapshot,
    ItemState,
    Kind,
    Link,
    Locale,
)

ITEM_ID = UUID("01890000-0000-7000-8000-000000000001")
PERSON_ID = UUID("01890000-0000-7000-8000-0000000000aa")
PLANNED_AT = datetime(2026, 11, 22, 7, 30, tzinfo=UTC)
ORIGIN = "https://nyheter.kalmar.example"

ABOUT = """Samordningsförbundet i Kalmar län är ett samarbete mellan Arbetsförmedlingen, Försäkringskassan,
Region Kalmar län och länets tolv kommuner. Vi stödjer människor som behöver hjälp av
flera myndigheter samtidigt för att komma i arbete eller studier.
Förbundet bildades 2006 och har sitt kansli i Kalmar."""


def settings(**changes: Any) -> DistributorSettings:
    told: dict[str, Any] = {
        "database_url": "sqlite:///nowhere.sqlite3",
        "broker_url": "embedded:nowhere.sqlite3",
        "public_url": ORIGIN,
        "secret_keys": "k" * 32,
        "sender": "nyheter@kalmar.example",
        "reply_to": "kansli@kalmar.example",
        "postal_address": "Box 1, 391 20 Kalmar",
        "contact_email": "kansli@kalmar.example",
        "contact_phone": "0480-12 34 56",
        "facebook_url": "https://www.facebook.com/samordningsforbundet.example",
        "about": ABOUT,
        "smtp_ehlo_name": "budkavle.example",
    }
    return DistributorSettings(**{**told, **changes})


def item(**changes: Any) -> ItemSnapshot:
    told: dict[str, Any] = {
        "item_id": ITEM_ID,
        "revision": 1,
        "kind": Kind.PRESS_RELEASE,
        "state": ItemState.PUBLISHED,
        "language": Locale.SV,
        "title": "Fler unga i Kalmar län får jobb när myndigheter samarbetar",
        "lead": "Av 412 unga vuxna som fick stöd förra året arbetar eller studerar nu fler än hälften. "
        "Det visar en ny uppföljning från Samordningsförbundet i Kalmar län.",
        "body_html": "<p>Insatsen <strong>Språnget</strong> samlar handläggare från tre myndigheter i samma lokal."
        "</p><h2>Ett samlat stöd</h2><p>– Vi slipper skicka runt människor, säger Eva Lind.</p>"
        '<ul><li>53 procent arbetar</li><li>9 procent studerar</li></ul><p>Läs mer i <a href="'
        + ORIGIN
        + '/rapporter/spranget">rapporten</a>.</p>',
        "body_text": "Insatsen Språnget samlar handläggare från tre myndigheter i samma lokal.\n\nEtt samlat stöd\n\n"
        "– Vi slipper skicka runt människor, säger Eva Lind.\n\n- 53 procent arbetar\n- 9 procent studerar\n\n"
        f"Läs mer i rapporten ({ORIGIN}/rapporter/spranget).",
        "slug": "fler-unga-far-jobb",
        "url": f"{ORIGIN}/nyheter/fler-unga-far-jobb",
        "audiences": (Audience.NEWSROOM, Audience.POLITICIAN),
        "contacts": (
            ContactPerson(
                name="Eva Lind",
                role="förbundschef",
                phone="070-123 45 67",
                email="eva.lind@kalmar.example",
                hours="vardagar 8–17, i dag till 20",
            ),
        ),
        "links": (Link(label="Uppföljningen i siffror", url=f"{ORIGIN}/resultat/spranget"),),
        "images": (
            Image(
                url=f"{ORIGIN}/bilder/spranget-full.jpg",
                alt="Två personer vid ett bord i ett ljust rum",
                credit="Anna Ek",
                caption="Deltagare och handläggare möts på Språnget i Kalmar",
            ),
        ),
        "published_at": datetime(2026, 11, 22, 7, 30, tzinfo=UTC),
        "revised_at": datetime(2026, 11, 22, 7, 30, tzinfo=UTC),
    }
    return ItemSnapshot(**{**told, **changes})


FILES = (
    Attachment(
        url=f"{ORIGIN}/nyheter/fler-unga-far-jobb/filer/0123456789abcdef/motet.jpg",
        sha256="0123456789abcdef" * 4,
        name="mötet.jpg",
        type="image/jpeg",
        size=2_345_678,
        width=4000,
        height=2667,
        title="Mötet i Nybro <2026>",
        alt="Fyra personer & en whiteboard",
        byline="Åsa Öst/Förbundet",
        rights="Fri att använda i samband med nyheten",
    ),
    Attachment(
        url=f"{ORIGIN}/nyheter/fler-unga-far-jobb/filer/fedcba9876543210/arsredovisning.pdf",
        sha256="fedcba9876543210" * 4,
        name="årsredovisning.pdf",
        type="application/pdf",
        size=840_000,
    ),
)


def report(**changes: Any) -> ItemSnapshot:
    told: dict[str, Any] = {
        "kind": Kind.REPORT,
        "title": "Så gick det för deltagarna i Språnget",
        "popular_version_html": "<p>Varannan deltagare kom i arbete inom ett år.</p>",
        "popular_version_text": "Varannan deltagare kom i arbete inom ett år.",
        "original_url": f"{ORIGIN}/filer/spranget-2026.pdf",
    }
    return item(**{**told, **changes})


def of_item(snapshot: ItemSnapshot | None = None, *, note: str = "") -> Content:
    snapshot = snapshot or item()
    return Content(SubjectKind.ITEM, snapshot.item_id, snapshot.revision, item=snapshot, note=note)


def of_digest(*snapshots: ItemSnapshot) -> Content:
    told = snapshots or (
        item(),
        item(
            item_id=UUID(int=2),
            kind=Kind.NEWS,
            title="Öppet hus i Nybro",
            lead="Kom och träffa oss & våra samarbetspartner <den 3 december>.",
        ),
        item(item_id=UUID(int=3), kind=Kind.NEWS, language=Locale.EN, title="Open house in Nybro", lead=""),
        report(item_id=UUID(int=4), revision=2, state=ItemState.CORRECTED),
    )
    run = UUID("01890000-0000-7000-8000-00000000d000")
    digest = tuple(DigestItem.of(snapshot) for snapshot in told)
    return Content(SubjectKind.DIGEST_RUN, run, 0, digest=digest, planned_at=PLANNED_AT)


def of_request(**changes: Any) -> Content:
    told: dict[str, Any] = {
        "subject": "Bekräfta din prenumeration",
        "paragraphs": (
            "Någon har anmält din adress till våra nyheter. Var det du? Bekräfta då med knappen.",
            "Var det inte du behöver du inte göra något.",
        ),
        "action_label": "Bekräfta prenumerationen",
        "action_url": f"{ORIGIN}/prenumerera/bekrafta/abc_123-def",
    }
    request = RequestContent(**{**told, **changes})
    return Content(SubjectKind.REQUEST, UUID("01890000-0000-7000-8000-0000000000ff"), 0, request=request)


def dispatch(content: Content | None = None, **changes: Any) -> Dispatch:
    content = content or of_item()
    told: dict[str, Any] = {
        "delivery_id": UUID("01890000-0000-7000-8000-0000000000dd"),
        "channel": Channel.MAIL,
        "recipient_id": PERSON_ID,
        "form": Form.NEWS,
        "lane": Lane.NEWS,
        "content": content,
        "planned_at": PLANNED_AT,
        "attempt": 1,
        "audience": Audience.POLITICIAN,
        "address": "eva.ek@kommun.example",
        "reason": "Du får det här eftersom du är ledamot i kommunfullmäktige i Kalmar.",
        "preferences_url": f"{ORIGIN}/prenumeration/" + "p" * 60,
        "unsubscribe_url": f"{ORIGIN}/avregistrera/" + "u" * 60,
        "one_click_url": f"{ORIGIN}/avregistrera/" + "o" * 60,
    }
    return Dispatch(**{**told, **changes})


def parsed(data: bytes) -> Any:
    return mailparser.parse_from_bytes(data)


def text_of(data: bytes) -> str:
    (text,) = parsed(data).text_plain
    return text.replace("\r\n", "\n")


def html_of(data: bytes) -> str:
    (html,) = parsed(data).text_html
    return html.replace("\r\n", "\n")
